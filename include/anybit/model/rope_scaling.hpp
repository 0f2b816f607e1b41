#pragma once
// Frequencies of rotary positions for contexts longer than those of training, as divisors of the frequencies.

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include <anybit/model/config.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Divisors w / w' of the frequencies for the scaling of Llama 3.
inline std::vector<float> llama3_factors(const DecoderConfig& c, double factor, double low, double high, double original) {
  std::vector<float> out;
  for (Index j = 0; j < c.rotary_dim / 2; ++j) {
    const double w =
        std::pow(static_cast<double>(c.rope_base), -2.0 * static_cast<double>(j) / static_cast<double>(c.rotary_dim));
    const double wavelength = 2 * std::numbers::pi / w;
    double scaled = w;
    if (wavelength > original / low) {
      scaled = w / factor;
    } else if (wavelength >= original / high) {
      const double s = (original / wavelength - low) / (high - low);
      scaled = (1 - s) * w / factor + s * w;
    }
    out.push_back(static_cast<float>(w / scaled));
  }
  return out;
}

struct YarnOptions {
  double factor = 1, original = 0, beta_fast = 32, beta_slow = 1;
  bool truncate = true;
};
/// Divisors w / w' of the frequencies for YaRN (arXiv:2309.00071).
inline std::vector<float> yarn_factors(const DecoderConfig& c, const YarnOptions& o) {
  const double r = static_cast<double>(c.rotary_dim), base = static_cast<double>(c.rope_base);
  // The pair that turns n times over the original context.
  const auto pair_of = [&](double n) { return r * std::log(o.original / (2 * std::numbers::pi * n)) / (2 * std::log(base)); };
  double low = pair_of(o.beta_fast), high = pair_of(o.beta_slow);
  if (o.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::clamp(low, 0.0, r - 1), high = std::clamp(high, 0.0, r - 1);
  if (low == high) high += 0.001;
  std::vector<float> out;
  for (Index j = 0; j < c.rotary_dim / 2; ++j) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    out.push_back(static_cast<float>(1 / ((1 - ramp) + ramp / o.factor)));
  }
  return out;
}

/// What YaRN multiplies cos and sin by.
inline double yarn_magnitude(double factor, double m = 1) { return factor > 1 ? 0.1 * m * std::log(factor) + 1 : 1; }

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
