#pragma once
// Triangular factors of a symmetric positive definite H (n x n), by their definitions.
//
//   cholesky(H)     L lower triangular,  H = L L^T:   l_ij = (h_ij - sum_{k<j} l_ik l_jk) / l_jj,   l_ii = sqrt(..)
//   inverse(H)      Gauss-Jordan without pivoting, which positive definite matrices do not need
//   inverse_factor  U upper triangular,  H^-1 = U^T U:  the factor that GPTQ's loop divides by
//   upper_factor    R upper triangular,  H = R R^T,  R = U^-1:  the factor of LDLQ

#include <cmath>
#include <utility>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline Matrix cholesky(const Matrix& h) {
  Matrix l(h.rows, h.cols);
  for (Index i = 0; i < h.rows; ++i)
    for (Index j = 0; j <= i; ++j) {
      double sum = h(i, j);
      for (Index k = 0; k < j; ++k) sum -= l(i, k) * l(j, k);
      l(i, j) = i == j ? std::sqrt(sum) : sum / l(j, j);
    }
  return l;
}

inline Matrix inverse(Matrix h) {
  const Index n = h.rows;
  Matrix inverse(n, n);
  for (Index i = 0; i < n; ++i) inverse(i, i) = 1;
  for (Index i = 0; i < n; ++i) {
    const double pivot = h(i, i);
    for (Index j = 0; j < n; ++j) h(i, j) /= pivot, inverse(i, j) /= pivot;
    for (Index k = 0; k < n; ++k) {
      const double factor = h(k, i);
      if (k == i || factor == 0) continue;
      for (Index j = 0; j < n; ++j) h(k, j) -= factor * h(i, j), inverse(k, j) -= factor * inverse(i, j);
    }
  }
  return inverse;
}

inline Matrix inverse_factor(const Matrix& h) { return transposed(cholesky(inverse(h))); }

/// Cholesky of H with rows and columns reversed, reversed back.
inline Matrix upper_factor(const Matrix& h) {
  Order backwards(h.rows);
  for (Index i = 0; i < h.rows; ++i) backwards[i] = h.rows - 1 - i;
  return reordered(cholesky(reordered(h, backwards)), backwards);
}

/// H + damp mean(diag H) I.
inline Matrix damped(Matrix h, double damp) {
  double mean = 0;
  for (Index i = 0; i < h.rows; ++i) mean += h(i, i) / static_cast<double>(h.rows);
  for (Index i = 0; i < h.rows; ++i) h(i, i) += damp * mean;
  return h;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
