#pragma once
// LDLQ: rounding with linear feedback (Chee et al. 2023, "QuIP", arXiv:2307.13304, section 3), and in blocks of g columns that
// are rounded jointly (Tseng et al. 2024, "QuIP#" arXiv:2402.04396, algorithm 1, and "QTIP" arXiv:2406.11235: trellis codes).
//
//   H = A D A^T,   A upper triangular with ones on its diagonal (blocks: identities), D (block) diagonal
//   w^_K = round(w_K + (w - w^)_{<K} A_{<K,K})                for the blocks K from the first to the last
//
// The error is tr((W - W^) H (W - W^)^T) = sum_K eta_K D_K eta_K^T, where eta_K is what `round` left of its argument. With
// H = R R^T, R upper triangular:  A_{:,K} = R_{:,K} R_KK^-1.  Blocks of one column give the codes of GPTQ without blocks: its
// U is R^-1. (EXL3 goes from the last column to the first: the same with H, W reversed.)

#include <anybit/core/macros_begin.hpp>

#include <algorithm>

#include <anybit/reference/cholesky.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// A for blocks of `block` columns.
inline Matrix feedback_factor(const Matrix& h, Index block) {
  const Matrix r = upper_factor(h);
  const Index n = h.rows;
  Matrix a(n, n);
  for (Index first = 0; first < n; first += block) {
    const Index last = std::min(first + block, n);
    // A_{:,K} R_KK = R_{:,K}: from the left column of the block to the right, as R_KK is upper triangular.
    for (Index i = 0; i < last; ++i)
      for (Index k = first; k < last; ++k) {
        double sum = r(i, k);
        for (Index m = first; m < k; ++m) sum -= a(i, m) * r(m, k);
        a(i, k) = sum / r(k, k);
      }
  }
  return a;
}

/// round(r, first, target) gives the values for row r, columns first .. first + target.size() - 1.
template <class Round>
Matrix ldlq(const Matrix& w, const Matrix& h, Index block, Round round) {
  const Matrix a = feedback_factor(h, block);
  Matrix q(w.rows, w.cols);
  for (Index first = 0; first < w.cols; first += block) {
    const Index last = std::min(first + block, w.cols);
    for (Index r = 0; r < w.rows; ++r) {
      Vector target = w.row(r, first, last);
      for (Index k = first; k < last; ++k)
        for (Index j = 0; j < first; ++j) target[k - first] += (w(r, j) - q(r, j)) * a(j, k);
      const Vector rounded = round(r, first, target);
      for (Index k = first; k < last; ++k) q(r, k) = rounded[k - first];
    }
  }
  return q;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
