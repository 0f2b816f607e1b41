#pragma once
// GPTAQ (Li et al. 2025, arXiv:2504.02692): GPTQ that also aims at the float model's inputs. x are the inputs of the quantized
// model so far, x~ those of the float model.
//
//   D = 2/n sum (x~ - x) x^T,      H^-1 = U^T U as in gptq.hpp
//   P = alpha triu(D U^T, 1) U     (triu(.., 1): above the diagonal)
//   for each column i:   q = round(w_i),   e = (w_i - q) / U_ii,   w_j -= e U_ij - w_i P_ij  for all j >= i
//
// with w_i as it was before its own update. alpha = 1 is the paper's; GPTQModel takes .25.

#include <anybit/reference/cholesky.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline Matrix gptaq_drift(const Matrix& d, const Matrix& u, double alpha) {
  const Index n = u.rows;
  Matrix above(n, n), p(n, n);
  for (Index i = 0; i < n; ++i)
    for (Index j = i + 1; j < n; ++j)
      for (Index k = 0; k < n; ++k) above(i, j) += alpha * d(i, k) * u(j, k);
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j)
      for (Index k = 0; k < n; ++k) p(i, j) += above(i, k) * u(k, j);
  return p;
}

/// round(r, i, w) gives the value for row r at column i; w is what the weights have become.
template <class Round>
Matrix gptaq(Matrix w, const Matrix& u, const Matrix& p, Round round) {
  Matrix q(w.rows, w.cols);
  for (Index i = 0; i < w.cols; ++i)
    for (Index r = 0; r < w.rows; ++r) {
      const double v = w(r, i);
      q(r, i) = round(r, i, w);
      const double e = (v - q(r, i)) / u(i, i);
      for (Index j = i; j < w.cols; ++j) w(r, j) -= e * u(i, j) - v * p(i, j);
    }
  return q;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
