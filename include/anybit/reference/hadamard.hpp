#pragma once
// Hadamard matrices: H_n H_n^T = n I with entries +-1, so that H_n / sqrt(n) is a rotation that spreads a large value evenly.
//
//   Sylvester   n = 2^k:           H(i, j) = (-1)^popcount(i & j)
//   Paley I     n = p + 1, p prime, p = 3 mod 4:   H = I + S,   S = [[0, 1..1], [-1.., Q]],   Q(i, j) = chi(i - j)
//               with chi(a) = 1 for a square mod p, -1 for no square, 0 for 0
//   Kronecker   H_mn = H_m (x) H_n
//
// Source: Paley 1933; QuaRot (Ashkboos et al. 2024, arXiv:2404.00456) uses such factors for sizes that are no powers of two.

#include <bit>
#include <cmath>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline Matrix sylvester(Index n) {
  Matrix h(n, n);
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) h(i, j) = std::popcount(static_cast<std::size_t>(i & j)) % 2 ? -1 : 1;
  return h;
}

inline double quadratic_character(Index a, Index p) {
  a = (a % p + p) % p;
  if (a == 0) return 0;
  for (Index x = 1; x < p; ++x)
    if (x * x % p == a) return 1;
  return -1;
}

inline Matrix paley(Index p) {
  Matrix h(p + 1, p + 1);
  for (Index i = 0; i <= p; ++i)
    for (Index j = 0; j <= p; ++j) {
      const double s = i == 0 && j == 0 ? 0 : i == 0 ? 1 : j == 0 ? -1 : quadratic_character(i - j, p);
      h(i, j) = s + (i == j ? 1 : 0);
    }
  return h;
}

inline Matrix kronecker(const Matrix& a, const Matrix& b) {
  Matrix k(a.rows * b.rows, a.cols * b.cols);
  for (Index i = 0; i < k.rows; ++i)
    for (Index j = 0; j < k.cols; ++j) k(i, j) = a(i / b.rows, j / b.cols) * b(i % b.rows, j % b.cols);
  return k;
}

/// H / sqrt(n): orthogonal.
inline Matrix normalized(Matrix h) {
  for (double& v : h.values) v /= std::sqrt(static_cast<double>(h.rows));
  return h;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
