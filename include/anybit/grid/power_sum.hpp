#pragma once
// Sums of powers of errors, the innermost loop of every search.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include <anybit/core/types.hpp>

namespace anybit::grid {
inline namespace ANYBIT_CODE {

/// Values at once: loops over them have this constant length, so that compilers turn them into vectors at -O2 too.
inline constexpr Index power_lanes = 16;

/// |d|^2.4 with a relative error below 1e-12; subnormal d may count for less than they are.
/// y = |d|^-0.4 is the root of y^5 d^2 = 1, found by Newton's steps y (6 - d^2 y^5) / 5, which need no division. Then |d|^2.4 is
/// (|d| y)^4. The bits of a float, read as a number, are its logarithm, good enough to start from within 5 %.
ANYBIT_INLINE void powers_2_4(const float* d, double* out) {
  float size[power_lanes], root[power_lanes];
  for (Index j = 0; j < power_lanes; ++j) {
    size[j] = std::fabs(d[j]);
    const auto logarithm = static_cast<float>(std::bit_cast<std::int32_t>(size[j]));
    // 1.4 * 127 * 2^23, less half of what the two straight lines between powers of two are off at most.
    const auto guess = static_cast<std::int32_t>(1491000000.0f - 0.4f * logarithm);
    float y = std::bit_cast<float>(guess);
    for (int step = 0; step < 3; ++step) {
      const float u = size[j] * y * y;  // |d|^0.2: nothing on the way leaves the range of floats
      y *= 0.2f * (6.0f - u * u * y);
    }
    root[j] = y;
  }
  for (Index j = 0; j < power_lanes; ++j) {
    const double a = static_cast<double>(size[j]), y = static_cast<double>(root[j]), u = a * y * y;
    const double r = a * y * (0.2 * (6.0 - u * u * y));
    out[j] = (r * r) * (r * r);
  }
}

/// |d|^norm = 2^(norm log2 |d|) with a relative error below 1e-10; results beyond 2^-1000 and 2^1000 stay there.
ANYBIT_INLINE void powers_of_any(const float* d, double norm, double* out) {
  constexpr std::uint64_t root_of_half = 0x3FE6A09E667F3BCD, exponent = std::uint64_t{1} << 52, bias = 1024;
  constexpr double whole = 0x1p52, rounder = 0x1.8p52;  // added to a small number they leave its integer in the lowest bits
  for (Index j = 0; j < power_lanes; ++j) {
    const double a = std::fabs(static_cast<double>(d[j]));
    // a = 2^e m with m from sqrt(1/2) to sqrt(2); log2 m by the series of the inverse hyperbolic tangent.
    const auto bits = std::bit_cast<std::uint64_t>(a);
    const std::uint64_t biased = (bits - root_of_half + bias * exponent) >> 52;
    const double e = std::bit_cast<double>(biased | std::bit_cast<std::uint64_t>(whole)) - (whole + static_cast<double>(bias));
    const double m = std::bit_cast<double>(bits - (biased - bias) * exponent);
    const double t = (m - 1) / (m + 1), s = t * t;
    const double series = 1 + s * (1.0 / 3 + s * (1.0 / 5 + s * (1.0 / 7 + s * (1.0 / 9 + s * (1.0 / 11 + s * (1.0 / 13))))));
    double y = norm * (e + 2.8853900817779268 * t * series);  // 2 / ln 2
    y = y > -1000 ? y : -1000;
    y = y < 1000 ? y : 1000;
    const double shifted = y + rounder, x = (y - (shifted - rounder)) * 0.69314718055994531;
    const double exp =
        1 +
        x * (1 + x * (1.0 / 2 +
                      x * (1.0 / 6 +
                           x * (1.0 / 24 +
                                x * (1.0 / 120 + x * (1.0 / 720 + x * (1.0 / 5040 + x * (1.0 / 40320 + x * (1.0 / 362880)))))))));
    const double power = std::bit_cast<double>(std::bit_cast<std::uint64_t>(exp) + (std::bit_cast<std::uint64_t>(shifted) << 52));
    const double finite = a > 0 ? power : 0;
    out[j] = a <= 0x1.fffffep127 ? finite : a;  // infinity and NaN stay
  }
}

/// |d|^norm of 16 values, norm > 0. Apart stand 2, exact in double, and 2.4, which GPTQ searches with.
ANYBIT_INLINE void powers(const float* d, float norm, double* out) {
  if (norm == 2.0f) {
    for (Index j = 0; j < power_lanes; ++j) out[j] = static_cast<double>(d[j]) * static_cast<double>(d[j]);
  } else if (norm == 2.4f) {
    powers_2_4(d, out);
  } else {
    powers_of_any(d, static_cast<double>(norm), out);
  }
}

/// Sum of importance * |got - wanted|^norm, in 16 interleaved sums; importance may be null. Stops early, with some larger or
/// equal number, once the sum reaches `enough`: terms are never negative.
inline double power_sum(const float* got, const float* wanted, const float* importance, Index n, float norm, double enough) {
  constexpr Index lanes = power_lanes, stretch = 64;
  double total = 0;
  for (Index first = 0; first < n && !(total >= enough); first += stretch) {
    double sums[static_cast<std::size_t>(lanes)] = {};
    const Index end = std::min(first + stretch, n);
    for (Index i = first; i < end; i += lanes) {
      float d[static_cast<std::size_t>(lanes)] = {};
      double p[static_cast<std::size_t>(lanes)];
      if (i + lanes <= end) {
        for (Index j = 0; j < lanes; ++j) d[j] = got[i + j] - wanted[i + j];
      } else {
        for (Index j = 0; i + j < end; ++j) d[j] = got[i + j] - wanted[i + j];
      }
      powers(d, norm, p);
      if (importance && i + lanes <= end) {
        for (Index j = 0; j < lanes; ++j) p[j] *= static_cast<double>(importance[i + j]);
      } else if (importance) {
        for (Index j = 0; i + j < end; ++j) p[j] *= static_cast<double>(importance[i + j]);
      }
      for (Index j = 0; j < lanes; ++j) sums[j] += p[j];
    }
    for (Index half = lanes / 2; half > 0; half /= 2)
      for (Index j = 0; j < half; ++j) sums[j] += sums[j + half];
    total += sums[0];
  }
  return total;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::grid

#include <anybit/core/macros_end.hpp>
