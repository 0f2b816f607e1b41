#pragma once
// The common form of all model files: named tensors over bytes that the file keeps.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/checked.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/dtype.hpp>

namespace anybit::io {
inline namespace ANYBIT_ABI {

/// A tensor inside a file. `bytes` is a view on the file's memory, at any alignment, and exactly as long as `dtype` and
/// `shape` say: whoever makes one has checked that. Of a type that io::dtypes does not know there are only the bytes that the
/// file gives it.
struct TensorInfo {
  std::string name;
  std::string dtype;         ///< "F32", "BF16", "Q4_K", ...: a name in io::dtypes, or what the file calls a type of its own
  std::vector<Index> shape;  ///< row-major: {rows, cols}; ggml's ne reversed. Empty: one value
  std::span<const std::byte> bytes;

  ANYBIT_INLINE Index size() const {
    Index n = 1;
    for (const Index extent : shape) n *= extent;
    return n;
  }
  /// As a matrix: the last extent is cols, all others together are rows; one extent n is 1 x n.
  ANYBIT_INLINE Extents extents() const {
    Extents e{1, 1};
    if (!shape.empty()) e.cols = shape.back();
    for (std::size_t i = 0; i + 1 < shape.size(); ++i) e.rows *= shape[i];
    return e;
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::io

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Bytes of a tensor; an error where the product overflows or the innermost extent is no multiple of the block.
inline Result<std::size_t> tensor_bytes(const DType& dtype, std::span<const Index> shape) {
  CheckedSize values = 1;
  for (const Index extent : shape) {
    if (extent < 0) return {ErrorCode::corrupt_data, detail::text("an extent of ", extent, " is negative")};
    values = values * static_cast<std::uint64_t>(extent);
  }
  const Index innermost = shape.empty() ? 1 : shape.back();
  if (innermost % dtype.block_values != 0)
    return {ErrorCode::corrupt_data, detail::text("rows of ", innermost, " values are no multiple of the ", dtype.block_values,
                                                  " values in a block of ", dtype.name)};
  // Multiplied before it is divided, so that 8 bytes per value bound the number of values as well.
  const auto bytes = (values * static_cast<std::uint64_t>(dtype.block_bytes)).get();
  if (!bytes || !(values * sizeof(float)).get()) return {ErrorCode::corrupt_data, "the product of its extents overflows"};
  return static_cast<std::size_t>(*bytes / dtype.block_values);
}

/// The tensor as floats, dequantized if need be, by `extents()`.
inline Result<Matrix> to_f32(const TensorInfo& t) {
  const DType* const dtype = find_dtype(t.dtype);
  if (!dtype || !dtype->to_f32)
    return {ErrorCode::unsupported, detail::text("tensor ", detail::shown(t.name), " has ", dtype ? "type " : "the unknown type ",
                                                 dtype ? std::string(dtype->name) : detail::shown(t.dtype),
                                                 ", which anybit cannot turn into floats: convert it to F32, F16 or BF16")};
  ANYBIT_TRY(const std::size_t bytes, tensor_bytes(*dtype, t.shape));
  ANYBIT_CHECK(bytes == t.bytes.size(), "TensorInfo: bytes do not match dtype and shape");
  Matrix out(t.extents().rows, t.extents().cols);
  if (bytes != 0) dtype->to_f32(t.bytes.data(), t.size() / dtype->block_values, out.data());
  return out;
}

/// The tensor where it lies in the file, without a copy: F32 only, at an address that is a multiple of 4.
inline Result<ConstMatrix> view_f32(const TensorInfo& t) {
  const auto address = reinterpret_cast<std::uintptr_t>(t.bytes.data());
  if (t.dtype != "F32" || address % alignof(float) != 0)
    return {ErrorCode::unsupported,
            detail::text("tensor ", detail::shown(t.name), " has type ", t.dtype, " at address ", address % alignof(float),
                         " modulo 4, so no float view of it exists: read a copy with read_f32")};
  const Extents e = t.extents();
  return ConstMatrix(reinterpret_cast<const float*>(t.bytes.data()), e.rows, e.cols);
}

/// Tensors in file order, found by name.
class TensorList {
 public:
  /// False if the name is taken.
  template <class = void>
  bool add(TensorInfo t) {
    if (!index_.emplace(t.name, tensors_.size()).second) return false;
    tensors_.push_back(std::move(t));
    return true;
  }
  const std::vector<TensorInfo>& all() const { return tensors_; }
  template <class = void>
  const TensorInfo* find(std::string_view name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }
  /// find() for data: a missing name is an error that shows names like it.
  template <class = void>
  Result<const TensorInfo*> need(std::string_view name, std::string_view file) const {
    if (const TensorInfo* t = find(name)) return t;
    std::string message = detail::text(file, ": no tensor ", detail::shown(name), " among ", tensors_.size());
    if (const auto near = index_.lower_bound(name); near != index_.end())
      message += ", the next is " + detail::shown(near->first);
    return {ErrorCode::invalid_argument, message + ": check the name and the model's architecture"};
  }
  template <class = void>
  Result<Matrix> read_f32(std::string_view name, std::string_view file) const {
    ANYBIT_TRY(const TensorInfo* const t, need(name, file));
    auto out = to_f32(*t);
    if (!out) return in_context(out.error(), file);
    return out;
  }

 private:
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
