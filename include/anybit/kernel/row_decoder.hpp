#pragma once
// A scheme at run time for the kernels: functions that decode a part of one row. The loops that multiply do not depend on a
// scheme, so one more scheme costs only its decoders.

#include <anybit/core/macros_begin.hpp>

#include <array>

#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/trellis_rows.hpp>
#include <anybit/kernel/trellis_tiles.hpp>
#include <anybit/tensor/decode_granules.hpp>
#include <anybit/tensor/dequantize.hpp>
#include <anybit/tensor/scheme_ops.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// Columns that are decoded at once. Sums of floats are formed per block, so this is part of what results mean.
using decoding::block_cols;
using decoding::decode_slack;
inline constexpr Index dot_rows = 4;

/// A scheme that decodes. The first argument of every function is a PackedTensor of the scheme.
struct RowOps : SchemeOps {
  Index granule_rows = 1;  ///< rows that are decoded together, 1 to 16
  /// Dequantized weights of columns first .. first + n - 1, 1 <= n <= block_cols, of rows row .. row + rows - 1, all of which
  /// exist; rows are `stride` apart in `out`.
  void (*weights)(const void*, Index row, Index rows, Index first, Index n, float* out, Index stride) = nullptr;
  /// Of `dot_rows` rows, the sums of the same stretch of weights times x; for rows past the end, something. Groups must end at
  /// multiples of the vector width, or with the row. Null for schemes without codes.
  void (*dots)(const void*, Index row, Index first, Index n, const float* x, float* out) = nullptr;
  /// Integer form, null for formats without: weight = scale * (u - offset) with bytes u and whole offsets.
  void (*bytes)(const void*, Index row, Index first, Index n, std::uint8_t* out) = nullptr;
  /// These may write up to decode_slack elements past the end.
  void (*affines)(const void*, Index row, Index first_group, Index n, float* scales, std::int32_t* offsets) = nullptr;
  int max_byte = 0;  ///< the largest u
  /// Products of the scheme's own with rounded activations: rows begin .. end - 1 of y(token, row). Null for schemes without.
  void (*integer_rows)(const void*, const RoundedActivations&, MutableMatrix y, Index begin, Index end) = nullptr;
  /// With at least `line_tokens` tokens such schemes multiply through lines: u, 64 bytes for four columns of 16 rows, of columns
  /// first .. first + n - 1, `first` and `row` multiples of 16; n is rounded up to one. `affines` belong to them.
  void (*lines)(const void*, Index row, Index first, Index n, std::uint8_t* out) = nullptr;
  static constexpr Index line_tokens = 16;
  Index (*row_bytes)(Index cols) = nullptr;  ///< of packed codes; null for schemes without
};

