#pragma once
// GPTQ (arXiv:2210.17323) inside ggml's blocks: codes, scales and minima of Q4_0 to Q5_1, Q2_K to Q6_K, IQ4_NL and IQ4_XS that
// keep the error of a layer's outputs small, not that of its weights. Columns go from left to right; each is rounded after the
// error of those before it has been added to it (feedback/factor.hpp). A group's scale is fitted when its turn comes, to weights
// that have the feedback in them and by the cost of each column, among those that the scale of its block can express.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include <anybit/algorithm/feedback/factor.hpp>
#include <anybit/io/dtype.hpp>
#include <anybit/io/ggml_encode_search.hpp>
#include <anybit/quantize/ggml_grid.hpp>
#include <anybit/quantize/ggml_refine.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

namespace ggml_blocks {

/// Scale and minimum of least weighted squared error among first guesses, refined by least squares.
inline io::ggml::ScaleAndLow fit(const GgmlGrid& grid, std::span<const float> x, std::span<const float> weights) {
  const auto count = static_cast<int>(x.size());
  if (grid.minimum) {
    std::array<std::int8_t, 32> codes;
    return io::ggml::scale_and_minimum({count, grid.high, -0.9f, 18, false}, x.data(), weights.data(), codes.data());
  }
  const float top = io::ggml::largest(x.data(), count);
  if (std::fabs(top) < io::ggml::smallest_group) return {0, 0};
  float best = 0, scale = 0;
  const float ends[] = {grid.iq4 ? -127.0f : static_cast<float>(grid.low), grid.iq4 ? 113.0f : static_cast<float>(grid.high)};
  for (const float end : ends)
    for (int step = -9; step <= 9; ++step) {
      const GgmlRounder r{grid, top / (end * (1 + 0.0125f * static_cast<float>(step))), 0};
      float xq = 0, qq = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const int level = r.level(x[i]);
        const float q = grid.iq4 ? io::ggml::iq4_levels[level] : static_cast<float>(level);
        xq += weights[i] * x[i] * q, qq += weights[i] * q * q;
      }
      if (qq > 0 && xq * xq > best * qq) best = xq * xq / qq, scale = xq / qq;
    }
  return {scale, 0};
}

inline float as_f16(float x) { return f16_to_f32(f32_to_f16(x)); }

/// The scales of a block for its groups' fits.
inline void choose_block_scale(const GgmlGrid& grid, std::span<const io::ggml::ScaleAndLow> fits, GgmlBlock& block) {
  std::array<float, 16> scales{};
  float low = 0;
  for (std::size_t g = 0; g < fits.size(); ++g) scales[g] = fits[g].scale, low = std::max(low, fits[g].low);
  const float top = io::ggml::largest(scales.data(), static_cast<int>(fits.size()));
  if (grid.scale_high == 1) {
    block.d = as_f16(top);
    block.dmin = as_f16(fits[0].low);
    return;
  }
  block.d = as_f16(top / static_cast<float>(grid.scale_low < 0 ? grid.scale_low : grid.scale_high));
  block.dmin = grid.minimum ? as_f16(low / static_cast<float>(grid.minimum_high)) : 0;
}

/// Of the multiples beside the fit the pair of least error.
inline void choose_group_scale(const GgmlGrid& grid, std::span<const float> x, std::span<const float> weights, std::size_t group,
                               GgmlBlock& block) {
  if (grid.scale_high == 1) {
    block.scales[group] = 1, block.lows[group] = grid.minimum ? 1 : 0;
    return;
  }
  const io::ggml::ScaleAndLow wanted = fit(grid, x, weights);
  const int scale = io::ggml::nearest_code(wanted.scale * io::ggml::inverse(block.d), grid.scale_low, grid.scale_high);
  const int low = grid.minimum ? io::ggml::nearest_code(wanted.low * io::ggml::inverse(block.dmin), 0, grid.minimum_high) : 0;
  float least = std::numeric_limits<float>::max();
  for (int s = std::max(scale - 1, grid.scale_low); s <= std::min(scale + 1, grid.scale_high); ++s)
    for (int m = std::max(low - 1, 0); m <= (grid.minimum ? std::min(low + 1, grid.minimum_high) : 0); ++m) {
      const GgmlRounder r{grid, block.d * static_cast<float>(s), block.dmin * static_cast<float>(m)};
      if (const float e = r.error(x, weights); e < least) least = e, block.scales[group] = s, block.lows[group] = m;
    }
}

}  // namespace ggml_blocks

/// Whether ggml_gptq_rows() writes blocks of a type.
constexpr bool has_ggml_gptq(std::string_view type) {
  for (const ggml_blocks::GgmlGrid& g : ggml_blocks::ggml_grids)
    if (g.type == type) return true;
  return false;
}

/// The types that ggml_gptq_rows() writes rows of `cols` values in, in the order of ggml_grids.
inline std::vector<std::string_view> ggml_gptq_types(Index cols) {
  std::vector<std::string_view> types;
  for (const ggml_blocks::GgmlGrid& g : ggml_blocks::ggml_grids)
    if (cols > 0 && cols % g.values() == 0) types.push_back(g.type);
  return types;
}

