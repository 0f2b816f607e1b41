#pragma once
// Which weights go, by their scores: the smallest go first, and of equal ones the earlier. Methods differ in what is compared:
//
//   rows         each row apart: floor(cols * share) of it             Wanda
//   whole        the whole matrix at once                             magnitude; SparseGPT in blocks of columns
//   n of m       in every m consecutive columns of a row all but n    any of them (2:4)
//
// A last run of fewer than m columns keeps n, too.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <anybit/core/stable_sort.hpp>
#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// Prunes `count` of the entries in rows r0 .. r1 - 1, columns c0 .. c1 - 1.
inline void prune_smallest(Mask& mask, const Matrix& scores, Index r0, Index r1, Index c0, Index c1, Index count) {
  struct Entry {
    double score;
    Index row, col;
  };
  std::vector<Entry> entries;
  for (Index r = r0; r < r1; ++r)
    for (Index c = c0; c < c1; ++c) entries.push_back({scores(r, c), r, c});
  anybit::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.score < b.score; });
  for (Index i = 0; i < count; ++i) {
    const Entry& e = entries[static_cast<std::size_t>(i)];
    mask(e.row, e.col) = 1;
  }
}

inline Index share_of(Index n, double share) { return static_cast<Index>(static_cast<double>(n) * share); }

inline Mask prune_rows(const Matrix& scores, double share) {
  Mask mask(scores.rows, scores.cols);
  for (Index r = 0; r < scores.rows; ++r) prune_smallest(mask, scores, r, r + 1, 0, scores.cols, share_of(scores.cols, share));
  return mask;
}

inline Mask prune_whole(const Matrix& scores, double share) {
  Mask mask(scores.rows, scores.cols);
  prune_smallest(mask, scores, 0, scores.rows, 0, scores.cols, share_of(scores.rows * scores.cols, share));
  return mask;
}

/// Keeps `keep` of every `of` columns.
inline Mask prune_n_of_m(const Matrix& scores, Index keep, Index of) {
  Mask mask(scores.rows, scores.cols);
  for (Index r = 0; r < scores.rows; ++r)
    for (Index c = 0; c < scores.cols; c += of) {
      const Index end = std::min(c + of, scores.cols);
      prune_smallest(mask, scores, r, r + 1, c, end, std::max(end - c - keep, Index{0}));
    }
  return mask;
}

inline Matrix magnitudes(Matrix w) {
  for (double& v : w.values) v = std::abs(v);
  return w;
}

inline Matrix pruned(Matrix w, const Mask& mask) {
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c)
      if (mask(r, c)) w(r, c) = 0;
  return w;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
