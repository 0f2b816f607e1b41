#pragma once
// HQQ: half-quadratic quantization. It needs no calibration: a p-norm below 1 lets the outliers of a group go. The scale
// stays that of the range; only the zero point, a real number, is found.
//
//   min over z, e of  ||e||_p^p + beta/2 ||e - (w - w^)||_2^2,     w^ = s (clamp(round(w / s + z)) - z),   p = .7
//   e <- shrink_p(w - w^, beta),   shrink_p(x, beta) = sign(x) max(0, |x| - |x|^(p-1) / beta)
//   z <- mean over the group of  q - (w - e) / s
//   beta <- 1.01 beta, from 10
//
// at most 20 rounds; it ends when mean|w - w^| stops falling. Source: Badri & Shaji 2023, "Half-Quadratic Quantization of
// Large Machine Learning Models", and its code (which stores 1/s).

#include <anybit/core/macros_begin.hpp>

#include <limits>

#include <anybit/reference/nearest.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

struct HqqOptions {
  double norm = 0.7, beta = 10, growth = 1.01;
  int rounds = 20;
};

/// |x|^(p-1) is infinite at 0, where the result is 0.
inline double shrink(double x, double beta, double p) {
  if (x == 0) return 0;
  return std::copysign(std::max(0.0, std::abs(x) - std::pow(std::abs(x), p - 1) / beta), x);
}

/// Codes here are clamp(round(w / s + z)): the zero point is added before rounding, because it is not whole.
inline double hqq_code(double w, const UniformGrid& g) { return std::clamp(std::nearbyint(w / g.scale + g.zero), 0.0, g.top); }

inline UniformGrid hqq(const Vector& w, int bits, const HqqOptions& o = {}) {
  const auto [lo, hi] = std::minmax_element(w.begin(), w.end());
  UniformGrid g;
  g.top = std::exp2(bits) - 1;
  g.scale = *hi - *lo > 1e-4 ? (*hi - *lo) / g.top : 1;
  g.zero = -*lo / g.scale;
  UniformGrid best = g;
  double beta = o.beta, least = std::numeric_limits<double>::infinity();
  for (int round = 0; round < o.rounds; ++round, beta *= o.growth) {
    double error = 0, zero = 0;
    for (const double v : w) {
      const double q = hqq_code(v, g), e = v - value_of(q, g);
      error += std::abs(e);
      zero += q - (v - shrink(e, beta, o.norm)) / g.scale;
    }
    if (!(error < least)) break;
    least = error, best = g;
    g.zero = zero / static_cast<double>(w.size());
  }
  return best;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
