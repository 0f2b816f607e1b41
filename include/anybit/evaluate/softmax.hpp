#pragma once
// Log-probabilities from logits, in double: vocabularies have 10^5 entries and the differences that matter are 10^-4.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include <anybit/core/distance.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/core/isa.hpp>
#include <anybit/evaluate/statistics.hpp>

#if ANYBIT_HAS_FAST_MATH && !defined(ANYBIT_ALLOW_FAST_MATH)
#error "anybit: evaluate/ measures differences that -ffast-math destroys; compile it without, or define ANYBIT_ALLOW_FAST_MATH"
#endif

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// e^x for x <= 0, free of branches so that compilers vectorize loops of it. Relative error below 1e-14; the least result is
/// e^-700, which no sum of probabilities notices.
ANYBIT_INLINE double exp_nonpositive(double x) {
  x = x < -700.0 ? -700.0 : x;
  constexpr double magic = 0x1.8p52;  // adding it rounds to an integer, which then stands in the low bits
  const double shifted = x * 1.4426950408889634074 + magic;
  const double n = shifted - magic;
  const double r = (x - n * 0x1.62e42fefa38p-1) - n * 0x1.ef35793c7673p-45;  // x - n ln 2, |r| <= 0.35
  double p = 1.0 / 39916800.0;
  for (const double c :
       {1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0})
    p = p * r + c;
  return p * std::bit_cast<double>((std::bit_cast<std::uint64_t>(shifted) + 1023) << 52);
}

/// Of one position: log of the sum of e^logit, and where the greatest logit stands (the first of equals).
struct LogNormalizer {
  double log_sum_exp = 0;
  Index top = 0;
};

/// A NaN among the logits, a plus infinity, or nothing but minus infinities make log_sum_exp NaN.
inline LogNormalizer log_normalizer(std::span<const float> logits) {
  if (logits.empty()) return {-std::numeric_limits<double>::infinity(), 0};
  constexpr Index lanes = 8;
  const float* x = logits.data();
  const Index n = static_cast<Index>(logits.size()), whole = n / lanes * lanes;
  float greatest[lanes];
  for (float& g : greatest) g = -std::numeric_limits<float>::infinity();
  for (Index i = 0; i < whole; i += lanes)
    for (Index l = 0; l < lanes; ++l) greatest[l] = x[i + l] > greatest[l] ? x[i + l] : greatest[l];
  float top = greatest[0];
  for (const float g : greatest) top = g > top ? g : top;
  for (Index i = whole; i < n; ++i) top = x[i] > top ? x[i] : top;
  if (!is_finite(top)) return {std::numeric_limits<double>::quiet_NaN(), 0};
  const double sum = lane_sum(n, [x, top](Index i) { return exp_nonpositive(double{x[i]} - double{top}); });
  Index first = 0;
  while (x[first] != top) ++first;
  return {double{top} + std::log(sum), first};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate
