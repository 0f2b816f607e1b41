#pragma once
// GPTQ's loop over the columns, for a tile of rows at a time. Rows share nothing but the factor.

#include <algorithm>
#include <cstdint>
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

/// One line of these is one column of the weights, so that all loops run along the rows of a tile.
using Columns = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// What the sweep does with a tile of rows whatever the format: compiled once, not once a scheme.
class Tile {
 public:
  Tile(ConstMatrix rows, const Factor& factor)
      : factor_(factor), original_(as_eigen(rows).transpose()), error_(rows.cols, rows.rows), codes_(rows.cols, rows.rows) {}

  /// Brings columns i1 .. i2 - 1 up to date with the errors of all columns before i1. If `group_end` > i1, unrounded() is
  /// made for columns i1 .. group_end - 1 as well.
  void enter_block(Index i1, Index i2, Index group_end) {
    i1_ = i1;
    const Index n = factor_.size, reach = std::max(i2, group_end);
    const Eigen::Map<const Columns> feedback(factor_.feedback.data(), n, n);
    compensated_ = original_.middleRows(i1, reach - i1);
    if (i1 > 0) compensated_.noalias() += feedback.block(0, i1, i1, reach - i1).transpose() * error_.topRows(i1);
    if (group_end <= i1) return;
    // Until they are rounded, columns i1 and later follow each other too: their d_k solves d_k + sum_{j<k} d_j F_jk = 0.
    unrounded_ = original_.middleRows(i1, reach - i1) - compensated_;
    if (i1 > 0)
      feedback.block(i1, i1, reach - i1, reach - i1).transpose().triangularView<Eigen::UnitLower>().solveInPlace(unrounded_);
    unrounded_ = original_.middleRows(i1, reach - i1) - unrounded_;
  }
  /// Lets columns k + 1 .. i2 - 1 of the block make up for the error of column k.
  void spread(Index k, Index i2) {
    const float* share = factor_.row(k);
    const float* error = error_.row(k).data();
    const Index rows = error_.cols();
    for (Index j = k + 1; j < i2; ++j) {
      float* later = compensated_.row(j - i1_).data();
      for (Index r = 0; r < rows; ++r) later[r] += share[j] * error[r];
    }
  }

  const float* compensated(Index k) const { return compensated_.row(k - i1_).data(); }
  const float* original(Index k) const { return original_.row(k).data(); }
  float* error(Index k) { return error_.row(k).data(); }
  std::uint16_t* codes(Index k) { return codes_.row(k).data(); }
  /// Column k as it stood when the block was entered, compensated for all columns before the block and none in it.
  const float* unrounded(Index k) const { return unrounded_.row(k - i1_).data(); }

 private:
  const Factor& factor_;
  Index i1_ = 0;
  Columns original_, error_, compensated_, unrounded_;
  Eigen::Matrix<std::uint16_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> codes_;
};

/// Quantizes rows begin .. end - 1 (at most row_tile). `w` is in processed column order, as are the rows and columns of the
/// factor; `position[k]` is where the code of processed column k belongs. Static grids are read from q.affines (group =
/// position / group width); dynamic ones are written there, and then position is the identity.
template <AnyScheme S>
void sweep(ConstMatrix w, Index begin, Index end, const Factor& factor, std::span<const Index> position,
           const SweepOptions& options, QuantizedMatrix<S>& q, calibrate::StoreLoss& loss) {
  using F = typename S::format;
  const Index n = w.cols, rows = end - begin, group = S::granularity::group_cols(n);
  const auto group_of = [&](Index k) { return position[static_cast<std::size_t>(k)] / group; };
  Tile tile(w.row_range(begin, end), factor);
  std::vector<Affine> affine(static_cast<std::size_t>(rows));
  std::vector<float> values;

  // The grid of the group that starts at column c, on the weights as they stood when the block was entered. The published
  // loop does so too: compensation inside a block has not reached its big matrix then.
  const auto find_grids = [&](Index c) {
    const Index stop = std::min(c + group, n);
    values.resize(static_cast<std::size_t>(stop - c));
    for (Index r = 0; r < rows; ++r) {
      for (Index k = c; k < stop; ++k) values[static_cast<std::size_t>(k - c)] = tile.unrounded(k)[r];
      if (options.limits.rows > 0)
        for (float& v : values) v = calibrate::clipped(v, options.limits(begin + r, c / group));
      const Affine a = options.fit.fit<S>(values);
      if (options.fit.search == Search::none) loss.count<typename S::scale_store>(options.fit.plain<F>(values).scale, a.scale);
      q.affine(begin + r, c / group) = affine[static_cast<std::size_t>(r)] = a;
    }
  };

  for (Index i1 = 0; i1 < n; i1 += options.block) {
    const Index i2 = std::min(i1 + options.block, n);
    const bool starts_group = options.dynamic_groups && round_up(i1, group) < i2;
    tile.enter_block(i1, i2, starts_group ? std::min(round_up(i2, group), n) : i1);  // the last group may end behind the block
    for (Index k = i1; k < i2; ++k) {
      if (options.dynamic_groups) {
        if (k % group == 0) find_grids(k);
      } else if (k == 0 || group_of(k) != group_of(k - 1)) {
        for (Index r = 0; r < rows; ++r) affine[static_cast<std::size_t>(r)] = q.affine(begin + r, group_of(k));
      }
      const float *now = tile.compensated(k), *exact = tile.original(k);
      float* error = tile.error(k);
      std::uint16_t* codes = tile.codes(k);
      for (Index r = 0; r < rows; ++r) {
        const Affine a = affine[static_cast<std::size_t>(r)];
        codes[r] = quantize_value<F>(now[r], a);
        error[r] = exact[r] - dequantize_value<F>(codes[r], a);
      }
      tile.spread(k, i2);
    }
  }
  for (Index k = 0; k < n; ++k)
    for (Index r = 0; r < rows; ++r)
      q.row(begin + r)[static_cast<std::size_t>(position[static_cast<std::size_t>(k)])] =
          static_cast<typename S::code>(tile.codes(k)[r]);
}

}  // namespace anybit::gptq::inline ANYBIT_CODE
