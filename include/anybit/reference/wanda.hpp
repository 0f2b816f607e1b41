#pragma once
// Wanda (Sun et al. 2023, arXiv:2306.11695, equation 1): weights with a small effect go, the others stay as they are.
//
//   score_ij = |w_ij| ||X_j||_2        (X_j: input j over all calibration tokens)
//
// Compared within each row: prune_rows(wanda_scores(..), share), or prune_n_of_m. A common factor of the norms changes nothing.

#include <anybit/reference/pruning_masks.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline Vector column_norms(const Matrix& x) {
  Vector norms(x.cols);
  for (Index t = 0; t < x.rows; ++t)
    for (Index j = 0; j < x.cols; ++j) norms[j] += x(t, j) * x(t, j);
  for (double& v : norms) v = std::sqrt(v);
  return norms;
}

inline Matrix wanda_scores(const Matrix& w, const Vector& norms) {
  Matrix scores(w.rows, w.cols);
  for (Index r = 0; r < w.rows; ++r)
    for (Index j = 0; j < w.cols; ++j) scores(r, j) = std::abs(w(r, j)) * norms[j];
  return scores;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
