#pragma once
// Layers and Hessians for the tests of algorithms.

#include <cmath>
#include <random>
#include <vector>

#include <anybit/calibrate/stats.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/reference/matrix.hpp>

namespace test_layers {

using namespace anybit;

inline Matrix random_matrix(Index rows, Index cols, unsigned seed, float spread = 1) {
  std::mt19937 gen(seed);
  std::normal_distribution<float> normal(0, spread);
  Matrix m(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = normal(gen);
  return m;
}

/// Activations whose channels are correlated, with a few large ones.
inline Matrix correlated(Index tokens, Index inputs, unsigned seed) {
  const Matrix source = random_matrix(tokens, inputs, seed),
               mix = random_matrix(inputs, inputs, seed + 1, 1 / std::sqrt(static_cast<float>(inputs)));
  Matrix x(tokens, inputs);
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 0; j < inputs; ++j) {
      float sum = 0;
      for (Index k = 0; k < inputs; ++k) sum += source(t, k) * mix(k, j) * (k % 7 == 0 ? 6.0f : 1.0f);
      x(t, j) = sum;
    }
  return x;
}

using Square = reference::Matrix;

inline Square hessian_of(const Stats& s) {
  Square h(s.inputs(), s.inputs());
  s.hessian(MatrixView<double>(h.values.data(), h.rows, h.cols));
  return h;
}

/// tr(D H D^T), by the definition.
inline double objective(ConstMatrix w, ConstMatrix q, const Square& h) {
  double total = 0;
  for (Index r = 0; r < w.rows; ++r)
    for (Index i = 0; i < h.rows; ++i)
      for (Index j = 0; j < h.rows; ++j)
        total += (double{w(r, i)} - double{q(r, i)}) * h(i, j) * (double{w(r, j)} - double{q(r, j)});
  return total;
}

/// ||(W - Q) X^T||^2 / ||W X^T||^2, naively.
inline double rel_err(const Matrix& w, const Matrix& q, const Matrix& x) {
  double off = 0, all = 0;
  for (Index r = 0; r < w.rows(); ++r)
    for (Index t = 0; t < x.rows(); ++t) {
      double y = 0, d = 0;
      for (Index j = 0; j < w.cols(); ++j) {
        y += double{w(r, j)} * double{x(t, j)};
        d += (double{w(r, j)} - double{q(r, j)}) * double{x(t, j)};
      }
      off += d * d;
      all += y * y;
    }
  return off / all;
}

}  // namespace test_layers
