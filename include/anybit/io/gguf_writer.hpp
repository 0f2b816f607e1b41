#pragma once
// GGUF version 3, writing: metadata and tensors in the order in which they are added.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>
#include <anybit/io/atomic_write.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/dtype.hpp>
#include <anybit/io/tensor_info.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Collects a file in memory. Nothing is checked, and the raw functions and public numbers write what they are told: tests of
/// readers need files that are wrong in a chosen place.
class GgufWriter {
 public:
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;  ///< of the data; add "general.alignment" yourself where it is not 32

  void add_metadata(std::string_view key, std::string_view value) { pair(key, 8), put_string(pairs_, value); }
  void add_metadata(std::string_view key, const char* value) { add_metadata(key, std::string_view(value)); }
  /// bool, float, double and integers keep their own type.
  template <class T>
    requires(std::is_arithmetic_v<T>)
  void add_metadata(std::string_view key, T value) {
    pair(key, type_of<T>()), put(pairs_, value);
  }
  void add_metadata(std::string_view key, const std::vector<std::string>& values) {
    pair(key, 9), put(pairs_, std::uint32_t{8}), put(pairs_, std::uint64_t{values.size()});
    for (const auto& v : values) put_string(pairs_, v);
  }
  template <class T>
    requires(std::is_arithmetic_v<T>)
  void add_metadata(std::string_view key, const std::vector<T>& values) {
    pair(key, 9), put(pairs_, type_of<T>()), put(pairs_, std::uint64_t{values.size()});
    for (const T v : values) put(pairs_, v);
  }
  /// A pair whose type and bytes are the caller's.
  void add_raw_metadata(std::string_view key, std::uint32_t type, std::string_view bytes) { pair(key, type), pairs_ += bytes; }

