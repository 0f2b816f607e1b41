#pragma once
// Means with their uncertainty and percentiles, by the formulas of llama.cpp's perplexity tool (variances in two passes).

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/types.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// A mean and its standard error: sqrt((E[x^2] - E[x]^2) / (n - 1)), 0 for 10 values or fewer.
struct Estimate {
  double value = 0, plus_minus = 0;
};

/// Infinite as soon as a value is, and NaN only where one is or infinities of both signs are.
inline double mean(std::span<const double> x) {
  double sum = 0, lost = 0;  // Neumaier
  for (const double v : x) {
    const double t = sum + v;
    lost += std::abs(sum) >= std::abs(v) ? (sum - t) + v : (v - t) + sum;
    sum = t;
  }
  if (is_nan(lost)) lost = 0;  // infinity less infinity: the plain sum says what it is
  return x.empty() ? 0 : (sum + lost) / static_cast<double>(x.size());
}

/// Covariance of the means of two paired samples: (E[ab] - E[a] E[b]) / (n - 1); 0 below 10 pairs.
inline double covariance_of_means(std::span<const double> a, std::span<const double> b) {
  const std::size_t n = std::min(a.size(), b.size());
  if (n < 10) return 0;
  const double mean_a = mean(a.first(n)), mean_b = mean(b.first(n));
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += (a[i] - mean_a) * (b[i] - mean_b);
  return sum / static_cast<double>(n) / static_cast<double>(n - 1);
}

inline Estimate estimate(std::span<const double> x) {
  return {mean(x), x.size() > 10 ? std::sqrt(covariance_of_means(x, x)) : 0};
}

/// Percentile of sorted values, linear between neighbours; fraction 0 is the least, 1 the greatest.
inline double percentile(std::span<const double> sorted, double fraction) {
  if (sorted.empty()) return 0;
  const double position = std::clamp(fraction, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const std::size_t below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double weight = position - static_cast<double>(below);
  return (1 - weight) * sorted[below] + weight * sorted[above];
}

inline std::vector<double> sorted(std::span<const double> x) {
  std::vector<double> s(x.begin(), x.end());
  std::sort(s.begin(), s.end());
  return s;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
