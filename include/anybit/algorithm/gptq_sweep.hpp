#pragma once
// GPTQ's loop over the columns, for a tile of rows at a time. Rows share nothing but the factor.

#include <algorithm>
#include <vector>

#include <anybit/algorithm/gptq_factor.hpp>
#include <anybit/calibrate/group_grids.hpp>
#include <anybit/core/eigen_view.hpp>

namespace anybit::gptq::inline ANYBIT_CODE {

struct SweepOptions {
  Index block = 128;           ///< columns between two updates of everything to their right
  bool dynamic_groups = true;  ///< grids are found when the sweep reaches the group, on weights that have been compensated so far
  GridFit fit{};
  ConstMatrix limits{};  ///< for dynamic groups in natural order; see QuantizeOptions::clip_limits
};

/// Rows of one task. It fixes how products are cut, so results do not depend on the number of threads.
inline constexpr Index row_tile = 64;

/// Quantizes rows begin .. end - 1 (at most row_tile). `w` is in processed column order, as are the rows and columns of the
/// factor; `position[k]` is where the code of processed column k belongs. Static grids are read from q.affines (group =
/// position / group width); dynamic ones are written there, and then position is the identity.
template <AnyScheme S>
void sweep(ConstMatrix w, Index begin, Index end, const Factor& factor, std::span<const Index> position,
           const SweepOptions& options, QuantizedMatrix<S>& q, calibrate::StoreLoss& loss) {
  using F = typename S::format;
  using G = typename S::granularity;
  // One line of these is one column of the weights, so that all loops run along the rows of the tile.
  using Columns = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Index n = w.cols, rows = end - begin, group = G::group_cols(n);
  const Columns original = as_eigen(w.row_range(begin, end)).transpose();
  const Eigen::Map<const Columns> feedback(factor.feedback.data(), n, n);
  Columns error(n, rows), compensated, at_block_start, codes(n, rows);
  std::vector<Affine> affine(static_cast<std::size_t>(rows));
  std::vector<float> values;

  // The grid of the group that starts at column c, on the weights as they stood when the block at i1 was entered. The
  // published loop does so too: compensation inside a block has not reached its big matrix then.
  const auto find_grids = [&](Index c, Index i1) {
    const Index stop = std::min(c + group, n);
    values.resize(static_cast<std::size_t>(stop - c));
    for (Index r = 0; r < rows; ++r) {
      for (Index k = c; k < stop; ++k) values[static_cast<std::size_t>(k - c)] = at_block_start(k - i1, r);
      if (options.limits.rows > 0)
        for (float& v : values) v = calibrate::clipped(v, options.limits(begin + r, c / group));
      const Affine a = options.fit.fit<S>(values);
      if (options.fit.search == Search::none) loss.count<typename S::scale_store>(options.fit.plain<F>(values).scale, a.scale);
      q.affine(begin + r, c / group) = affine[static_cast<std::size_t>(r)] = a;
    }
  };

  for (Index i1 = 0; i1 < n; i1 += options.block) {
    const Index i2 = std::min(i1 + options.block, n), width = i2 - i1;
    const bool starts_group = options.dynamic_groups && round_up(i1, group) < i2;
    const Index reach = starts_group ? std::min(round_up(i2, group), n) : i2;  // the last group may end behind the block
    compensated = original.middleRows(i1, reach - i1);
    if (i1 > 0) compensated.noalias() += feedback.block(0, i1, i1, reach - i1).transpose() * error.topRows(i1);
    if (starts_group) {
      // Until they are rounded, columns i1 and later follow each other too: their d_k solves d_k + sum_{j<k} d_j F_jk = 0.
      at_block_start = original.middleRows(i1, reach - i1) - compensated;
      if (i1 > 0)
        feedback.block(i1, i1, reach - i1, reach - i1)
            .transpose()
            .template triangularView<Eigen::UnitLower>()
            .solveInPlace(at_block_start);
      at_block_start = original.middleRows(i1, reach - i1) - at_block_start;
    }
    compensated.conservativeResize(width, rows);
    for (Index k = i1; k < i2; ++k) {
      if (options.dynamic_groups) {
        if (k % group == 0) find_grids(k, i1);
      } else if (k == 0 || position[static_cast<std::size_t>(k)] / group != position[static_cast<std::size_t>(k - 1)] / group) {
        for (Index r = 0; r < rows; ++r)
          affine[static_cast<std::size_t>(r)] = q.affine(begin + r, position[static_cast<std::size_t>(k)] / group);
      }
      const float* now = compensated.row(k - i1).data();
      const float* exact = original.row(k).data();
      float* mine = error.row(k).data();
      float* code = codes.row(k).data();
      for (Index r = 0; r < rows; ++r) {
        const Affine a = affine[static_cast<std::size_t>(r)];
        const Code c = quantize_value<F>(now[r], a);
        code[r] = static_cast<float>(c);
        mine[r] = exact[r] - dequantize_value<F>(c, a);
      }
      const float* spread = factor.row(k);
      for (Index j = k + 1; j < i2; ++j) {
        float* later = compensated.row(j - i1).data();
        const float share = spread[j];
        for (Index r = 0; r < rows; ++r) later[r] += share * mine[r];
      }
    }
  }
  for (Index r = 0; r < rows; ++r) {
    const auto out = q.row(begin + r);
    for (Index k = 0; k < n; ++k)
      out[static_cast<std::size_t>(position[static_cast<std::size_t>(k)])] = static_cast<typename S::code>(codes(k, r));
  }
}

}  // namespace anybit::gptq::inline ANYBIT_CODE
