#pragma once
// Learned rounding of one linear layer (SignRound: Cheng et al. 2023, arXiv:2309.05516, equations 3 to 5; AutoRound's code).
// For a group w of weights, N = 2^b - 1 and the ends l = -s0 z0, h = s0 (N - z0) of the grid s0, z0 that nearest.hpp gives it
// (the published ends are min(0, min w) and max(0, max w): the same but for the rounding of z0):
//
//   s = (p h - m l) / N,   z = round(-m l / s)
//   q = clamp(round(w / s + z + v), 0, N),   w^ = s (q - z)
//   L = tr(E H E^T),   E = W^ - W,   dL/dW^ = 2 E H
//
// v lies in -1/2 .. 1/2 and starts at 0, p and m start at 1. round counts as the identity and clamp as constant beyond its ends,
// so that, with G = dL/dW^ and sums over a group,
//
//   dL/dv = s G                     inside the ends, 0 beyond
//   dL/ds = sum G (w^ - w) / s      inside,  sum G (q - z)  beyond
//   dL/dz = 0                       inside, -sum s G        beyond
//   dL/dp = dL/ds h / N + dL/dz m l h / (s^2 N)
//   dL/dm = -dL/ds l / N - dL/dz (l / s + m l^2 / (s^2 N))
//
// Step t of T:  v -= r sign(dL/dv),  p -= r sign(dL/dp),  m -= r sign(dL/dm),  r = rate (1 - t / T).
// Rows share only H: each keeps the best of its T + 1 states.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <anybit/reference/nearest.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

struct LearnedRoundingOptions {
  int bits = 4;
  Index group = 0;  ///< columns; 0: the whole row
  int iterations = 200;
  double rate = 0.005;
  bool learn_ends = true;
};

/// The signs of one step; `ends` has p and m of group g in columns 2 g and 2 g + 1.
struct LearnedSigns {
  Matrix offsets, ends;
};

struct LearnedRounding {
  Matrix weights;
  Vector losses;       ///< d H d^T of each row as kept
  LearnedSigns first;  ///< of the first step
};

inline double sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

inline LearnedRounding learned_rounding(const Matrix& w, const Matrix& hessian, const LearnedRoundingOptions& o) {
  const Index n = w.cols, width = o.group > 0 ? o.group : n, groups = (n + width - 1) / width;
  const double top = std::exp2(o.bits) - 1;
  LearnedRounding out{
      w, Vector(w.rows, std::numeric_limits<double>::infinity()), {Matrix(w.rows, n), Matrix(w.rows, 2 * groups)}};
  Matrix v(w.rows, n), p(w.rows, groups), m(w.rows, groups), s(w.rows, groups), z(w.rows, groups), l = s, h = s;
  for (Index r = 0; r < w.rows; ++r)
    for (Index g = 0; g < groups; ++g) {
      const Vector values = w.row(r, g * width, std::min((g + 1) * width, n));
      const UniformGrid grid = min_max_grid(values, o.bits);
      l(r, g) = -grid.scale * grid.zero, h(r, g) = grid.scale * (top - grid.zero);
      p(r, g) = m(r, g) = 1;
    }
  for (int t = 0; t <= o.iterations; ++t) {
    Matrix q(w.rows, n), e(w.rows, n);
    for (Index r = 0; r < w.rows; ++r)
      for (Index c = 0; c < n; ++c) {
        const Index g = c / width;
        s(r, g) = (p(r, g) * h(r, g) - m(r, g) * l(r, g)) / top;
        z(r, g) = std::nearbyint(-m(r, g) * l(r, g) / s(r, g));
        q(r, c) = std::clamp(std::nearbyint(w(r, c) / s(r, g) + v(r, c)) + z(r, g), 0.0, top);
        e(r, c) = s(r, g) * (q(r, c) - z(r, g)) - w(r, c);
      }
    const Matrix eh = times_transposed(e, hessian);
    for (Index r = 0; r < w.rows; ++r) {
      double loss = 0;
      for (Index c = 0; c < n; ++c) loss += eh(r, c) * e(r, c);
      if (!(loss < out.losses[r])) continue;
      out.losses[r] = loss;
      for (Index c = 0; c < n; ++c) out.weights(r, c) = w(r, c) + e(r, c);
    }
    const double rate = o.rate * (1 - static_cast<double>(t) / o.iterations);
    for (Index r = 0; r < w.rows; ++r)
      for (Index g = 0; g < groups; ++g) {
        double ds = 0, dz = 0;
        for (Index c = g * width; c < std::min((g + 1) * width, n); ++c) {
          const double slope = 2 * eh(r, c), x = w(r, c) / s(r, g) + z(r, g) + v(r, c);
          if (x >= -0.5 && x <= top + 0.5) {
            ds += slope * e(r, c) / s(r, g);
            if (t == 0) out.first.offsets(r, c) = sign(slope);
            v(r, c) = std::clamp(v(r, c) - rate * sign(slope), -0.5, 0.5);
          } else {
            ds += slope * (q(r, c) - z(r, g));
            dz -= slope * s(r, g);
          }
        }
        if (!o.learn_ends) continue;
        const double high = h(r, g), low = l(r, g), ml = m(r, g) * low, scale = s(r, g);
        const double dp = sign(ds * high / top + dz * ml * high / (scale * scale * top));
        const double dm = sign(-ds * low / top - dz * (low / scale + ml * low / (scale * scale * top)));
        if (t == 0) out.first.ends(r, 2 * g) = dp, out.first.ends(r, 2 * g + 1) = dm;
        p(r, g) -= rate * dp, m(r, g) -= rate * dm;
      }
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
