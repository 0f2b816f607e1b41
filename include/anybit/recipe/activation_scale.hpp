#pragma once
// The calibrated scale of activations for Compute::int8_static.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include <anybit/core/finite.hpp>
#include <anybit/recipe/siblings.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Largest magnitude that calibration saw / 127, of inputs that are divided by `input_scale` first (what quantize_siblings()
/// gave; empty: by nothing). At least 1e-5 / 127, as SmoothQuant publishes it, so that inputs that were always 0 have a scale
/// too. `stats` are of the inputs before that division, and hold Needs::abs_max of at least one token.
inline Result<float> static_activation_scale(const Stats& stats, std::span<const float> input_scale = {}) {
  const Index divided = input_scale.empty() ? stats.inputs() : static_cast<Index>(input_scale.size());
  ANYBIT_TRY_STATUS(recipe::check_stats(stats, Needs::abs_max, divided, "static activation scale"));
  float largest = 1e-5f;
  const std::span<const float> maxima = stats.abs_max();
  for (std::size_t j = 0; j < maxima.size(); ++j) {
    const float m = input_scale.empty() ? maxima[j] : maxima[j] / input_scale[j];
    if (!is_finite(m))
      return Error{ErrorCode::not_finite, "static activation scale: input " + std::to_string(j) + " reached " +
                                              std::to_string(m) + "; calibrate with inputs and input scales that are finite"};
    largest = std::max(largest, std::fabs(m));
  }
  return largest / 127;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
