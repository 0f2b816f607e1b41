#pragma once
// NeUQI (arXiv:2505.17595): uniform grids with the least weighted squared error, h_i >= 0 the weight of error i (diag(H), or 1).
//
//   min over s, z of  sum_i h_i (s (q_i - z) - w_i)^2,     q_i = clamp(round(w_i / s + z), 0, 2^b - 1)
//
// For one scale s, with u_i = w_i / s and d_i = q_i - u_i, the sum is s^2 sum_i h_i (d_i - z)^2. Each q_i is a staircase of z
// that rises by one at z = k + 1/2 - u_i, k = 0 .. 2^b - 2. Between two such places, of all weights in order, all q_i stay, and
//
//   z = sum_i h_i d_i / sum_i h_i
//
// moved to the nearer end where it lies outside, is the best there. The best of all pieces is the minimum over all real z. Scales
// are scanned. Where zero points are stored as whole numbers, all of them are tried.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <anybit/reference/scale_search.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

struct NeuqiZero {
  double error = std::numeric_limits<double>::infinity(), zero = 0;
};

/// The error of a real zero point.
inline double neuqi_error(const Vector& w, double scale, double zero, double top, const Vector& h = {}) {
  double sum = 0;
  for (Index i = 0; i < w.size(); ++i) {
    const double q = std::clamp(std::round(w[i] / scale + zero), 0.0, top);
    sum += (h.size() ? h[i] : 1) * std::pow(scale * (q - zero) - w[i], 2);
  }
  return sum;
}

/// The best real zero point of a scale above 0.
inline NeuqiZero neuqi_zero(const Vector& w, double scale, int bits, const Vector& h = {}) {
  const double top = std::exp2(bits) - 1;
  Row<std::pair<double, Index>> rises;       // where, and whose code
  double weight = 0, first = 0, second = 0;  // sums of h, h d and h d^2
  Vector d(w.size());
  for (Index i = 0; i < w.size(); ++i) {
    const double u = w[i] / scale, own = h.size() ? h[i] : 1;
    d[i] = -u;  // for small z every code is 0
    weight += own, first += own * d[i], second += own * d[i] * d[i];
    for (double k = 0; k < top; ++k) rises.values.emplace_back(k + 0.5 - u, i);
  }
  std::sort(rises.begin(), rises.end());
  NeuqiZero best;
  for (Index piece = 0; piece <= rises.size(); ++piece) {
    const double from = piece == 0 ? -std::numeric_limits<double>::infinity() : rises[piece - 1].first,
                 to = piece == rises.size() ? std::numeric_limits<double>::infinity() : rises[piece].first;
    const double zero = weight > 0 ? std::clamp(first / weight, from, to) : 0;
    const double error = scale * scale * (second - 2 * zero * first + zero * zero * weight);
    if (error < best.error) best = {error, zero};
    if (piece == rises.size()) break;
    const Index i = rises[piece].second;
    const double own = h.size() ? h[i] : 1;
    first += own, second += own * (2 * d[i] + 1), d[i] += 1;
  }
  return best;
}

/// The best of the whole zero points 0 .. 2^bits - 1, codes as code_of() has them.
inline NeuqiZero neuqi_whole_zero(const Vector& w, double scale, int bits, const Vector& h = {}) {
  NeuqiZero best;
  const double top = std::exp2(bits) - 1;
  for (double zero = 0; zero <= top; ++zero)
    if (const double error = grid_error(w, {scale, zero, top}, 2, h); error < best.error) best = {error, zero};
  return best;
}

/// The best grid whose scale is i / steps of that of the whole range, i = 1 .. 1.25 steps.
inline UniformGrid neuqi(const Vector& w, int bits, const Vector& h = {}, bool whole_zero = true, int steps = 1000) {
  UniformGrid best = min_max_grid(w, bits);
  const double whole = best.scale;
  double least = grid_error(w, best, 2, h);
  for (int i = 1; i <= steps + steps / 4; ++i) {
    const double scale = whole * i / steps;
    const NeuqiZero z = whole_zero ? neuqi_whole_zero(w, scale, bits, h) : neuqi_zero(w, scale, bits, h);
    if (z.error < least) least = z.error, best = {scale, z.zero, best.top};
  }
  return best;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
