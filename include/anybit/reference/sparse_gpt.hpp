#pragma once
// SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774, algorithm 1): GPTQ's feedback; pruned weights are rounded to zero.
//
//   score_ij = w_ij^2 / U_jj^2,   H^-1 = U^T U       (the error that OBS predicts for removing w_ij)
//   for each column j:   q = 0 if pruned, else w_j (or, jointly with quantization, round(w_j))
//                        e = (w_j - q) / U_jj,   w_k -= e U_jk  for all k >= j
//
// The mask is chosen on weights that are compensated so far: for a share once every `block` columns, among all rows together;
// for a pattern n of m at every m-th column, in each row.

#include <anybit/core/macros_begin.hpp>

#include <functional>

#include <anybit/reference/cholesky.hpp>
#include <anybit/reference/pruning_masks.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

struct SparseGptOptions {
  double share = 0.5;
  Index keep = 0, of = 0;  ///< a pattern, if of > 0: `keep` of every `of` columns stay
  Index block = 128;
  bool through_threshold = false;  ///< as its code: weights equal to the first that stays go too (one more per block)
};

struct SparseGptResult {
  Matrix weights;
  Mask mask;
};

/// `round(r, j, w)` is the value of a weight that stays.
template <class Round>
SparseGptResult sparse_gpt(Matrix w, const Matrix& u, const SparseGptOptions& o, Round round) {
  SparseGptResult out{Matrix(w.rows, w.cols), Mask(w.rows, w.cols)};
  for (Index j = 0; j < w.cols; ++j) {
    const Index run = o.of > 0 ? o.of : o.block, end = std::min(j + run, w.cols);
    if (j % run == 0) {
      Matrix scores(w.rows, w.cols);
      for (Index r = 0; r < w.rows; ++r)
        for (Index k = j; k < end; ++k) scores(r, k) = w(r, k) * w(r, k) / (u(k, k) * u(k, k));
      if (o.of > 0)
        for (Index r = 0; r < w.rows; ++r)
          prune_smallest(out.mask, scores, r, r + 1, j, end, std::max(end - j - o.keep, Index{0}));
      else if (o.through_threshold)
        prune_smallest(out.mask, scores, 0, w.rows, j, end,
                       std::min(share_of(w.rows * (end - j), o.share) + 1, w.rows * (end - j)));
      else  // counted over all columns so far, so that the shares of ragged blocks add up
        prune_smallest(out.mask, scores, 0, w.rows, j, end, share_of(w.rows * end, o.share) - share_of(w.rows * j, o.share));
    }
    for (Index r = 0; r < w.rows; ++r) {
      out.weights(r, j) = out.mask(r, j) ? 0 : round(r, j, w);
      const double e = (w(r, j) - out.weights(r, j)) / u(j, j);
      for (Index k = j; k < w.cols; ++k) w(r, k) -= e * u(j, k);
    }
  }
  return out;
}

inline SparseGptResult sparse_gpt(const Matrix& w, const Matrix& u, const SparseGptOptions& o) {
  return sparse_gpt(w, u, o, [](Index r, Index j, const Matrix& now) { return now(r, j); });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