/// Rows in the blocks of `type`, which has_ggml_gptq() and whose blocks divide the row; `factor` is that of the Hessian of the
/// layer's inputs, columns in their order. Writes rows.rows rows of blocks to `to`. Rows are independent of each other. A factor
/// whose feedback is empty (of an importance matrix, say) has only costs: each column is rounded for itself. `row_errors`, where
/// it is not empty, gets e (H + damping) e^T of each row, e = w - q. With `hessian`, H + damping itself, codes and scales then
/// move one at a time to where that error is least (ggml_refine.hpp).
inline void ggml_gptq_rows(std::string_view type, ConstMatrix rows, const gptq::Factor& factor, std::byte* to,
                           std::span<double> row_errors = {}, ConstMatrix hessian = {}) {
  const auto* const found = std::find_if(ggml_blocks::ggml_grids.begin(), ggml_blocks::ggml_grids.end(),
                                         [&](const ggml_blocks::GgmlGrid& g) { return g.type == type; });
  ANYBIT_CHECK(found != ggml_blocks::ggml_grids.end() && factor.size == rows.cols && rows.cols % found->values() == 0,
               "ggml_gptq_rows: the type, or rows that its blocks do not divide");
  ANYBIT_CHECK(row_errors.empty() || static_cast<Index>(row_errors.size()) == rows.rows, "ggml_gptq_rows: one error a row");
  std::fill(row_errors.begin(), row_errors.end(), 0.0);
  const ggml_blocks::GgmlGrid& grid = *found;
  const Index n = rows.cols, values = grid.values();
  const bool has_feedback = factor.feedback.size() > 0;
  const Index block_bytes = io::find_dtype(type)->block_bytes;
  std::vector<ggml_blocks::GgmlBlock> blocks(static_cast<std::size_t>(rows.rows * (n / values)));  // row by row
  Matrix errors(rows.rows, n);                                                                     // w - q
  Matrix feedback(rows.rows, values);  // of the columns before the block, then of those before the column
  std::vector<float> spread(static_cast<std::size_t>(values * values));  // F_jk of the block by j
  std::array<float, 256> x{};
  for (Index first = 0; first < n; first += values) {
    for (Index k = 0; has_feedback && k < values; ++k) {
      const float* const f = factor.column(first + k);
      for (Index j = 0; j < k; ++j) spread[static_cast<std::size_t>(j * values + k)] = f[first + j];
      for (Index r = 0; r < rows.rows; ++r) {
        const float* const d = errors.view().row(r).data();
        std::array<float, 16> sums{};  // lanes, so that compilers need not reorder
        Index j = 0;
        for (; j + 16 <= first; j += 16)
          for (Index lane = 0; lane < 16; ++lane) sums[static_cast<std::size_t>(lane)] += d[j + lane] * f[j + lane];
        feedback(r, k) = std::accumulate(sums.begin(), sums.end(), 0.0f);
      }
    }
    const std::span<const float> weights(factor.weight.data() + first, static_cast<std::size_t>(values));
    for (Index r = 0; r < rows.rows; ++r) {
      const float* const w = rows.row(r).data() + first;
      float* const back = feedback.view().row(r).data();
      float* const d = errors.view().row(r).data() + first;
      const auto of_group = [&](int g, auto span) {
        return span.subspan(static_cast<std::size_t>(g * grid.group), static_cast<std::size_t>(grid.group));
      };
      const auto targets = [&](int g) {
        for (int k = g * grid.group; k < (g + 1) * grid.group; ++k) x[static_cast<std::size_t>(k)] = w[k] + back[k];
        return of_group(g, std::span<const float>(x));
      };
      ggml_blocks::GgmlBlock& block = blocks[static_cast<std::size_t>(r * (n / values) + first / values)];
      std::array<io::ggml::ScaleAndLow, 16> fits;
      for (int g = 0; g < grid.groups; ++g)
        fits[static_cast<std::size_t>(g)] = ggml_blocks::fit(grid, targets(g), of_group(g, weights));
      ggml_blocks::choose_block_scale(grid, std::span(fits).first(static_cast<std::size_t>(grid.groups)), block);
      for (int g = 0; g < grid.groups; ++g) {
        ggml_blocks::choose_group_scale(grid, targets(g), of_group(g, weights), static_cast<std::size_t>(g), block);
        const auto at = static_cast<std::size_t>(g);
        const ggml_blocks::GgmlRounder rounder{grid, block.d * static_cast<float>(block.scales[at]),
                                               block.dmin * static_cast<float>(block.lows[at])};
        for (int k = g * grid.group; k < (g + 1) * grid.group; ++k) {
          const int level = rounder.level(w[k] + back[k]);
          block.levels[static_cast<std::size_t>(k)] = static_cast<std::int8_t>(level);
          d[k] = w[k] - rounder.value(level);
          if (!row_errors.empty()) {  // (d_k + sum of d_j F_jk)^2 R_kk^2
            const double e = static_cast<double>(d[k]) + static_cast<double>(back[k]);
            row_errors[static_cast<std::size_t>(r)] +=
                e * e * static_cast<double>(weights[static_cast<std::size_t>(k)]) * factor.unit;
          }
          const float* const f = spread.data() + k * values;
          for (Index j = k + 1; j < values; ++j) back[j] += d[k] * f[j];
        }
      }
    }
  }
  if (hessian.rows > 0) ggml_blocks::refine(grid, hessian, errors.view(), blocks, row_errors);
  for (std::size_t i = 0; i < blocks.size(); ++i) ggml_blocks::pack(grid, blocks[i], to + static_cast<Index>(i) * block_bytes);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
