#pragma once
// SparseGPT's choices in the loop over the columns that it shares with GPTQ (algorithm/feedback/sweep.hpp): a pruned weight
// becomes 0.

#include <anybit/core/macros_begin.hpp>

#include <functional>
#include <memory>
#include <vector>

#include <anybit/algorithm/feedback/sweep.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/prune/select.hpp>

namespace anybit::prune {
inline namespace ANYBIT_CODE {

/// Rounds a column of a tile: rows begin .. begin + rows - 1 of `column`, `now` the compensated weights, 0 where pruned.
/// `kept` gets what they become; a 0 must stay 0. Called for different tiles at once.
using RoundColumn = std::function<void(Index begin, Index rows, Index column, const float* now, float* kept)>;

/// Chooses the mask and hands every column to `round`, from left to right. A share of zeros is taken from all rows of a block
/// of columns together when the block is entered; a pattern from each run of columns when it is reached. Either way by the
/// smallest u_k^2 R_kk^2, the damage that pruning u_k, the weight as compensated so far, does after all later columns have made
/// up for it (w^2 / [chol(H^-1)]_kk^2 in the paper). A template so that only programs that prune compile its products.
template <class Real = float>
class SparseSweep {
 public:
  /// `block` becomes a multiple of the pattern's run, so that no run is cut.
  SparseSweep(const gptq::Prepared& prepared, const Sparsity& sparsity, Index block, ExecutorRef executor)
      : w_(prepared.weights.view()),
        factor_(prepared.factor),
        sparsity_(sparsity),
        block_(round_up(std::min(block, w_.cols), sparsity.is_pattern() ? sparsity.of : 1)),
        executor_(executor) {}

  Mask run(const RoundColumn& round) const {
    Mask mask(w_.rows, w_.cols);
    const Index tiles = ceil_div(w_.rows, gptq::row_tile);
    if (sparsity_.is_pattern()) {
      executor_.parallel_for(tiles, 1, [&](Index begin, Index end) {
        for (Index t = begin; t < end; ++t) {
          gptq::Band<Real> tile = make_tile(t);
          for (Index i1 = 0; i1 < w_.cols; i1 += block_) {
            tile.enter_block(i1, block_end(i1), i1);
            columns(tile, t, i1, mask, round);
          }
        }
      });
      return mask;
    }
    std::vector<std::unique_ptr<gptq::Band<Real>>> all(static_cast<std::size_t>(tiles));
    std::vector<double> scores, scratch;
    for (Index i1 = 0; i1 < w_.cols; i1 += block_) {
      const Index i2 = block_end(i1), width = i2 - i1;
      scores.resize(static_cast<std::size_t>(w_.rows * width));
      executor_.parallel_for(tiles, 1, [&](Index begin, Index end) {
        for (Index t = begin; t < end; ++t) {
          auto& tile = all[static_cast<std::size_t>(t)];
          if (!tile) tile = std::make_unique<gptq::Band<Real>>(make_tile(t));
          tile->enter_block(i1, i2, i2);
          for (Index k = i1; k < i2; ++k)
            for (Index r = 0; r < rows_of(t); ++r)
              scores[static_cast<std::size_t>((t * gptq::row_tile + r) * width + k - i1)] = score(*tile, r, k);
        }
      });
      // Zeros are counted up to the block's end, so that those of all blocks add up.
      const Index count = sparsity_.count(w_.rows * i2) - sparsity_.count(w_.rows * i1);
      for_smallest<double>(scores, count, sparsity_.through_threshold, scratch,
                           [&](Index i) { mask.prune(i / width, i1 + i % width); });
      executor_.parallel_for(tiles, 1, [&](Index begin, Index end) {
        for (Index t = begin; t < end; ++t) columns(*all[static_cast<std::size_t>(t)], t, i1, mask, round);
      });
    }
    return mask;
  }

 private:
  Index block_end(Index i1) const { return std::min(i1 + block_, w_.cols); }
  Index rows_of(Index t) const { return std::min(gptq::row_tile, w_.rows - t * gptq::row_tile); }
  gptq::Band<Real> make_tile(Index t) const {
    const Index first = t * gptq::row_tile;
    return {w_.row_range(first, first + rows_of(t)), factor_};
  }
  /// Finite, whatever became of the weight.
  double score(const gptq::Band<Real>& tile, Index r, Index k) const {
    const float u = tile.unrounded(0, k)[r];
    const double damage = is_finite(u) ? static_cast<double>(u) * factor_.pivots[static_cast<std::size_t>(k)] : 1e150;
    return std::min(damage * damage, 1e300);
  }

  /// Columns of the block that starts at i1, one after the other.
  void columns(gptq::Band<Real>& tile, Index t, Index i1, Mask& mask, const RoundColumn& round) const {
    const Index begin = t * gptq::row_tile, rows = rows_of(t), i2 = block_end(i1);
    float now[static_cast<std::size_t>(gptq::row_tile)];
    std::vector<double> scores, scratch;
    const auto choose = [&](Index, Index k, Index, Real* kept) {
      if (sparsity_.is_pattern() && k % sparsity_.of == 0) {
        const Index end = std::min<Index>(k + sparsity_.of, i2);
        tile.unround(k, end);
        scores.resize(static_cast<std::size_t>(end - k));
        for (Index r = 0; r < rows; ++r) {
          for (Index j = k; j < end; ++j) scores[static_cast<std::size_t>(j - k)] = score(tile, r, j);
          for_smallest<double>(scores, sparsity_.pruned_of_run(end - k), false, scratch,
                               [&](Index i) { mask.prune(begin + r, k + i); });
        }
      }
      for (Index r = 0; r < rows; ++r) now[r] = mask.pruned(begin + r, k) ? 0.0f : tile.compensated(0, k)[r];
      std::fill_n(kept + rows, gptq::row_tile - rows, Real{0});
      round(begin, rows, k, now, kept);
    };
    gptq::sweep_block(tile, i1, i2, i2 - i1, choose);
  }

  ConstMatrix w_;
  const gptq::Factor& factor_;
  Sparsity sparsity_;
  Index block_;
  ExecutorRef executor_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::prune

#include <anybit/core/macros_end.hpp>
