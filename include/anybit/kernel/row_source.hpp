#pragma once
// A packed tensor as the kernels see it: functions that decode a stretch of one row. The loops that multiply know no
// scheme, so one more scheme costs only its decoders.

#include <array>

#include <anybit/kernel/decode.hpp>
#include <anybit/tensor/unpack.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

/// Columns that are decoded at once. Sums of floats are formed per block, so this is part of what results mean.
inline constexpr Index block_cols = 512;
/// Elements past the end of a decoded stretch that a decoder may overwrite.
inline constexpr Index decode_slack = 64;

struct RowSource {
  const void* tensor = nullptr;
  Extents extents;
  Index group = 1;  ///< columns that share a scale; the last group of a row may be shorter
  /// Dequantized weights of columns first .. first + n - 1, 1 <= n <= block_cols.
  void (*weights)(const void*, Index row, Index first, Index n, float* out) = nullptr;
  /// Integer form, null for formats without: weight = scale * (u - offset) with bytes u and whole offsets.
  void (*bytes)(const void*, Index row, Index first, Index n, std::uint8_t* out) = nullptr;
  void (*affines)(const void*, Index row, Index first_group, Index n, float* scales, std::int32_t* offsets) = nullptr;
  int max_byte = 0;  ///< the largest u
};

namespace detail {

template <AnyScheme S>
ANYBIT_INLINE const PackedTensor<S>& tensor_of(const void* p) { return *static_cast<const PackedTensor<S>*>(p); }

/// Codes first .. first + n - 1 in a buffer of its own; `first` need not suit the layout.
template <AnyScheme S>
class Codes {
 public:
  ANYBIT_INLINE Codes(const PackedTensor<S>& t, Index row, Index first, Index n) : lead_(first % S::layout::granule) {
    unpack_codes(t, row, first - lead_, std::span(buffer_).first(static_cast<std::size_t>(n + lead_)));
  }
  ANYBIT_INLINE const typename S::code* data() const { return buffer_.data() + lead_; }

 private:
  // Bytes past the last code are read as codes and their results dropped: zero, so that they are below 2^bits.
  alignas(64) std::array<typename S::code, static_cast<std::size_t>(block_cols + S::layout::granule + decode_slack)> buffer_{};
  Index lead_;
};

template <AnyScheme S>
inline void decode_weights(const void* tensor, Index row, Index first, Index n, float* out) {
  using F = typename S::format;
  const PackedTensor<S>& t = tensor_of<S>(tensor);
  const Codes<S> codes(t, row, first, n);
  const Index group = S::granularity::group_cols(t.cols()), first_group = first / group, groups = (first + n - 1) / group - first_group + 1;
  std::array<float, static_cast<std::size_t>(block_cols)> scales;
  const Index index = S::granularity::index(t.extents(), row, first_group);
  t.load_scales(index, std::span(scales).first(static_cast<std::size_t>(groups)));
  const Levels<F> levels;
  Index i = 0;
  for (Index g = 0; g < groups; ++g) {
    const simd::f32 scale = simd::broadcast(scales[static_cast<std::size_t>(g)]);
    const Index end = std::min(n, (first_group + g + 1) * group - first);
    // The last vector of a group may spill into the next group, which then writes over it.
    if constexpr (S::has_zero_point) {
      const simd::f32 zero = simd::broadcast(t.zero(index + g));
      for (Index j = i; j < end; j += simd::width) simd::store(out + j, scale * (levels(codes.data() + j) - zero));
    } else {
      for (Index j = i; j < end; j += simd::width) simd::store(out + j, scale * levels(codes.data() + j));
    }
    i = end;
  }
}

template <AnyScheme S>
inline void decode_bytes(const void* tensor, Index row, Index first, Index n, std::uint8_t* out) {
  using F = typename S::format;
  const PackedTensor<S>& t = tensor_of<S>(tensor);
  const auto map = [n](const std::uint8_t* from, std::uint8_t* to) {
    for (Index i = 0; i < n; i += 64)
      for (Index j = 0; j < 64; ++j) to[i + j] = level_byte<F>(from[i + j]);  // constant length: vectorized at -O2 too
  };
  if (first % S::layout::granule == 0) {
    unpack_codes(t, row, first, std::span(out, static_cast<std::size_t>(n)));
    if constexpr (level_map<F>() != LevelMap::identity) {
      for (Index i = n; i % 64 != 0; ++i) out[i] = 0;
      map(out, out);
    }
  } else {
    const Codes<S> codes(t, row, first, n);
    map(codes.data(), out);
  }
}

template <AnyScheme S>
inline void decode_affines(const void* tensor, Index row, Index first_group, Index n, float* scales, std::int32_t* offsets) {
  using F = typename S::format;
  const PackedTensor<S>& t = tensor_of<S>(tensor);
  const Index index = S::granularity::index(t.extents(), row, first_group);
  t.load_scales(index, {scales, static_cast<std::size_t>(n)});
  for (Index g = 0; g < n; ++g) {
    if constexpr (F::step != 1.0f) scales[g] *= F::step;
    offsets[g] = -min_int<F>();
    if constexpr (S::has_zero_point) offsets[g] += static_cast<std::int32_t>(t.zero(index + g));
  }
}

}  // namespace detail

/// Views t, which must stay where it is.
template <AnyScheme S>
RowSource row_source(const PackedTensor<S>& t) {
  RowSource s;
  s.tensor = &t;
  s.extents = t.extents();
  s.group = std::max<Index>(S::granularity::group_cols(t.cols()), 1);
  s.weights = &detail::decode_weights<S>;
  if constexpr (has_integer_dot_v<typename S::format>) {
    s.bytes = &detail::decode_bytes<S>;
    s.affines = &detail::decode_affines<S>;
    s.max_byte = max_int<typename S::format>() - min_int<typename S::format>();
  }
  return s;
}

}  // namespace anybit::kernel::inline ANYBIT_CODE
