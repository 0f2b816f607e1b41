#pragma once
// Vectorized encoders of formats. A format has only a scalar encoder; here it is evaluated at every value where its
// code may change, and where it equals ordinary rounding, or a short list of steps, vectors give the same codes.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <anybit/format/format.hpp>
#include <anybit/simd/count_steps.hpp>
#include <anybit/simd/round_bytes.hpp>
#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::encoders {
inline namespace ANYBIT_CODE {

/// How a uniform format's code follows from the integer of its level.
enum class CodeOrder { wrapped, sign_magnitude, other };

/// The usual rounding to a uniform format: clamp(round(x / step) + zero, lowest, highest) and a rule for the code.
template <UniformFormat F>
  requires(F::bits <= 8)
struct UsualRounding {
  static constexpr int lowest = [] {
    int k = F::to_int(0);
    for (unsigned c = 1; c < (1u << F::bits); ++c) k = std::min(k, static_cast<int>(F::to_int(static_cast<Code>(c))));
    return k;
  }();
  static constexpr int highest = [] {
    int k = F::to_int(0);
    for (unsigned c = 1; c < (1u << F::bits); ++c) k = std::max(k, static_cast<int>(F::to_int(static_cast<Code>(c))));
    return k;
  }();
  static constexpr int mask = (1 << F::bits) - 1, sign = 1 << (F::bits - 1);
  /// Of wrapped codes: code = (k + shift) modulo 2^bits.
  static constexpr int shift = [] {
    for (int c = 0; c <= mask; ++c)
      if (F::to_int(static_cast<Code>(c)) == lowest) return c - lowest;
    return 0;
  }();
  static constexpr CodeOrder order = [] {
    bool wrapped = true, sign_magnitude = lowest == -highest;
    for (int k = lowest; k <= highest; ++k) {
      wrapped = wrapped && F::to_int(static_cast<Code>((k + shift) & mask)) == k;
      sign_magnitude = sign_magnitude && (k < 0 ? -k : k) < sign && F::to_int(static_cast<Code>(k < 0 ? -k | sign : k)) == k;
    }
    return wrapped ? CodeOrder::wrapped : sign_magnitude ? CodeOrder::sign_magnitude : CodeOrder::other;
  }();
  static constexpr float per_step = 1.0f / F::step;
  /// Multiplying by 1 / step must be exact.
  static constexpr bool power_of_two_step = (std::bit_cast<std::uint32_t>(static_cast<float>(F::step)) & 0x7FFFFF) == 0;

  /// One value, as the vectors compute it.
  static Code code(float x, float zero) {
    const float bounded = std::clamp(x == x ? x * per_step : 0.0f, -0x1p20f, 0x1p20f);
    const int k = std::clamp(static_cast<int>(std::nearbyint(bounded)) + static_cast<int>(zero), lowest, highest);
    if constexpr (order == CodeOrder::wrapped)
      return static_cast<Code>((k + shift) & mask);
    else
      return static_cast<Code>(k < 0 ? -k | sign : k);
  }

  /// Whether F's encoder is this, tried on both sides of every place where the code may change.
  static bool is_encoder() {
    if (order == CodeOrder::other || !power_of_two_step) return false;
    const auto agrees = [](float x) {
      if constexpr (has_zero_point_v<F>) {
        for (const int zero : {0, 1, mask / 2, mask})
          if (F::encode_around(x, static_cast<float>(zero)) != code(x, static_cast<float>(zero))) return false;
        return true;
      } else {
        return F::encode(x) == code(x, 0);
      }
    };
    constexpr float inf = std::numeric_limits<float>::infinity();
    for (const float x : {inf, 0x1p127f, 0x1p20f, 0x1p-149f, 0.0f, std::numeric_limits<float>::quiet_NaN()})
      if (!agrees(x) || !agrees(-x)) return false;
    // With a zero point k runs over twice the range: x is in levels around the zero.
    for (int half = 2 * (lowest - mask) - 2; half <= 2 * (highest + mask) + 2; ++half) {
      const float x = static_cast<float>(half) * 0.5f * static_cast<float>(F::step);
      if (!agrees(x) || !agrees(std::nextafter(x, inf)) || !agrees(std::nextafter(x, -inf))) return false;
    }
    return true;
  }

  /// The rule of simd::round_groups, whose factors are per_step over our scales.
  static constexpr int magnitude_bits = F::bits - (has_zero_point_v<F> ? 0 : 1);  // |x| <= 2^magnitude_bits where it matters
  static constexpr int fraction = magnitude_bits <= 6 ? 16 : magnitude_bits == 7 ? 15 : 14;
  static constexpr int centre =
      fraction == 16 ? (has_zero_point_v<F> ? 32 : 64) : (has_zero_point_v<F> && F::bits == 7 ? 64 : 128);
  static constexpr std::array<std::uint8_t, 128> codes_by_place = [] {
    std::array<std::uint8_t, 128> codes{};
    for (int i = 0; i < 128; ++i) {
      const int k = std::clamp(i - centre, lowest, highest);
      codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(order == CodeOrder::wrapped ? (k + shift) & mask
                                                                     : k < 0                     ? -k | sign
                                                                                                 : k);
    }
    return codes;
  }();
  static constexpr simd::RoundRule rule{lowest, highest, centre, shift, mask, sign, codes_by_place.data()};

  /// Codes of simd::width values x = weight / scale.
  static ANYBIT_INLINE simd::i32 codes(simd::f32 x, simd::f32 zero) {
    simd::f32 y = simd::nan_to_zero(x);
    if constexpr (per_step != 1.0f) y = y * simd::broadcast(per_step);
    if constexpr (has_zero_point_v<F>)
      y = simd::round(simd::min(simd::max(y, simd::broadcast(-0x1p20f)), simd::broadcast(0x1p20f))) + zero;
    y = simd::min(simd::max(y, simd::broadcast(static_cast<float>(lowest))), simd::broadcast(static_cast<float>(highest)));
    const simd::i32 k = simd::round_to_i32(y);
    if constexpr (order == CodeOrder::sign_magnitude) {
      const simd::i32 negative = k >> 31;
      return ((k ^ negative) - negative) | (negative & simd::broadcast(std::int32_t{sign}));
    } else {
      return (k + simd::broadcast(std::int32_t{shift})) & simd::broadcast(std::int32_t{mask});
    }
  }
};

/// An encoder of up to 4 bits as the list of places where its code changes, for any format whose codes each stand for one
/// stretch of the number line.
template <Format F>
  requires(F::bits <= 4)
struct EncoderSteps {
  static constexpr int most = (1 << F::bits) - 1;
  bool usable = true, in_order = true;  // in_order: code[i] is i
  /// Steps are 0 or far from under- and overflow, so that each can be told for weights instead of quotients.
  bool of_weights = true;
  bool only_sign = false;  ///< of_weights, and 0 is the only step
  int count = 0;
  std::array<float, 16> from{};  // step i: the smallest x that has code[i + 1]; NaN from `count` on
  std::array<std::uint8_t, 16> code{};
  /// Exact quotients from here on round to step i or above: half way to it from the float below, which is no float; or just
  /// behind, where a product with a reciprocal may lie half way and rounds down to even.
  std::array<double, 16> half_way{};

  EncoderSteps() {
    std::int64_t x = place(-std::numeric_limits<float>::infinity());
    const std::int64_t last = place(std::numeric_limits<float>::infinity());
    code[0] = static_cast<std::uint8_t>(F::encode(value(x)));
    while (F::encode(value(last)) != code[static_cast<std::size_t>(count)]) {
      std::int64_t same = x, changed = last;
      while (changed - same > 1) {
        const std::int64_t middle = same + (changed - same) / 2;
        (F::encode(value(middle)) == code[static_cast<std::size_t>(count)] ? same : changed) = middle;
      }
      if (count == most) {
        usable = false;
        return;
      }  // a code came back: not one stretch
      from[static_cast<std::size_t>(count++)] = value(changed);
      code[static_cast<std::size_t>(count)] = static_cast<std::uint8_t>(F::encode(value(changed)));
      x = changed;
    }
    for (int i = 0; i < 16; ++i) {
      float& step = from[static_cast<std::size_t>(i)];
      if (i >= count) step = std::numeric_limits<float>::quiet_NaN();
      const float size = step < 0 ? -step : step;
      if (i < count) of_weights = of_weights && (size == 0 || (size >= 0x1p-20f && size <= 0x1p20f));
      double& middle = half_way[static_cast<std::size_t>(i)];
      middle = size == 0 ? 0.0 : 0.5 * (static_cast<double>(step) + static_cast<double>(value(place(step) - 1)));
      if (multiplies_by_reciprocal_v<F> && size != 0 && (std::bit_cast<std::uint32_t>(step) & 1) != 0)
        middle = std::nextafter(middle, std::numeric_limits<double>::infinity());
    }
    for (int i = 0; i <= count; ++i) in_order = in_order && code[static_cast<std::size_t>(i)] == i;
    usable = F::encode(-0.0f) == F::encode(0.0f) && F::encode(std::numeric_limits<float>::quiet_NaN()) == F::encode(0.0f);
    for (unsigned c = 0; c < (1u << F::bits); ++c)
      for (const float factor : {-1.0f, 0.0f, 0.5f, 1.0f})
        if (const float level = factor * F::decode(static_cast<Code>(c)); level == level)
          usable = usable && F::encode(level) == at(level);
    only_sign = usable && of_weights && count == 1 && from[0] == 0;
  }

 private:
  std::uint8_t at(float x) const {
    int passed = 0;
    for (int i = 0; i < count; ++i) passed += x >= from[static_cast<std::size_t>(i)];
    return code[static_cast<std::size_t>(passed)];
  }
  /// Floats in order as whole numbers: -0 and +0 are neighbours.
  static std::int64_t place(float x) {
    const auto bits = std::bit_cast<std::int32_t>(x);
    return bits < 0 ? -1 - std::int64_t{bits & 0x7FFFFFFF} : std::int64_t{bits};
  }
  static float value(std::int64_t at) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(at < 0 ? 0x80000000 | (-1 - at) : at));
  }
};

