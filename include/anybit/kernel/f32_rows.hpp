#pragma once
// y = x W^T with float activations: a few rows are dequantized into the first-level cache and multiplied with
// every token. Inputs run along the lanes, so neither x nor W is rearranged.

#include <anybit/core/macros_begin.hpp>

#include <anybit/core/view.hpp>
#include <anybit/kernel/row_decoder.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

inline constexpr Index f32_tile_rows = 4;
inline constexpr Index f32_tile_tokens = simd::width == 16 ? 6 : 3;  // accumulators, operands: all 32 or 16 registers
inline constexpr Index f32_panel_rows = 16;
inline constexpr Index f32_panel_stride = block_cols + decode_slack;

/// One value for each of 4 rows and `Tokens` tokens: sum over n columns, lane by lane, then over the lanes.
/// `rows` of the 4 are stored; `accumulate` adds to y.
template <Index Tokens>
inline void f32_tile(const float* panel, const float* x, Index x_stride, Index n, float* y, Index y_stride, Index rows,
                     bool accumulate) {
  constexpr Index R = f32_tile_rows;
  simd::f32 sum[static_cast<std::size_t>(Tokens)][static_cast<std::size_t>(R)];
  for (auto& s : sum)
    for (auto& v : s) v = simd::zero();
  const Index whole = n / simd::width * simd::width;
  simd::f32 a[static_cast<std::size_t>(Tokens)];
  const auto step = [&](Index k) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (Index r = 0; r < R; ++r) {
      const simd::f32 w = simd::load(panel + r * f32_panel_stride + k);
#pragma GCC unroll 6
      for (Index t = 0; t < Tokens; ++t) sum[t][r] = simd::fma(a[t], w, sum[t][r]);
    }
  };
  for (Index k = 0; k < whole; k += simd::width) {
#pragma GCC unroll 6
    for (Index t = 0; t < Tokens; ++t) a[t] = simd::load(x + t * x_stride + k);
    step(k);
  }
  if (whole < n) {
#pragma GCC unroll 6
    for (Index t = 0; t < Tokens; ++t) a[t] = simd::load_partial(x + t * x_stride + whole, n - whole);
    step(whole);
  }
#pragma GCC unroll 6
  for (Index t = 0; t < Tokens; ++t) {
    float out[static_cast<std::size_t>(R)];
#pragma GCC unroll 4
    for (Index r = 0; r < R; ++r) out[r] = simd::reduce_add(sum[t][r]);
    for (Index r = 0; r < rows; ++r) y[t * y_stride + r] = accumulate ? y[t * y_stride + r] + out[r] : out[r];
  }
}

/// One token, without a panel.
inline void f32_dots(const PackedRows& w, const float* x, float* y, Index begin, Index end) {
  const Index cols = w.extents.cols;
  for (Index row = begin; row < end;) {
    const Index rows = std::min(end - row, dot_rows);
    float sum[static_cast<std::size_t>(dot_rows)];
    for (Index first = 0; first < cols; first += block_cols) {
      w.prefetch(row + rows, rows, first, std::min(block_cols, cols - first));
      w.ops->dots(w.tensor, row, first, std::min(block_cols, cols - first), x + first, sum);
      for (Index r = 0; r < rows; ++r) y[row + r] = first > 0 ? y[row + r] + sum[r] : sum[r];
    }
    row += rows;
  }
}

}  // namespace detail

/// Rows begin .. end - 1 of the weights: y(token, row). Allocates nothing. A value does not depend on which rows and
/// tokens are computed along with it. NaN and infinity in x spread as in the float product.
inline void f32_rows(const PackedRows& w, ConstMatrix x, MutableMatrix y, Index begin, Index end) {
  using namespace detail;
  const Index cols = w.extents.cols, tokens = x.rows, granule_rows = w.ops->granule_rows;
  if (cols == 0) {
    for (Index t = 0; t < tokens; ++t) std::fill(y.data + t * y.stride + begin, y.data + t * y.stride + end, 0.0f);
    return;
  }
  if (tokens == 1 && w.has_dots()) return f32_dots(w, x.data, y.data, begin, end);
  alignas(64) float panel[static_cast<std::size_t>(f32_panel_rows * f32_panel_stride)];
  const Index panel_rows =
      tokens < 2 * f32_tile_tokens ? round_up(std::min(granule_rows, f32_panel_rows), f32_tile_rows) : f32_panel_rows;
  for (Index r0 = begin, rows = 0; r0 < end; r0 += rows) {
    // Up to the next multiple, so that granules are decoded once.
    rows = std::min(panel_rows - (granule_rows > 1 ? r0 % panel_rows : 0), end - r0);
    for (Index k0 = 0; k0 < cols; k0 += block_cols) {
      const Index n = std::min(block_cols, cols - k0), padded = round_up(n, simd::width);
      w.prefetch(r0 + rows, rows, k0, n);
      w.ops->weights(w.tensor, r0, rows, k0, n, panel, f32_panel_stride);
      for (Index r = 0; r < round_up(rows, f32_tile_rows); ++r) {
        float* out = panel + r * f32_panel_stride;
        std::fill(out + (r < rows ? n : 0), out + padded, 0.0f);
      }
      Index t = 0;
      const auto tile = [&]<Index Tokens>(std::integral_constant<Index, Tokens>) {
        for (Index r = 0; r < rows; r += f32_tile_rows)
          f32_tile<Tokens>(panel + r * f32_panel_stride, x.data + t * x.stride + k0, x.stride, n, y.data + t * y.stride + r0 + r,
                           y.stride, std::min(f32_tile_rows, rows - r), k0 > 0);
        t += Tokens;
      };
      while (tokens - t >= f32_tile_tokens) tile(std::integral_constant<Index, f32_tile_tokens>{});
      if constexpr (f32_tile_tokens > 3)
        while (tokens - t >= 3) tile(std::integral_constant<Index, 3>{});
      if (tokens - t == 2) tile(std::integral_constant<Index, 2>{});
      if (tokens - t == 1) tile(std::integral_constant<Index, 1>{});
    }
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
