#pragma once
// The weights with the smallest scores |w_ij| * channel_j, among those that compete.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <anybit/core/stable_sort.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/prune/mask.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Which weights compete for a share of zeros (N:M always compares the columns of one run).
enum class Compare {
  row,        ///< those of a row: every output loses the same share (Wanda)
  matrix,     ///< all of them (published magnitude pruning)
  row_share,  ///< every row loses the same share of the sum of its scores, such that the matrix loses `share` of its weights
};

/// "50%", and what is compared where that is not the method's default.
inline std::string describe(const Sparsity& s, Compare compare, Compare usual) {
  if (s.is_pattern() || compare == usual) return s.describe();
  return s.describe() + (compare == Compare::row      ? " of each row"
                         : compare == Compare::matrix ? " of the matrix"
                                                      : " by row shares");
}

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit::prune {
inline namespace ANYBIT_CODE {

/// prune(i) for the `count` smallest of the scores, the first of equal ones first; with `through`, for all up to and
/// including the score that comes next. Scores are no NaN.
template <class Real, class Prune>
void for_smallest(std::span<const Real> scores, Index count, bool through, std::vector<Real>& scratch, Prune prune) {
  const auto n = static_cast<Index>(scores.size());
  if (n == 0 || (count <= 0 && !through)) return;
  if (count >= n) {
    for (Index i = 0; i < n; ++i) prune(i);
    return;
  }
  scratch.assign(scores.begin(), scores.end());
  const auto nth = scratch.begin() + count - (through ? 0 : 1);
  std::nth_element(scratch.begin(), nth, scratch.end());
  const Real threshold = *nth;
  Index ties = n;
  if (!through)
    ties = count - static_cast<Index>(std::count_if(scores.begin(), scores.end(), [=](Real s) { return s < threshold; }));
  for (Index i = 0; i < n; ++i)
    if (scores[static_cast<std::size_t>(i)] < threshold || (scores[static_cast<std::size_t>(i)] == threshold && ties-- > 0))
      prune(i);
}

/// prune(c) for the pruned columns of a row of scores under the pattern N:M.
template <class Real, class Prune>
void for_pattern(std::span<const Real> scores, const Sparsity& s, std::vector<Real>& scratch, Prune prune) {
  const auto n = static_cast<Index>(scores.size());
  for (Index c = 0; c < n; c += s.of) {
    const Index run = std::min<Index>(s.of, n - c);
    for_smallest<Real>(scores.subspan(static_cast<std::size_t>(c), static_cast<std::size_t>(run)), s.pruned_of_run(run), false,
                       scratch, [&](Index i) { prune(c + i); });
  }
}

/// Replaces scores by the share of their sum that they and all smaller ones make up.
inline void to_running_shares(std::span<float> scores, std::vector<Index>& order) {
  order.resize(scores.size());
  std::iota(order.begin(), order.end(), Index{0});
  const auto at = [&](Index i) -> float& { return scores[static_cast<std::size_t>(i)]; };
  anybit::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return at(a) < at(b); });
  double total = 0, sum = 0;
  for (const float s : scores) total += static_cast<double>(s);
  for (const Index i : order) {
    sum += static_cast<double>(at(i));
    at(i) = total > 0 ? static_cast<float>(sum / total) : 0.0f;
  }
}

/// The mask of scores |w_ij| * channel_j; an empty channel means 1. Both are finite.
inline Mask select_smallest(ConstMatrix w, std::span<const float> channel, const Sparsity& s, Compare compare,
                            ExecutorRef executor = {}) {
  Mask mask(w.rows, w.cols);
  float largest = 0;  // of the channels, so that no score overflows
  for (const float c : channel) largest = std::max(largest, c);
  const auto score_row = [&](Index r, float* out) {
    for (Index c = 0; c < w.cols; ++c) {
      const float magnitude = std::fabs(w(r, c));
      out[c] = largest > 0 ? magnitude * (channel[static_cast<std::size_t>(c)] / largest) : channel.empty() ? magnitude : 0.0f;
    }
  };
  const auto cols = static_cast<std::size_t>(w.cols);
  if (s.is_pattern() || compare == Compare::row) {
    parallel_tiles(executor, w.rows, 16, [&](Index begin, Index end) {
      std::vector<float> scores(cols), scratch;
      for (Index r = begin; r < end; ++r) {
        score_row(r, scores.data());
        const auto prune = [&](Index c) { mask.prune(r, c); };
        if (s.is_pattern())
          for_pattern<float>(scores, s, scratch, prune);
        else
          for_smallest<float>(scores, s.count(w.cols), s.through_threshold, scratch, prune);
      }
    });
    return mask;
  }
  std::vector<float> scores(static_cast<std::size_t>(w.extents().size())), scratch;
  parallel_tiles(executor, w.rows, 16, [&](Index begin, Index end) {
    std::vector<Index> order;
    for (Index r = begin; r < end; ++r) {
      float* const row = scores.data() + r * w.cols;
      score_row(r, row);
      if (compare == Compare::row_share) to_running_shares({row, cols}, order);
    }
  });
  for_smallest<float>(scores, s.count(w.extents().size()), s.through_threshold, scratch,
                      [&](Index i) { mask.prune(i / w.cols, i % w.cols); });
  return mask;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::prune

#include <anybit/core/macros_end.hpp>
