#pragma once
// A datapath whose registers are Superfloats: activations at named sites become Q(x / s) s, with s for the tensor, per channel,
// per token, or both. Scales of tensors and channels come from calibration and fold into weights; those of tokens are made at run
// time.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <anybit/core/view.hpp>
#include <anybit/train/wasq/superfloat_grid.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

enum class SiteScale : std::uint8_t { none, tensor, channel, token, channel_token };
inline constexpr std::string_view site_scale_names[] = {"none", "tensor", "channel", "token", "channel+token"};

/// The smallest power of two that is at least s > 0.
inline float power_of_two_above(float s) {
  int exponent = 0;
  const float mantissa = std::frexp(s, &exponent);  // in [.5, 1)
  return std::ldexp(1.0f, mantissa == 0.5f ? exponent - 1 : exponent);
}

/// Of the values of one site that were rounded.
struct SiteCensus {
  Index values = 0, clipped = 0, dead = 0;  ///< dead: rounded to 0 without being 0
  float largest = 0;                        ///< of |x|
};

/// One site: how its activations are scaled, and what calibration saw.
class Site {
 public:
  static constexpr float least_scale = 1e-8f;

  Site() = default;
  Site(const SuperfloatGrid& grid, SiteScale scale, bool powers_of_two = false)
      : grid_(grid), scale_(scale), powers_of_two_(powers_of_two) {}

  SiteScale scale() const { return scale_; }
  const SuperfloatGrid& grid() const { return grid_; }

  /// Takes the largest magnitudes of x (tokens, channels) into account.
  void calibrate(ConstMatrix x) {
    channels_.resize(static_cast<std::size_t>(x.cols), 0.0f);
    for (Index t = 0; t < x.rows; ++t)
      for (Index c = 0; c < x.cols; ++c) {
        float& most = channels_[static_cast<std::size_t>(c)];
        most = std::max(most, std::abs(x(t, c)));
      }
  }

  /// x becomes Q(x / s) s.
  void round(MutableMatrix x, SiteCensus* census = nullptr) const {
    std::vector<float> scales(static_cast<std::size_t>(x.cols));
    for (Index t = 0; t < x.rows; ++t) {
      token_scales(x.row(t), scales);
      for (Index c = 0; c < x.cols; ++c) {
        const float s = scales[static_cast<std::size_t>(c)], u = x(t, c) / s;
        const float q = grid_.round(u);
        if (census) {
          ++census->values;
          census->clipped += grid_.passes(u) ? 0 : 1;
          census->dead += q == 0 && u != 0 ? 1 : 0;
          census->largest = std::max(census->largest, std::abs(x(t, c)));
        }
        x(t, c) = q * s;
      }
    }
  }

  /// s of every channel of one token.
  void token_scales(std::span<const float> x, std::span<float> out) const {
    ANYBIT_CHECK(scale_ == SiteScale::none || scale_ == SiteScale::token || channels_.size() == x.size(),
                 "Site: calibrate it with activations of this width first");
    switch (scale_) {
      case SiteScale::none: std::fill(out.begin(), out.end(), 1.0f); return;
      case SiteScale::tensor: {
        float most = 0;
        for (const float c : channels_) most = std::max(most, c);
        std::fill(out.begin(), out.end(), std::max(most, least_scale));
        break;
      }
      case SiteScale::token: {
        float most = 0;
        for (const float v : x) most = std::max(most, std::abs(v));
        std::fill(out.begin(), out.end(), std::max(most, least_scale));
        break;
      }
      case SiteScale::channel:
      case SiteScale::channel_token: {
        for (std::size_t c = 0; c < out.size(); ++c) out[c] = std::max(channels_[c], least_scale);
        if (scale_ == SiteScale::channel) break;
        float most = 0;
        for (std::size_t c = 0; c < out.size(); ++c) most = std::max(most, std::abs(x[c] / out[c]));
        for (float& s : out) s *= std::max(most, least_scale);
        break;
      }
    }
    if (powers_of_two_)
      for (float& s : out) s = power_of_two_above(s);
  }

 private:
  SuperfloatGrid grid_{};
  SiteScale scale_ = SiteScale::none;
  bool powers_of_two_ = false;
  std::vector<float> channels_;  ///< largest magnitudes
};

/// Bits of a signed accumulator that holds sums up to `largest` of products of operands at bits_x and bits_w under scales.
inline int accumulator_bits(int bits_x, int bits_w, double scale_x, double scale_w, double largest) {
  return 1 + (bits_x - 1) + (bits_w - 1) + static_cast<int>(std::ceil(std::log2(std::max(1.0, largest / (scale_x * scale_w)))));
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
