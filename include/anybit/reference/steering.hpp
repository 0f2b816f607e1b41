#pragma once
// Reading and steering (Zou et al., arXiv:2310.01405; Li et al., arXiv:2306.03341), each equation once.
//
//   pairs        D_i = h_2i - h_2i+1;  v = first eigenvector of sum (D_i - mean D)(D_i - mean D)^T
//   sign         sgn(pairs whose labelled row projects higher - pairs whose labelled row projects lower), 1 of a tie
//   operators    h + c;   h + sgn(h . c) c;   h - (h . c) / (c . c) c
//   probe        minimize |w|^2 / 2 + C sum log(1 + exp(-y (w . x + b)))
//   displacement alpha sigma theta per head;   bias of the output projection W_O displacement

#include <cmath>

#include <anybit/reference/cholesky.hpp>
#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline double inner(const Vector& a, const Vector& b) {
  double sum = 0;
  for (Index j = 0; j < a.size(); ++j) sum += a[j] * b[j];
  return sum;
}

/// Differences of rows 2i and 2i+1.
inline Matrix pair_differences(const Matrix& h) {
  Matrix d(h.rows / 2, h.cols);
  for (Index i = 0; i < d.rows; ++i)
    for (Index j = 0; j < d.cols; ++j) d(i, j) = h(2 * i, j) - h(2 * i + 1, j);
  return d;
}
inline Vector mean_row(const Matrix& m) {
  Vector mean(m.cols);
  for (Index i = 0; i < m.rows; ++i)
    for (Index j = 0; j < m.cols; ++j) mean[j] += m(i, j) / static_cast<double>(m.rows);
  return mean;
}

/// The first principal component of the rows by the power method, of unit length; its sign is that of the start.
inline Vector principal_component(Matrix d, int steps = 20000) {
  const Vector mean = mean_row(d);
  for (Index i = 0; i < d.rows; ++i)
    for (Index j = 0; j < d.cols; ++j) d(i, j) -= mean[j];
  Vector v(d.cols);
  for (Index j = 0; j < v.size(); ++j) v[j] = 1 + 0.1 * static_cast<double>(j % 5);
  for (int step = 0; step < steps; ++step) {
    Vector next(d.cols);
    for (Index i = 0; i < d.rows; ++i) {
      const double along = inner(d.row(i), v);
      for (Index j = 0; j < d.cols; ++j) next[j] += along * d(i, j);
    }
    const double length = std::sqrt(inner(next, next));
    for (Index j = 0; j < v.size(); ++j) v[j] = next[j] / length;
  }
  return v;
}

/// Of a direction, by pairs of rows; label 1 is the row with the concept.
inline double direction_sign(const Matrix& h, const Row<int>& labels, const Vector& v, const Vector& center) {
  const auto project = [&](Index r) {
    double sum = 0;
    for (Index j = 0; j < v.size(); ++j) sum += (h(r, j) - center[j]) * v[j];
    return sum;
  };
  int balance = 0;
  for (Index i = 0; i + 1 < h.rows; i += 2) {
    const double with = project(labels[i] == 1 ? i : i + 1), without = project(labels[i] == 1 ? i + 1 : i);
    balance += with > without ? 1 : with < without ? -1 : 0;
  }
  return balance < 0 ? -1 : 1;
}

/// Weights and, last, the intercept of a logistic probe: plain Newton steps, (I' + C X^T S X) step = gradient.
inline Vector logistic_probe(const Matrix& x, const Row<int>& labels, double c, int steps = 50) {
  const Index width = x.cols + 1;
  const auto at = [&](Index r, Index j) { return j < x.cols ? x(r, j) : 1.0; };
  Vector w(width);
  for (int step = 0; step < steps; ++step) {
    Vector gradient(width);
    Matrix hessian(width, width);
    for (Index j = 0; j < x.cols; ++j) gradient[j] = w[j], hessian(j, j) = 1;
    for (Index r = 0; r < x.rows; ++r) {
      double z = 0;
      for (Index j = 0; j < width; ++j) z += w[j] * at(r, j);
      const double p = 1 / (1 + std::exp(-z));
      for (Index j = 0; j < width; ++j) {
        gradient[j] += c * (p - labels[r]) * at(r, j);
        for (Index k = 0; k < width; ++k) hessian(j, k) += c * p * (1 - p) * at(r, j) * at(r, k);
      }
    }
    const Matrix inverted = inverse(hessian);
    for (Index j = 0; j < width; ++j) w[j] -= inner(inverted.row(j), gradient);
  }
  return w;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
