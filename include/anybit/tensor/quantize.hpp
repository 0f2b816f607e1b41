#pragma once
// Weights to codes, nearest, without statistics: the primitive under every algorithm that ends in plain rounding. The codes
// are those of quantize_value, bit for bit, on every instruction set.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/tensor/level_encode.hpp>
#include <anybit/tensor/quantized_matrix.hpp>
#include <anybit/tensor/vector_encode.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::encoders {
inline namespace ANYBIT_CODE {

/// Whether quantize_by_quotients is fast by itself: comparing with few steps, one by one.
template <Format F>
bool few_steps() {
  if constexpr (F::bits <= 4 && !has_zero_point_v<F>) {
    const EncoderSteps<F>& steps = encoder_steps<F>();
#if defined(ANYBIT_COUNT_STEPS)
    return steps.usable && steps.of_weights && steps.count <= 3;
#else
    return steps.usable;
#endif
  }
  return false;
}

/// quantize_value<F> of n weights of one group, with quotients as the definition has them.
template <Format F>
void quantize_by_quotients(const float* from, Index n, Affine a, code_t<F>* to) {
  Index i = 0;
  if (a.scale == 0) {
    std::fill(to, to + n, static_cast<code_t<F>>(quantize_value<F>(0, a)));
    return;
  }
  constexpr bool few_codes = F::bits <= 4 && !has_zero_point_v<F>;
  bool done = false;
  if constexpr (UniformFormat<F> && F::bits <= 8) {
    using Rounding = UsualRounding<F>;
    static const bool usual = Rounding::is_encoder();
    if (usual) {
      done = true;
      const simd::f32 zero = simd::broadcast(a.zero);
      for (; i + simd::width <= n; i += simd::width)
        simd::store_u8(to + i, Rounding::codes(scaled<F>(simd::load(from + i), a.scale), zero));
    }
  }
  if constexpr (few_codes) {
    const EncoderSteps<F>& steps = encoder_steps<F>();
#if defined(ANYBIT_COUNT_STEPS)
    float of_weights[16];
    if (!done && few_steps<F>() && steps_of_weights<F>(steps, a.scale, of_weights))
      if (simd::count_steps(from, n, of_weights, steps.count, steps.code.data(), to)) return;
#endif
    if (!done && steps.usable) {
      const auto place =
          [&]<Index Vectors>(std::integral_constant<Index, Vectors>) {  // several sums that do not wait for each other
            simd::f32 x[static_cast<std::size_t>(Vectors)], passed[static_cast<std::size_t>(Vectors)];
            for (Index v = 0; v < Vectors; ++v) {
              x[v] = simd::nan_to_zero(scaled<F>(simd::load(from + i + v * simd::width), a.scale));
              passed[v] = simd::zero();
            }
            for (int s = 0; s < steps.count; ++s) {  // one more for each step at or below x
              const simd::f32 step = simd::broadcast(steps.from[static_cast<std::size_t>(s)]);
              for (Index v = 0; v < Vectors; ++v)
                passed[v] = passed[v] + simd::select_greater(step, x[v], simd::zero(), simd::broadcast(1.0f));
            }
            for (Index v = 0; v < Vectors; ++v) simd::store_u8(to + i + v * simd::width, simd::round_to_i32(passed[v]));
            i += Vectors * simd::width;
          };
      while (i + 4 * simd::width <= n) place(std::integral_constant<Index, 4>());
      while (i + simd::width <= n) place(std::integral_constant<Index, 1>());
      for (Index j = 0; j < i && !steps.in_order; ++j) to[j] = steps.code[to[j]];
    }
  }
  for (; i < n; ++i) to[i] = static_cast<code_t<F>>(quantize_value<F>(from[i], a));
}

/// Weights at once; they are done again together if one is in doubt.
inline constexpr Index most_at_once = 1024;
/// Groups that n weights reach into.
inline Index groups_of(const simd::Groups& groups, Index n) {
  return n <= groups.first ? 1 : 1 + ceil_div(n - groups.first, groups.size);
}
/// Whether all scales are above `low` and at most `high`.
inline bool all_within(const float* scales, Index count, float low, float high) {
  Index g = 0;
  for (; g + simd::width <= count; g += simd::width)
    if (!simd::all_within(simd::load(scales + g), low, high)) return false;
  for (; g < count; ++g)
    if (!(scales[g] > low && scales[g] <= high)) return false;
  return true;
}

#if defined(ANYBIT_COUNT_STEPS)
/// The same for whole groups of a format that asks for nothing but signs; false where quotients are needed.
template <Format F>
bool quantize_by_signs(const float* w, Index n, const simd::Groups& groups, std::uint8_t* out) {
  const EncoderSteps<F>& steps = encoder_steps<F>();
  // Above 1 a quotient may underflow to 0.
  return all_within(groups.scales, groups_of(groups, n), 0x1p-100f, 1.0f) &&
         simd::count_steps(w, n, steps.from.data(), steps.count, steps.code.data(), out);
}
#endif
#if defined(ANYBIT_ROUND_BYTES)
/// The same for whole groups where no quotients are needed; false where they are. At most most_at_once weights.
template <Format F>
bool quantize_by_products(const float* w, Index n, const simd::Groups& groups, std::uint8_t* out) {
  using Rounding = UsualRounding<F>;
  const Index count = groups_of(groups, n);
  if (!all_within(groups.scales, count, std::min(1.0f, Rounding::per_step) * 0x1p-100f, 0x1p100f)) return false;
  float factors[most_at_once / 16 + 2 + 16];
  for (Index g = 0; g < count; g += simd::width) {
    const simd::f32 scales = simd::load_partial(groups.scales + g, std::min(simd::width, count - g));
    simd::store(factors + g, simd::divide(simd::broadcast(1.0f), scales) * simd::broadcast(Rounding::per_step));
  }
  constexpr bool sign_magnitude = Rounding::order == CodeOrder::sign_magnitude;
  // With a zero point weights at the ends of the range often round to a code beyond it.
  if constexpr (Rounding::fraction == 16 || !has_zero_point_v<F>)
    if (simd::round_groups<Rounding::fraction, false, sign_magnitude>(w, n, groups, factors, Rounding::rule, out)) return true;
  return simd::round_groups<Rounding::fraction, true, sign_magnitude>(w, n, groups, factors, Rounding::rule, out);
}
#endif

/// How weights become codes of a format, with the instructions that this translation unit may use.
struct EncodePlan {
  std::string_view name;  ///< for people and tests
  /// Whole runs of groups at once; false where that does not serve: then, and where there is none, quantize_by_quotients does it.
  bool (*many)(const float*, Index, const simd::Groups&, std::uint8_t*) = nullptr;
};
/// The first that fits the format's own encoder, which is tried.
template <Format F>
const EncodePlan& encode_plan() {
  static const EncodePlan plan = []() -> EncodePlan {
    if constexpr (UniformFormat<F> && F::bits <= 8)
      if (UsualRounding<F>::is_encoder()) {
#if defined(ANYBIT_ROUND_BYTES)
        return {"rounds products with the reciprocal of the scale", &quantize_by_products<F>};
#else
        return {"rounds quotients"};
#endif
      }
    if constexpr (F::bits <= 4 && !has_zero_point_v<F>) {
#if defined(ANYBIT_COUNT_STEPS)
      if (encoder_steps<F>().only_sign) return {"takes signs", &quantize_by_signs<F>};
#endif
      if (few_steps<F>()) return {"compares with one border after the other"};
    }
    if constexpr (!UniformFormat<F> && F::bits <= 8 && !has_zero_point_v<F>) {
      if constexpr (decoding::float_shift_v<F>.fits)
        if (FloatRounding<F>::is_encoder()) return {"rounds mantissas", &quantize_by_floats<F>};
      if (level_steps<F>().usable) return {"searches among the borders", &quantize_by_search<F>};
    }
    if constexpr (F::bits <= 4 && !has_zero_point_v<F>)
      if (encoder_steps<F>().usable) return {"compares with one border after the other"};
    return {"calls encode() for each weight"};
  }();
  return plan;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::encoders

namespace anybit::calibrate {
inline namespace ANYBIT_CODE {

/// The error that names the first NaN or infinity among weights.
inline Status check_finite(ConstMatrix w) {
  const auto [row, column] = find_not_finite(w);
  if (row < 0) return Ok{};
  return Error{ErrorCode::not_finite, "weight at row " + std::to_string(row) + ", column " + std::to_string(column) + " is " +
                                          std::to_string(w(row, column)) +
                                          "; the model file is damaged or was saved in too narrow a type"};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::calibrate

namespace anybit {
inline namespace ANYBIT_CODE {

/// quantize_value<F> of n weights with the affines of their groups.
template <Format F>
void quantize_groups(const float* w, Index n, const simd::Groups& groups, code_t<F>* out) {
  const auto affine = [&](Index g) { return Affine{groups.scales[g], groups.zeros ? groups.zeros[g] : 0.0f}; };
  const auto many = encoders::encode_plan<F>().many;
  // Whole vectors of 16 weights have one scale, or a call has.
  const bool aligned = groups.first % 16 == 0 && groups.size % 16 == 0;
  Index g = 0, left = groups.first;
  for (Index i = 0; i < n;) {
    const Index most = many == nullptr ? left : aligned ? encoders::most_at_once : std::min(encoders::most_at_once, left);
    const Index count = std::min(most, n - i);
    bool done = false;
    if constexpr (std::is_same_v<code_t<F>, std::uint8_t>)
      if (many != nullptr)
        done = many(w + i, count, {groups.scales + g, groups.zeros ? groups.zeros + g : nullptr, left, groups.size}, out + i);
    if (done) {
      if (const Index past = count - left; past >= 0) {
        const Index whole = past / groups.size;
        g += 1 + whole;
        left = groups.size - (past - whole * groups.size);
      } else {
        left -= count;
      }
      i += count;
      continue;
    }
    for (const Index end = i + count; i < end;) {
      const Index some = std::min(left, end - i);
      encoders::quantize_by_quotients<F>(w + i, some, affine(g), out + i);
      i += some;
      left -= some;
      if (left == 0) ++g, left = groups.size;
    }
  }
}

/// quantize_value<F> of every weight of a group.
template <Format F>
void quantize_values(std::span<const float> w, Affine a, std::span<code_t<F>> out) {
  ANYBIT_CHECK(w.size() == out.size(), "quantize_values: the numbers of weights and codes differ");
  const auto n = static_cast<Index>(w.size());
  quantize_groups<F>(w.data(), n, {&a.scale, &a.zero, n, n}, out.data());
}

/// What the store makes of scales: Store::round_trip, in vectors where that is known to be the same.
template <ScaleStore Store>
void round_trip_scales(std::span<float> scales) {
  if constexpr (std::is_same_v<Store, ScaleF16>) {
    const auto n = static_cast<Index>(scales.size());
    for (Index i = 0; i < n; i += simd::width) {
      float* const p = scales.data() + i;
      const Index count = std::min(simd::width, n - i);
      std::uint16_t patterns[static_cast<std::size_t>(simd::width)];
      simd::store_f16(patterns, simd::min(simd::load_partial(p, count), simd::broadcast(65504.0f)));
      simd::store_partial(p, simd::load_f16(patterns), count);
    }
  } else {
    Store::round_trip(scales);
  }
}

/// The affines of the groups of one row, before the store.
template <AnyScheme S>
void fit_row(std::span<const float> row, float* scales, float* zeros) {
  const auto cols = static_cast<Index>(row.size()), width = S::granularity::group_cols(cols);
  for (Index g = 0; g < S::granularity::groups_per_row(cols); ++g) {
    const Affine a = S::format::fit(
        row.subspan(static_cast<std::size_t>(g * width), static_cast<std::size_t>(std::min(width, cols - g * width))));
    scales[g] = a.scale;
    if constexpr (S::has_zero_point) zeros[g] = a.zero;
  }
}

/// Plain rounding of a whole matrix, unless a weight is NaN or infinite: an error, and then rows may have been taken. take(r,
/// scales, zeros) gets the affines of row r, as stored, in order of rows: `scales` are those of all groups in granularity::index
/// order, `zeros` too (empty for formats without).
template <AnyScheme S, class Take>
Status round_rows(ConstMatrix w, std::span<float> scales, std::span<float> zeros, Take take) {
  using G = typename S::granularity;
  const auto at = [](std::span<float> v, Index i) { return v.empty() ? nullptr : v.data() + i; };
  constexpr bool by_rows = !S::scale_store::joint && !std::is_same_v<G, PerTensor>;
  const Index groups = G::groups_per_row(w.cols);
  if constexpr (std::is_same_v<G, PerTensor>) {
    for (Index r = 0; r < w.rows; ++r)
      if (!all_finite(w.row(r))) return calibrate::check_finite(w);
    const Matrix copy = w.contiguous() ? Matrix() : Matrix(w);
    if (!scales.empty())
      fit_row<S>({w.contiguous() ? w.data : copy.data(), static_cast<std::size_t>(w.extents().size())}, scales.data(),
                 at(zeros, 0));
  } else if constexpr (!by_rows) {
    for (Index r = 0; r < w.rows; ++r) {
      if (!all_finite(w.row(r))) return calibrate::check_finite(w);
      fit_row<S>(w.row(r), scales.data() + G::index(w.extents(), r, 0), at(zeros, G::index(w.extents(), r, 0)));
    }
  }
  if constexpr (!by_rows) round_trip_scales<typename S::scale_store>(scales);
  if (groups == 0) return Ok{};
  // Rows are fitted a few at a time, as many as stay in the first-level cache until they are rounded: the end of one row's fits
  // is then not waited for.
  const Index at_once = by_rows ? std::max<Index>(1, 4096 / w.cols) : w.rows;
  for (Index first = 0; first < w.rows; first += at_once) {
    const Index end = std::min(first + at_once, w.rows);
    if constexpr (by_rows) {
      const Index from = G::index(w.extents(), first, 0);
      for (Index r = first; r < end; ++r) {
        if (!all_finite(w.row(r))) return calibrate::check_finite(w);
        fit_row<S>(w.row(r), scales.data() + from + (r - first) * groups, at(zeros, from + (r - first) * groups));
      }
      round_trip_scales<typename S::scale_store>(
          scales.subspan(static_cast<std::size_t>(from), static_cast<std::size_t>((end - first) * groups)));
    }
    for (Index r = first; r < end; ++r) {
      const Index index = G::index(w.extents(), r, 0);
      take(r, simd::Groups{scales.data() + index, at(zeros, index), G::group_cols(w.cols), G::group_cols(w.cols)});
    }
  }
  return Ok{};
}

/// Every group fitted by F::fit, its scale as the store keeps it, every weight rounded to nearest: the matrix of
/// Nearest<S>{}.quantize(w), and its error for a NaN or an infinity among the weights. What the scheme has no grid for is told by
/// the report there.
template <AnyScheme S>
Result<QuantizedMatrix<S>> quantize_nearest(ConstMatrix w) {
  QuantizedMatrix<S> q(w.extents());
  std::vector<float> scales(q.affines.size()), zeros(S::has_zero_point ? scales.size() : 0);
  ANYBIT_TRY_STATUS(round_rows<S>(w, scales, zeros, [&](Index r, const simd::Groups& groups) {
    quantize_groups<typename S::format>(w.row(r).data(), w.cols, groups, q.row(r).data());
  }));
  for (std::size_t i = 0; i < scales.size(); ++i) q.affines[i] = {scales[i], S::has_zero_point ? zeros[i] : 0.0f};
  q.provenance = "nearest";
  return q;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
