#pragma once
// Normalization of each row x of n values, with a gain g and, for LayerNorm, a bias b.
//
//   RMSNorm    y_j = x_j / sqrt(mean(x^2) + epsilon) g_j                          (Zhang & Sennrich 2019, arXiv:1910.07467)
//   LayerNorm  y_j = (x_j - mean x) / sqrt(var x + epsilon) g_j + b_j             (Ba et al. 2016, arXiv:1607.06450)
//
// var divides by n. Gemma stores g - 1.

#include <cmath>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline Matrix rms_norm(const Matrix& x, const Vector& gain, double epsilon) {
  Matrix y(x.rows, x.cols);
  for (Index t = 0; t < x.rows; ++t) {
    double squares = 0;
    for (Index j = 0; j < x.cols; ++j) squares += x(t, j) * x(t, j);
    const double size = std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
    for (Index j = 0; j < x.cols; ++j) y(t, j) = x(t, j) / size * gain[j];
  }
  return y;
}

inline Matrix layer_norm(const Matrix& x, const Vector& gain, const Vector& bias, double epsilon) {
  Matrix y(x.rows, x.cols);
  const auto n = static_cast<double>(x.cols);
  for (Index t = 0; t < x.rows; ++t) {
    double mean = 0, squares = 0;
    for (Index j = 0; j < x.cols; ++j) mean += x(t, j) / n;
    for (Index j = 0; j < x.cols; ++j) squares += (x(t, j) - mean) * (x(t, j) - mean);
    const double size = std::sqrt(squares / n + epsilon);
    for (Index j = 0; j < x.cols; ++j) y(t, j) = (x(t, j) - mean) / size * gain[j] + bias[j];
  }
  return y;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