template <Format F>
  requires(F::bits <= 4)
const EncoderSteps<F>& encoder_steps() {
  static const EncoderSteps<F> steps;
  return steps;
}

/// simd::width divisions at once, as quantize_value does them.
template <class F>
ANYBIT_INLINE simd::f32 scaled(simd::f32 w, float scale) {
  if constexpr (multiplies_by_reciprocal_v<F>) {
    if (const float reciprocal = 1.0f / scale; reciprocal <= std::numeric_limits<float>::max())
      return w * simd::broadcast(reciprocal);
  }
  return simd::divide(w, simd::broadcast(scale));
}

/// For each of 16 steps the smallest weight whose quotient reaches it; NaN stays NaN. Steps as EncoderSteps::of_weights says.
/// False for scales for which it cannot tell.
template <class F>
bool steps_of_weights(const EncoderSteps<F>& steps, float scale, float* out) {
  if (!(scale >= 0x1p-100f && scale <= 1.0f)) return false;  // above 1 a weight may underflow to 0
  // In double the products that are compared are exact: 24 bits by 25. A quotient never lies half way, since no float is an odd
  // number of 25 bits times another.
  const double reciprocal = static_cast<double>(1.0f / scale),
               factor = multiplies_by_reciprocal_v<F> ? 1.0 / reciprocal : static_cast<double>(scale);
  for (std::size_t i = 0; i < 16; ++i) {
    const double from = steps.half_way[i];
    const float near = static_cast<float>(from * factor);  // at most one float below
    const auto exact = static_cast<double>(near);
    const bool below = multiplies_by_reciprocal_v<F> ? exact * reciprocal < from : exact < from * factor;
    const std::int32_t up = near < 0 ? -1 : 1;  // to the next float above
    out[i] = std::bit_cast<float>(std::bit_cast<std::int32_t>(near) + (below ? up : 0));
  }
  return true;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::encoders
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
