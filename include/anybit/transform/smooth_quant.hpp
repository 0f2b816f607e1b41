#pragma once
// SmoothQuant (Xiao et al., 2022): moves part of the activations' range into the weights, channel by channel, so that both
// can be rounded to 8 bits. See docs/smoothquant.md.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <anybit/calibrate/siblings.hpp>

namespace anybit::inline ANYBIT_CODE {

/// s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), the second maximum over all rows of all siblings; both the weight maximum and
/// s are at least 1e-5, as published. The weights become W diag(s), the inputs X / s.
struct SmoothQuant {
  static constexpr bool is_transform = true;
  static constexpr Needs needs = Needs::abs_max;
  static constexpr int order = 10;
  static constexpr bool folds_into_linear = false;  ///< only what a norm feeds is smoothed, as published

  float alpha = 0.5f;  ///< 0 to 1: how much of the difficulty goes to the weights (0.5 OPT and BLOOM, 0.85 Llama 2 and 3)

  std::string describe() const { return "smooth_quant(alpha=" + std::to_string(alpha).substr(0, 4) + ")"; }

  Result<std::vector<float>> fit(std::span<const ConstMatrix> siblings, const Stats& stats) const {
    if (!(alpha >= 0 && alpha <= 1))
      return Error{ErrorCode::invalid_argument, "smooth_quant: alpha is " + std::to_string(alpha) + "; it must lie in 0 to 1"};
    ANYBIT_TRY_STATUS(calibrate::check_siblings(siblings));
    ANYBIT_TRY_STATUS(calibrate::check_stats(stats, needs, siblings[0].cols, "smooth_quant"));
    const auto inputs = stats.abs_max();
    std::vector<float> s(inputs.size(), 1e-5f);
    for (const ConstMatrix& w : siblings)
      for (Index r = 0; r < w.rows; ++r)
        for (std::size_t j = 0; j < s.size(); ++j) s[j] = std::max(s[j], std::fabs(w.row(r)[j]));
    for (std::size_t j = 0; j < s.size(); ++j) s[j] = std::max(std::pow(inputs[j], alpha) / std::pow(s[j], 1 - alpha), 1e-5f);
    return s;
  }

  template <class Algorithm>
  Status apply(Siblings& set, const Algorithm&, const QuantizeOptions&) const {
    ANYBIT_TRY(const std::vector<float> s, fit(set.views(), set.stats));
    calibrate::scale_inputs(set, s);
    return Ok{};
  }
};

}  // namespace anybit::inline ANYBIT_CODE