  /// `shape` is row-major {rows, cols}, as io::TensorInfo has it; `type` is a name in io::dtypes.
  void add_tensor(std::string_view name, const std::vector<Index>& shape, std::string_view type, std::string_view bytes) {
    std::vector<std::uint64_t> ne;
    for (auto extent = shape.rbegin(); extent != shape.rend(); ++extent) ne.push_back(static_cast<std::uint64_t>(*extent));
    const auto* const dtype = find_dtype(type);
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    add_raw_tensor(name, ne, dtype ? static_cast<std::uint32_t>(dtype->gguf_id) : 999, data_.size());
    data_ += bytes;
  }
  void add_f32(std::string_view name, const std::vector<Index>& shape, const std::vector<float>& values) {
    add_tensor(name, shape, "F32", {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }
  /// A tensor info whose every number is the caller's; it brings no data.
  void add_raw_tensor(std::string_view name, const std::vector<std::uint64_t>& ne, std::uint32_t type, std::uint64_t offset) {
    ++tensor_count;
    put_string(infos_, name);
    put(infos_, static_cast<std::uint32_t>(ne.size()));
    for (const auto n : ne) put(infos_, n);
    put(infos_, type), put(infos_, offset);
  }

  std::uint64_t tensor_count = 0, pair_count = 0;  ///< as the file will declare them

  std::string bytes() const {
    std::string out = magic;
    put(out, version), put(out, tensor_count), put(out, pair_count);
    out += pairs_ + infos_;
    if (alignment) out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data_;
  }
  /// The whole file or nothing.
  Status save(const std::string& path) const {
    ANYBIT_TRY(AtomicFile file, AtomicFile::create(path));
    ANYBIT_TRY_STATUS(file.write(bytes()));
    return file.commit();
  }

 private:
  template <class T>
  static constexpr std::uint32_t type_of() {
    if constexpr (std::is_same_v<T, bool>)
      return 7;
    else if constexpr (std::is_same_v<T, float>)
      return 6;
    else if constexpr (std::is_same_v<T, double>)
      return 12;
    else if constexpr (sizeof(T) == 8)
      return std::is_signed_v<T> ? 11 : 10;
    else
      return (sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 2 : 4) + (std::is_signed_v<T> ? 1 : 0);
  }
  template <class T>
  static void put(std::string& to, T value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static void put_string(std::string& to, std::string_view s) {
    put(to, std::uint64_t{s.size()});
    to += s;
  }
  void pair(std::string_view key, std::uint32_t type) {
    ++pair_count;
    put_string(pairs_, key), put(pairs_, type);
  }

  std::string pairs_, infos_, data_;
};

/// A file whose tensors are written one after the other, so that one at a time is in memory.
class GgufStream {
 public:
  struct Tensor {
    std::string name;
    std::vector<Index> shape;  ///< row-major
    std::string type;          ///< a name in io::dtypes that GGUF has
  };

  /// `metadata` holds no tensors; `tensors` are all that will be written, in their order. An error where a type does not fit a
  /// shape. Nothing stands at `path` before commit().
  template <class = void>
  static Result<GgufStream> create(const std::string& path, GgufWriter metadata, const std::vector<Tensor>& tensors) {
    ANYBIT_TRY(std::vector<std::size_t> sizes, add_infos(metadata, tensors));
    ANYBIT_TRY(AtomicFile file, AtomicFile::create(path));
    ANYBIT_TRY_STATUS(file.write(metadata.bytes()));
    return GgufStream(std::move(file), std::move(sizes), metadata.alignment);
  }

  /// The size of the file that create() begins.
  template <class = void>
  static Result<std::size_t> file_bytes(GgufWriter metadata, const std::vector<Tensor>& tensors) {
    ANYBIT_TRY(const std::vector<std::size_t> sizes, add_infos(metadata, tensors));
    std::size_t bytes = metadata.bytes().size();
    for (const std::size_t size : sizes) bytes += (size + metadata.alignment - 1) / metadata.alignment * metadata.alignment;
    return bytes;
  }

  /// The next tensor: exactly its bytes.
  Status write(std::span<const std::byte> bytes) {
    ANYBIT_CHECK(written_ < sizes_.size() && bytes.size() == sizes_[written_], "GgufStream::write: another tensor comes next");
    ++written_;
    ANYBIT_TRY_STATUS(file_.write(bytes));
    const std::string padding((alignment_ - bytes.size() % alignment_) % alignment_, '\0');
    return file_.write(padding);
  }
  Status commit() {
    ANYBIT_CHECK(written_ == sizes_.size(), "GgufStream::commit: tensors are missing");
    return file_.commit();
  }

 private:
  /// Their bytes, without padding.
  template <class = void>
  static Result<std::vector<std::size_t>> add_infos(GgufWriter& metadata, const std::vector<Tensor>& tensors) {
    std::uint64_t offset = 0;
    std::vector<std::size_t> sizes;
    for (const Tensor& t : tensors) {
      const DType* const type = find_dtype(t.type);
      ANYBIT_CHECK(type && type->gguf_id >= 0, "GgufStream: GGUF has no such type");
      auto size = tensor_bytes(*type, t.shape);
      if (!size)
        return in_context(Error{size.error().code, size.error().message + ": choose another type"},
                          "tensor " + detail::shown(t.name));
      std::vector<std::uint64_t> ne;
      for (auto extent = t.shape.rbegin(); extent != t.shape.rend(); ++extent) ne.push_back(static_cast<std::uint64_t>(*extent));
      metadata.add_raw_tensor(t.name, ne, static_cast<std::uint32_t>(type->gguf_id), offset);
      offset += (*size + metadata.alignment - 1) / metadata.alignment * metadata.alignment;
      sizes.push_back(*size);
    }
    return sizes;
  }

  GgufStream(AtomicFile file, std::vector<std::size_t> sizes, std::uint64_t alignment)
      : file_(std::move(file)), sizes_(std::move(sizes)), alignment_(static_cast<std::size_t>(alignment)) {}

  AtomicFile file_;
  std::vector<std::size_t> sizes_;
  std::size_t written_ = 0, alignment_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
