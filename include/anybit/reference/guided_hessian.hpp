#pragma once
// GuidedQuant (Kim et al. 2025, arXiv:2505.07004, equation 7): Hessians of a linear layer's inputs x, weighted per token by the
// mean squared gradient g of the end loss by the outputs of a group J_k of rows. With n tokens:
//
//   H_k = 2/n sum_t s(k, t) x_t x_t^T,   s(k, t) = 1/|J_k| sum_{i in J_k} g_ti^2
//
// J_k are the rows k m / groups .. (k + 1) m / groups - 1 of m, rounded down. With one row per group the diagonal of H_k is, but
// for the factor 2, the diagonal of the empirical Fisher matrix of that row's weights, token by token.

#include <anybit/core/macros_begin.hpp>

#include <vector>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// x (tokens x inputs), gradients (tokens x outputs); one matrix (inputs x inputs) per group.
inline std::vector<Matrix> guided_hessians(const Matrix& x, const Matrix& gradients, Index groups) {
  const Index n = x.rows, m = gradients.cols;
  std::vector<Matrix> out;
  for (Index k = 0; k < groups; ++k) {
    const Index first = k * m / groups, last = (k + 1) * m / groups;
    Matrix h(x.cols, x.cols);
    for (Index t = 0; t < n; ++t) {
      double s = 0;
      for (Index i = first; i < last; ++i) s += gradients(t, i) * gradients(t, i) / static_cast<double>(last - first);
      for (Index a = 0; a < x.cols; ++a)
        for (Index b = 0; b < x.cols; ++b) h(a, b) += 2.0 / static_cast<double>(n) * s * x(t, a) * x(t, b);
    }
    out.push_back(h);
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
