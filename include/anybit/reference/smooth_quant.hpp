#pragma once
// SmoothQuant (Xiao et al. 2022, arXiv:2211.10438, equation 4): difficulty moves from activations to weights.
//
//   s_j = max|X_j|^alpha / max|W_j|^(1 - alpha),     X' = X / s,   W' = W diag(s),   X' W'^T = X W^T
//
// max|X_j| over all calibration tokens, max|W_j| over the rows of all linears that read X. As in its code both max|W_j| and
// s_j are at least 1e-5. 1 / s is folded into the norm before (its gain, and its bias if it has one).

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline Vector column_abs_max(const Matrix& m) {
  Vector most(m.cols);
  for (Index r = 0; r < m.rows; ++r)
    for (Index c = 0; c < m.cols; ++c) most[c] = std::max(most[c], std::abs(m(r, c)));
  return most;
}

inline Vector smooth_quant(const Vector& x_abs_max, const std::vector<Matrix>& siblings, double alpha) {
  Vector s(x_abs_max.size());
  for (Index j = 0; j < s.size(); ++j) {
    double w = 1e-5;
    for (const Matrix& m : siblings)
      for (Index r = 0; r < m.rows; ++r) w = std::max(w, std::abs(m(r, j)));
    s[j] = std::max(std::pow(x_abs_max[j], alpha) / std::pow(w, 1 - alpha), 1e-5);
  }
  return s;
}

/// W diag(s): columns times s.
inline Matrix scaled_columns(Matrix w, const Vector& s) {
  for (Index r = 0; r < w.rows; ++r)
    for (Index j = 0; j < w.cols; ++j) w(r, j) *= s[j];
  return w;
}
/// X / s.
inline Matrix divided_columns(Matrix x, const Vector& s) {
  for (Index t = 0; t < x.rows; ++t)
    for (Index j = 0; j < x.cols; ++j) x(t, j) /= s[j];
  return x;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
