#pragma once
// Log-probabilities from logits, in double: vocabularies have 10^5 entries and the differences that matter are 10^-4.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include <anybit/core/types.hpp>

#if defined(__FAST_MATH__) && !defined(ANYBIT_ALLOW_FAST_MATH)
#error "anybit: evaluate/ measures differences that -ffast-math destroys; compile it without, or define ANYBIT_ALLOW_FAST_MATH"
#endif

namespace anybit::evaluate::inline ANYBIT_CODE {

/// e^x for x <= 0, free of branches so that compilers vectorize loops of it. Relative error below 1e-14; the least result is
/// e^-700, which no sum of probabilities notices.
ANYBIT_INLINE double exp_nonpositive(double x) {
  x = x < -700.0 ? -700.0 : x;
  constexpr double magic = 0x1.8p52;  // adding it rounds to an integer, which then stands in the low bits
  const double shifted = x * 1.4426950408889634074 + magic;
  const double n = shifted - magic;
  const double r = (x - n * 0x1.62e42fefa38p-1) - n * 0x1.ef35793c7673p-45;  // x - n ln 2, |r| <= 0.35
  double p = 1.0 / 39916800.0;
  for (const double c : {1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0}) p = p * r + c;
  return p * std::bit_cast<double>((std::bit_cast<std::uint64_t>(shifted) + 1023) << 52);
}

/// Of one position: log of the sum of e^logit, and where the greatest logit stands (the first of equals).
struct LogNormalizer {
  double log_sum_exp = 0;
  Index top = 0;
};

/// A NaN among the logits makes log_sum_exp NaN.
inline LogNormalizer log_normalizer(std::span<const float> logits) {
  constexpr std::size_t lanes = 8;
  LogNormalizer result;
  const std::size_t n = logits.size();
  if (n == 0) return {-std::numeric_limits<double>::infinity(), 0};
  float greatest[lanes];
  for (float& g : greatest) g = -std::numeric_limits<float>::infinity();
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (std::size_t l = 0; l < lanes; ++l) greatest[l] = logits[i + l] > greatest[l] ? logits[i + l] : greatest[l];
  for (; i < n; ++i) greatest[0] = logits[i] > greatest[0] ? logits[i] : greatest[0];
  float top = greatest[0];
  for (const float g : greatest) top = g > top ? g : top;
  if (!std::isfinite(top)) return {top > 0 ? top : std::numeric_limits<double>::quiet_NaN(), 0};
  while (logits[static_cast<std::size_t>(result.top)] != top) ++result.top;

  double sums[lanes] = {};
  for (i = 0; i + lanes <= n; i += lanes)
    for (std::size_t l = 0; l < lanes; ++l) sums[l] += exp_nonpositive(double{logits[i + l]} - double{top});
  for (; i < n; ++i) sums[i % lanes] += exp_nonpositive(double{logits[i]} - double{top});
  const double sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  result.log_sum_exp = double{top} + std::log(sum);
  return result;
}

}  // namespace anybit::evaluate::inline ANYBIT_CODE
