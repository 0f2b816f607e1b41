#pragma once
// Bootstrap intervals of a mean (Efron 1979): values are drawn again with replacement, and the interval holds the middle of the
// means of many draws.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include <anybit/core/isa.hpp>

namespace anybit::steer {
inline namespace ANYBIT_ABI {

struct BootstrapOptions {
  double level = 0.95;
  int resamples = 2000;
  std::uint64_t seed = 42;
};

/// A mean and the percentiles (1 - level) / 2 and (1 + level) / 2 of the means of the draws.
struct MeanInterval {
  double mean = 0, low = 0, high = 0;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::steer

namespace anybit::steer {
inline namespace ANYBIT_CODE {

/// One value per independent item: a pair, a statement, a question. The same on every machine. Values that are all equal have an
/// interval without width, however few they are.
inline MeanInterval bootstrap_mean(std::span<const double> values, const BootstrapOptions& o = {}) {
  MeanInterval out;
  if (values.empty()) return out;
  const auto count = static_cast<double>(values.size());
  for (const double v : values) out.mean += v / count;
  std::mt19937_64 random(o.seed);
  std::vector<double> means;
  for (int r = 0; r < o.resamples; ++r) {
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) sum += values[static_cast<std::size_t>(random() % values.size())];
    means.push_back(sum / count);
  }
  std::sort(means.begin(), means.end());
  const auto at = [&](double share) {
    const auto last = static_cast<double>(means.size() - 1);
    return means[static_cast<std::size_t>(std::clamp(share * last + 0.5, 0.0, last))];
  };
  out.low = at((1 - o.level) / 2), out.high = at((1 + o.level) / 2);
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
