#pragma once
// Grids found by search instead of from the extremes. h_i >= 0 weighs the error of weight i (all 1 without statistics).
//
// Shrink search: both ends of the range times p = 1 - i/100, i = 0 .. 79; the first p with the least
//   sum_i h_i |w^_i - w_i|^2.4
// Source: GPTQ's code, `mse` (maxshrink .8, grid 100, norm 2.4).
//
// Least squares: the codes q fixed, the best line through them solves
//   min over s, z of  sum_i h_i (s (q_i - z) - w_i)^2
//   s = cov(q, w) / var(q),   z = mean(q) - mean(w) / s      (moments weighted by h)
// and with z fixed   s = sum h (q - z) w / sum h (q - z)^2.   Rounding and fitting take turns until neither helps.

#include <limits>

#include <anybit/reference/nearest.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline double grid_error(const Vector& w, const UniformGrid& g, double norm, const Vector& h = {}) {
  double sum = 0;
  for (Index i = 0; i < w.size(); ++i) sum += (h.size() ? h[i] : 1) * std::pow(std::abs(round_to(w[i], g) - w[i]), norm);
  return sum;
}

inline UniformGrid shrink_search(const Vector& w, int bits, bool symmetric, const Vector& h = {}, double norm = 2.4) {
  UniformGrid best;
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 80; ++i) {
    const UniformGrid g = min_max_grid(w, bits, symmetric, 1 - i / 100.0);
    const double error = grid_error(w, g, norm, h);
    if (error < least) least = error, best = g;
  }
  return best;
}

/// The best scale for codes whose zero point stays; the old one if no positive scale fits.
inline double least_squares_scale(const Vector& w, const Vector& codes, double zero, const Vector& h = {}) {
  double below = 0, above = 0;
  for (Index i = 0; i < w.size(); ++i) {
    const double weight = h.size() ? h[i] : 1, level = codes[i] - zero;
    above += weight * level * w[i], below += weight * level * level;
  }
  return below > 0 ? above / below : 0;
}

/// s and a real z.
inline UniformGrid least_squares_line(const Vector& w, const Vector& codes, double top, const Vector& h = {}) {
  double n = 0, q = 0, v = 0, qq = 0, qv = 0;
  for (Index i = 0; i < w.size(); ++i) {
    const double weight = h.size() ? h[i] : 1;
    n += weight, q += weight * codes[i], v += weight * w[i];
    qq += weight * codes[i] * codes[i], qv += weight * codes[i] * w[i];
  }
  const double scale = (n * qv - q * v) / (n * qq - q * q);
  return {scale, (q - v / scale) / n, top};
}

/// From `g` downhill: codes, then the scale with z fixed, until the squared error stops falling.
inline UniformGrid refined(const Vector& w, UniformGrid g, const Vector& h = {}) {
  for (double least = grid_error(w, g, 2, h);;) {
    Vector codes(w.size());
    for (Index i = 0; i < w.size(); ++i) codes[i] = code_of(w[i], g);
    UniformGrid next = g;
    next.scale = least_squares_scale(w, codes, g.zero, h);
    if (!(next.scale > 0) || !(grid_error(w, next, 2, h) < least)) return g;
    least = grid_error(w, g = next, 2, h);
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
