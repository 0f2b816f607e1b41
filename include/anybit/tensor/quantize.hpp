#pragma once
// Weights to codes, nearest, without statistics: the primitive under every algorithm that ends in plain rounding. The codes
// are those of quantize_value, bit for bit, on every instruction set.

#include <algorithm>
#include <span>
#include <type_traits>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/tensor/encoders.hpp>
#include <anybit/tensor/quantized_matrix.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::inline ANYBIT_CODE {

/// quantize_value<F> of every weight of a group.
template <Format F>
void quantize_values(std::span<const float> w, Affine a, std::span<code_t<F>> out) {
  ANYBIT_CHECK(w.size() == out.size(), "quantize_values: the numbers of weights and codes differ");
  const auto n = static_cast<Index>(w.size());
  const float* const from = w.data();
  code_t<F>* const to = out.data();
  Index i = 0;
  if (a.scale == 0) {
    std::fill(out.begin(), out.end(), static_cast<code_t<F>>(quantize_value<F>(0, a)));
    return;
  }
  constexpr bool few_codes = F::bits <= 4 && !has_zero_point_v<F>;
  bool done = false;
  if constexpr (UniformFormat<F> && F::bits <= 8) {
    using Rounding = encoders::UsualRounding<F>;
    static const bool usual = Rounding::is_encoder();
    if (usual) {
      done = true;
      const simd::f32 zero = simd::broadcast(a.zero);
      for (; i + simd::width <= n; i += simd::width)
        simd::store_u8(to + i, Rounding::codes(encoders::scaled<F>(from + i, a.scale), zero));
    }
  }
  if constexpr (few_codes) {
    static const encoders::EncoderSteps<F> steps;
    if (!done && steps.usable) {
      const auto place =
          [&]<Index Vectors>(std::integral_constant<Index, Vectors>) {  // several sums that do not wait for each other
            simd::f32 x[static_cast<std::size_t>(Vectors)], passed[static_cast<std::size_t>(Vectors)];
            for (Index v = 0; v < Vectors; ++v) {
              x[v] = simd::nan_to_zero(encoders::scaled<F>(from + i + v * simd::width, a.scale));
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

/// Every group fitted by F::fit, its scale as the store keeps it, every weight rounded to nearest. Weights must be finite.
template <AnyScheme S>
QuantizedMatrix<S> quantize_nearest(ConstMatrix w) {
  using F = typename S::format;
  using G = typename S::granularity;
  QuantizedMatrix<S> q(w.extents());
  const Index width = G::group_cols(w.cols), groups = G::groups_per_row(w.cols);
  const auto group_of = [&](Index r, Index g) {
    return w.row(r).subspan(static_cast<std::size_t>(g * width), static_cast<std::size_t>(std::min(width, w.cols - g * width)));
  };
  if constexpr (std::is_same_v<G, PerTensor>) {
    if (w.contiguous()) {
      if (!q.affines.empty()) q.affines[0] = F::fit(std::span(w.data, static_cast<std::size_t>(w.extents().size())));
    } else if (!q.affines.empty()) {
      const Matrix all(w);
      q.affines[0] = F::fit(std::span(all.data(), static_cast<std::size_t>(w.extents().size())));
    }
  } else {
    for (Index r = 0; r < w.rows; ++r)
      for (Index g = 0; g < groups; ++g) q.affine(r, g) = F::fit(group_of(r, g));
  }

  std::vector<float> scales(q.affines.size());
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = q.affines[i].scale;
  S::scale_store::round_trip(scales);
  for (std::size_t i = 0; i < scales.size(); ++i) q.affines[i].scale = scales[i];

  for (Index r = 0; r < w.rows; ++r)
    for (Index g = 0; g < groups; ++g) {
      const auto from = group_of(r, g);
      quantize_values<F>(from, q.affine(r, g), q.row(r).subspan(static_cast<std::size_t>(g * width), from.size()));
    }
  q.provenance = "nearest";
  return q;
}

}  // namespace anybit::inline ANYBIT_CODE
ANYBIT_VECTOR_CODE_END