namespace detail {

using decoding::Codes, decoding::Levels, decoding::read_scales, decoding::with_levels;

template <AnyScheme S>
ANYBIT_INLINE const PackedTensor<S>& tensor_of(const void* p) {
  return *static_cast<const PackedTensor<S>*>(p);
}

template <AnyScheme S>
inline void decode_weights(const void* tensor, Index row, Index rows, Index first, Index n, float* out, Index stride) {
  for (Index r = 0; r < rows; ++r) decoding::dequantize_columns(tensor_of<S>(tensor), row + r, first, n, out + r * stride);
}

/// The same of a scheme that decodes granule by granule.
template <PackedScheme S>
inline void decode_granules(const void* tensor, Index row, Index rows, Index first, Index n, float* out, Index stride) {
  const auto& t = *static_cast<const PackedTensor<S>*>(tensor);
  const typename PackedTensor<S>::SectionsOf sections(t.bytes());
  anybit::decode_granules<S>(sections, t.extents(), row, rows, first, n, out, stride);
}

/// The same weights times x without storing them: the sums of rows row .. row + dot_rows - 1 over columns first .. first + n - 1,
/// to the bit what f32_rows makes of decode_weights. Groups must end at multiples of the vector width, or with the row.
template <AnyScheme S>
inline void decode_dots(const void* tensor, Index row, Index first, Index n, const float* x, float* out) {
  constexpr auto R = static_cast<std::size_t>(dot_rows);
  const PackedTensor<S>& t = tensor_of<S>(tensor);
  Codes<S> codes[R];
  float scales[R][static_cast<std::size_t>(block_cols / 4 + decode_slack)];
  const Index group = S::granularity::group_cols(t.cols()), first_group = first / group,
              groups = (first + n - 1) / group - first_group + 1;
  using F = typename S::format;
  using LookedUp = decoding::LookedUpLevels<F>;
  constexpr bool looked_up = LookedUp::fit;
  [[maybe_unused]]
  typename LookedUp::element elements[looked_up ? R : 1][static_cast<std::size_t>(looked_up ? block_cols + decode_slack : 1)];
  Index index[R];
  bool special = false;
  for (Index r = 0; r < dot_rows; ++r) {
    const Index here = std::min(row + r, t.rows() - 1);
    codes[r].read(t, here, first, n);
    if constexpr (looked_up)
      LookedUp::prepare(codes[r].data(), n, elements[r]);
    else
      special = Levels<F>::prepare(codes[r].data(), n) || special;
    index[r] = S::granularity::index(t.extents(), here, first_group);
    read_scales(t, index[r], groups, scales[r]);
  }
  const auto multiply = [&](const auto& levels) {
    simd::f32 sum[R];
    for (auto& s : sum) s = simd::zero();
    Index j = 0;
    for (Index g = 0; g < groups; ++g) {
      simd::f32 scale[R], zero[R];
#pragma GCC unroll 4
      for (Index r = 0; r < dot_rows; ++r) {
        scale[r] = simd::broadcast(scales[r][g] * levels.factor);
        if constexpr (S::has_zero_point) zero[r] = simd::broadcast(t.zero(index[r] + g));
      }
      const Index end = std::min(n, (first_group + g + 1) * group - first);
      const auto step = [&](simd::f32 a) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (Index r = 0; r < dot_rows; ++r) {
          simd::f32 level;
          if constexpr (looked_up)
            level = levels(elements[r] + j);
          else
            level = levels(codes[r].data() + j);
          if constexpr (S::has_zero_point) level = level - zero[r];
          sum[r] = simd::fma(a, scale[r] * level, sum[r]);
        }
      };
      for (; j + simd::width <= end; j += simd::width) step(simd::load(x + j));
      if (j < end) step(simd::load_partial(x + j, end - j)), j = end;
    }
#pragma GCC unroll 4
    for (Index r = 0; r < dot_rows; ++r) out[r] = simd::reduce_add(sum[r]);
  };
  if constexpr (looked_up)
    multiply(LookedUp());
  else
    with_levels<F>(special, multiply);
}

template <AnyScheme S>
inline void decode_bytes(const void* tensor, Index row, Index first, Index n, std::uint8_t* out) {
  using F = typename S::format;
  const PackedTensor<S>& t = tensor_of<S>(tensor);
  const auto map = [n](const std::uint8_t* from, std::uint8_t* to) {
    if constexpr (level_map<F>() == LevelMap::table) {
      const auto table = native_arch::template load_table<F::bits>(level_bytes_v<F>.bytes.data());
      for (Index i = 0; i < n; i += 64)
        native_arch::store_bytes(to + i, native_arch::template look_up<F::bits>(table, native_arch::load_bytes(from + i)));
    } else {
      for (Index i = 0; i < n; i += 64)
        for (Index j = 0; j < 64; ++j) to[i + j] = level_byte<F>(from[i + j]);  // constant length: vectorized at -O2 too
    }
  };
  if (first % S::layout::granule == 0) {
    unpack_codes(t, row, first, std::span(out, static_cast<std::size_t>(n)));
    if constexpr (level_map<F>() != LevelMap::identity) {
      for (Index i = n; i % 64 != 0; ++i) out[i] = 0;
      map(out, out);
    }
  } else {
    Codes<S> codes;
    codes.read(t, row, first, n);
    map(codes.data(), out);
  }
}

