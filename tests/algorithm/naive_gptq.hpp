#pragma once
// GPTQ and GPTAQ as published, in double, one column after the other, with Cholesky, inverse and Cholesky: the truth that the
// library's form without an inverse is compared with.

#include <vector>

#include <anybit/tensor/quantize.hpp>

#include "algorithm/random_layers.hpp"

namespace test_layers {

/// U with H^-1 = U^T U, U upper triangular.
inline Square chol_of_inverse(Square h) {
  const std::size_t n = h.size();
  Square inverse(n, std::vector<double>(n));  // Gauss-Jordan
  for (std::size_t i = 0; i < n; ++i) inverse[i][i] = 1;
  for (std::size_t i = 0; i < n; ++i) {
    const double pivot = h[i][i];
    for (std::size_t j = 0; j < n; ++j) h[i][j] /= pivot, inverse[i][j] /= pivot;
    for (std::size_t k = 0; k < n; ++k) {
      if (k == i) continue;
      const double factor = h[k][i];
      for (std::size_t j = 0; j < n; ++j) h[k][j] -= factor * h[i][j], inverse[k][j] -= factor * inverse[i][j];
    }
  }
  Square u(n, std::vector<double>(n));  // Cholesky, row by row from the top
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = i; j < n; ++j) {
      double sum = inverse[i][j];
      for (std::size_t k = 0; k < i; ++k) sum -= u[k][i] * u[k][j];
      u[i][j] = i == j ? std::sqrt(sum) : sum / u[i][i];
    }
  return u;
}

inline Square damped(Square h, double damp) {
  const std::size_t n = h.size();
  double mean = 0;
  for (std::size_t i = 0; i < n; ++i) mean += h[i][i] / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i) h[i][i] += damp * mean;
  return h;
}

/// GPTAQ's P = alpha triu(D U^T, 1) U.
inline Square published_drift(const Square& d, const Square& u, double alpha) {
  const std::size_t n = u.size();
  Square m(n, std::vector<double>(n)), p = m;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = i + 1; j < n; ++j)
      for (std::size_t k = 0; k < n; ++k) m[i][j] += alpha * d[i][k] * u[j][k];
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t k = 0; k < n; ++k) p[i][j] += m[i][k] * u[k][j];
  return p;
}

/// The loop over the columns in `order`. `grid(r, i, row)` gives the affine for row r at processed column i, where `row` is what
/// the row has become by then, in processed order. P may be empty. The result is in original order.
template <Format F, class Grid>
Matrix published_loop(const Matrix& w, const Square& u, const std::vector<Index>& order, const Square& p, Grid grid) {
  const std::size_t n = u.size();
  Matrix q(w.rows(), w.cols());
  for (Index r = 0; r < w.rows(); ++r) {
    std::vector<double> row(n);
    for (std::size_t j = 0; j < n; ++j) row[j] = double{w(r, order[j])};
    for (std::size_t i = 0; i < n; ++i) {
      const Affine a = grid(r, i, row);
      const double v = row[i];
      const double rounded = double{dequantize_value<F>(quantize_value<F>(static_cast<float>(v), a), a)};
      q(r, order[i]) = static_cast<float>(rounded);
      const double e = (v - rounded) / u[i][i];
      for (std::size_t j = i; j < n; ++j) row[j] -= e * u[i][j] - (p.empty() ? 0 : v * p[i][j]);
    }
  }
  return q;
}

/// H or D with rows and columns in `order`.
inline Square reordered(const Square& m, const std::vector<Index>& order) {
  Square out = m;
  for (std::size_t i = 0; i < m.size(); ++i)
    for (std::size_t j = 0; j < m.size(); ++j)
      out[i][j] = m[static_cast<std::size_t>(order[i])][static_cast<std::size_t>(order[j])];
  return out;
}

}  // namespace test_layers
