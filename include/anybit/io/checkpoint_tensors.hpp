#pragma once
// The tensors of one module of a checkpoint, with the checks that every format's reader makes, and tensors to be written.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/half.hpp>
#include <anybit/io/tensor_info.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Views on tensors that a file keeps, by the part of their names behind "module.".
struct ModuleTensors {
  std::string name;
  std::map<std::string, const TensorInfo*, std::less<>> tensors;

  /// Null if there is none.
  template <class = void>
  const TensorInfo* find(std::string_view part) const {
    const auto found = tensors.find(part);
    return found == tensors.end() ? nullptr : found->second;
  }
  /// An error of this module; `why` ends with the remedy.
  template <class... Pieces>
  Error bad(ErrorCode code, const Pieces&... why) const {
    return {code, detail::text("module ", detail::shown(name), ": ", why...)};
  }
  /// The tensor, of one of these types, with so many extents, none of them 0.
  template <std::size_t N>
  Result<const TensorInfo*> need(std::string_view part, const std::string_view (&types)[N], std::size_t rank) const {
    const TensorInfo* const t = find(part);
    if (!t) return bad(ErrorCode::corrupt_data, "there is no tensor ", part, ": give the complete checkpoint");
    std::string allowed;
    bool fits = false;
    for (const std::string_view type : types) {
      fits = fits || t->dtype == type;
      allowed += (allowed.empty() ? "" : " or ") + std::string(type);
    }
    if (!fits) return bad(ErrorCode::corrupt_data, part, " has type ", t->dtype, ", not ", allowed, ": check the checkpoint");
    if (t->shape.size() != rank)
      return bad(ErrorCode::corrupt_data, part, " has ", t->shape.size(), " extents, not ", rank, ": check the checkpoint");
    if (t->size() == 0) return bad(ErrorCode::corrupt_data, part, " is empty: check the checkpoint");
    return t;
  }
  /// need() with the extents given.
  template <std::size_t N>
  Result<const TensorInfo*> need_shape(std::string_view part, const std::string_view (&types)[N], const std::vector<Index>& shape,
                                       std::string_view because) const {
    ANYBIT_TRY(const TensorInfo* const t, need(part, types, shape.size()));
    if (t->shape != shape)
      return bad(ErrorCode::shape_mismatch, part, " is ", extents_text(t->shape), ", but ", because, " makes it ",
                 extents_text(shape), ": check the quantization config against the tensors");
    return t;
  }

  static std::string extents_text(std::span<const Index> shape) {
    std::string out;
    for (const Index e : shape) out += (out.empty() ? "" : " x ") + std::to_string(e);
    return out.empty() ? "one value" : out;
  }
};

/// The values of a tensor as they lie in the file, a T each; the caller has checked the type.
template <class T>
std::vector<T> values_of(const TensorInfo& t) {
  std::vector<T> out(t.bytes.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), t.bytes.data(), out.size() * sizeof(T));
  return out;
}

/// Types that scales come in.
inline constexpr std::string_view scale_types[] = {"F16", "BF16", "F32"};

/// Scales as floats; an error at one that is no finite number.
inline Result<std::vector<float>> finite_values(const ModuleTensors& m, std::string_view part, const TensorInfo& t) {
  ANYBIT_TRY(const Matrix all, to_f32(t));
  std::vector<float> out(all.data(), all.data() + all.extents().size());
  for (std::size_t i = 0; i < out.size(); ++i)
    if (!is_finite(out[i])) return m.bad(ErrorCode::not_finite, part, " entry ", i, " is ", out[i], ": check the checkpoint");
  return out;
}

/// Inputs per group where scales has `groups` of them: `stated` is the config's group size, -1 for one group and 0 where there is
/// none. `config` is the file that would state it.
inline Result<Index> group_size(const ModuleTensors& m, Index stated, Index inputs, Index groups, std::string_view config) {
  if (stated == 0 && inputs % groups != 0)
    return m.bad(ErrorCode::shape_mismatch, "scales has ", groups, " groups, which do not divide ", inputs,
                 " inputs, and no group_size is stated: give the checkpoint's ", config);
  const Index group = stated == -1 ? inputs : stated == 0 ? inputs / groups : stated;
  if (ceil_div(inputs, group) != groups)
    return m.bad(ErrorCode::shape_mismatch, "scales has ", groups, " groups of ", inputs, " inputs, but group_size ", stated,
                 " (the quantization config) makes ", ceil_div(inputs, group), ": check the config against the tensors");
  return group;
}

/// Two whole numbers that a tensor holds as the shape of a matrix; `t` has two values. Each is at most 2^24.
inline Result<Extents> matrix_extents(const ModuleTensors& m, std::string_view part, const TensorInfo& t) {
  ANYBIT_TRY(const Matrix shape, to_f32(t));
  for (const float e : {shape.data()[0], shape.data()[1]})
    if (!(e >= 1 && e <= 16777216.0f)) return m.bad(ErrorCode::corrupt_data, part, " holds ", e, ": check the checkpoint");
  return Extents{static_cast<Index>(shape.data()[0]), static_cast<Index>(shape.data()[1])};
}

/// in (rows, cols), row-major, as (cols, rows).
template <class T>
std::vector<T> transposed(const std::vector<T>& in, Index rows, Index cols) {
  std::vector<T> out(in.size());
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) out[static_cast<std::size_t>(c * rows + r)] = in[static_cast<std::size_t>(r * cols + c)];
  return out;
}

/// A tensor that a writer made.
struct OwnedTensor {
  std::string name;
  std::string dtype;
  std::vector<Index> shape;
  std::vector<std::byte> bytes;

  TensorInfo info() const { return {name, dtype, shape, bytes}; }
};

template <class T>
OwnedTensor owned_tensor(std::string name, std::string dtype, std::vector<Index> shape, const std::vector<T>& values) {
  OwnedTensor t{std::move(name), std::move(dtype), std::move(shape), std::vector<std::byte>(values.size() * sizeof(T))};
  if (!values.empty()) std::memcpy(t.bytes.data(), values.data(), t.bytes.size());
  return t;
}
/// Values as binary16, rounded to nearest.
inline OwnedTensor owned_f16(std::string name, std::vector<Index> shape, const std::vector<float>& values) {
  std::vector<std::uint16_t> half(values.size());
  for (std::size_t i = 0; i < half.size(); ++i) half[i] = f32_to_f16(values[i]);
  return owned_tensor(std::move(name), "F16", std::move(shape), half);
}

/// Scales without loss: as binary16 or bfloat16 if all of them are such numbers, else in float.
inline OwnedTensor owned_scales(std::string name, std::vector<Index> shape, const std::vector<float>& values) {
  bool f16 = true, bf16 = true;
  for (const float v : values) {
    f16 = f16 && f16_to_f32(f32_to_f16(v)) == v;
    bf16 = bf16 && bf16_to_f32(f32_to_bf16(v)) == v;
  }
  if (f16) return owned_f16(std::move(name), std::move(shape), values);
  if (!bf16) return owned_tensor(std::move(name), "F32", std::move(shape), values);
  std::vector<std::uint16_t> half(values.size());
  for (std::size_t i = 0; i < half.size(); ++i) half[i] = f32_to_bf16(values[i]);
  return owned_tensor(std::move(name), "BF16", std::move(shape), half);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