template <AnyScheme S>
inline void decode_affines(const void* tensor, Index row, Index first_group, Index n, float* scales, std::int32_t* offsets) {
  using F = typename S::format;
  const PackedTensor<S>& t = tensor_of<S>(tensor);
  const Index index = S::granularity::index(t.extents(), row, first_group);
  read_scales(t, index, n, scales);
  for (Index g = 0; g < n; ++g) {
    if constexpr (level_grid_v<F>.step != 1.0f) scales[g] *= level_grid_v<F>.step;
    offsets[g] = -level_grid_v<F>.lowest;
    if constexpr (S::has_zero_point) offsets[g] += static_cast<std::int32_t>(t.zero(index + g));
  }
}

}  // namespace detail

template <PackedScheme S>
inline constexpr RowOps row_ops_v = [] {
  RowOps ops{scheme_ops_v<S>};
  if constexpr (!ScalarScheme<S>) {  // multiplies through decoded panels
    ops.granule_rows = S::granule_rows;
    if constexpr (TrellisScheme<S>)
      ops.weights = &detail::decode_tiles<S>;
    else
      ops.weights = &detail::decode_granules<S>;
    if constexpr (IntegerTrellis<S>) {
      ops.integer_rows = &detail::trellis_integer_rows<S>;
      ops.lines = &detail::trellis_lines<S>, ops.affines = &detail::trellis_affines<S>, ops.max_byte = 255;
    }
  } else {
    ops.weights = &detail::decode_weights<S>;
    ops.dots = &detail::decode_dots<S>;
    if constexpr (has_integer_dot_v<typename S::format>) {
      ops.bytes = &detail::decode_bytes<S>;
      ops.affines = &detail::decode_affines<S>;
      ops.max_byte = level_grid_v<typename S::format>.span();
    }
    ops.row_bytes = &S::row_bytes;
  }
  return ops;
}();

/// A packed tensor as the loops see it: where it is, and what its scheme can do. The tensor must stay where it is.
class PackedRows {
 public:
  template <PackedScheme S>
  explicit PackedRows(const PackedTensor<S>& t) : PackedRows(row_ops_v<S>, &t, t.bytes()) {}
  PackedRows(const RowOps& of, const void* its_tensor, const PackedBytes& bytes)
      : ops(&of), tensor(its_tensor), extents(bytes.extents()), group(of.group_cols(extents.cols)) {
    if (of.row_bytes == nullptr) return;
    codes_ = bytes.codes().data();
    row_bytes_ = of.row_bytes(extents.cols);
    bytes_per_1024_ = of.row_bytes(1024);
  }

  const RowOps* ops;
  const void* tensor;
  Extents extents;
  Index group;  ///< columns that share a scale; the last group of a row may be shorter

  /// Whether ops->dots may be called.
  bool has_dots() const { return ops->dots != nullptr && (group >= extents.cols || group % simd::width == 0); }

  /// Asks for the packed codes of a stretch of some rows ahead of time. Rows past the end are left out.
  ANYBIT_INLINE void prefetch([[maybe_unused]] Index row, [[maybe_unused]] Index rows, [[maybe_unused]] Index first,
                              [[maybe_unused]] Index n) const {
#if defined(__GNUC__)
    if (codes_ == nullptr) return;
    const Index from = first * bytes_per_1024_ / 1024, to = (first + n) * bytes_per_1024_ / 1024;
    for (Index r = row; r < std::min(row + rows, extents.rows); ++r)
      for (Index at = from; at < to; at += 64) __builtin_prefetch(codes_ + r * row_bytes_ + at);
#endif
  }

 private:
  const std::byte* codes_ = nullptr;
  Index row_bytes_ = 0, bytes_per_1024_ = 0;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
