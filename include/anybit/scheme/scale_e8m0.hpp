#pragma once
// Scales that are powers of two, in one byte: those of OCP Microscaling (MX specification v1.0, sections 5.4.1 and 6.3).

#include <anybit/core/macros_begin.hpp>

#include <bit>
#include <cstdint>
#include <limits>

#include <anybit/core/fixed_string.hpp>
#include <anybit/format/format.hpp>
#include <anybit/scheme/scale_store.hpp>

namespace anybit::e8m0 {
inline namespace ANYBIT_ABI {

/// The byte of 2^exponent. 255 would be NaN and is never written.
constexpr ANYBIT_INLINE std::uint8_t pattern(int exponent) {
  return static_cast<std::uint8_t>(exponent < -127 ? 0 : exponent > 127 ? 254 : exponent + 127);
}
constexpr ANYBIT_INLINE float decode(std::uint8_t p) {
  return p == 0 ? 0x1p-127f : std::bit_cast<float>(static_cast<std::uint32_t>(p) << 23);
}
/// floor(log2 x) of x > 0 that is a normal double, as every float is.
constexpr ANYBIT_INLINE int floor_log2(double x) { return static_cast<int>(std::bit_cast<std::uint64_t>(x) >> 52) - 1023; }
constexpr ANYBIT_INLINE double power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

/// Scales of format F: a fitted scale is s = largest weight / largest level, so that the largest weight can be had back.
template <Format F>
struct Floor : IndependentScales<Floor<F>, std::uint8_t> {
  static constexpr auto name = FixedString("e8m0");
  /// 1.5 takes a scale that is no quotient of largest numbers to the nearest power of two.
  static constexpr double level = fitted_level<F>() > 0 ? static_cast<double>(fitted_level<F>()) : 1.5;
  static constexpr float largest = [] {
    constexpr double first_above = power_of_two(128 + floor_log2(level)) / level, most = std::numeric_limits<float>::max();
    if (first_above > most) return std::numeric_limits<float>::max();
    const auto up = static_cast<float>(first_above);
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(up) - 1);
  }();

  static constexpr ANYBIT_INLINE std::uint8_t encode(float s) {
    if (!(s > 0)) return 0;
    if (s > largest) return 254;
    int exponent = floor_log2(static_cast<double>(s) * level);
    // s was rounded: it may be the quotient of the next power of two, though its product falls short of that.
    const double next = power_of_two(exponent + 1) / level;
    if (next <= static_cast<double>(largest) && s >= static_cast<float>(next)) ++exponent;
    return pattern(exponent - floor_log2(level));
  }
  static constexpr ANYBIT_INLINE float decode(std::uint8_t p) { return e8m0::decode(p); }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::e8m0

namespace anybit {
inline namespace ANYBIT_ABI {

/// 2^(p - 127), p = 0 .. 254, by the rule of the specification: 2^(floor(log2 largest weight) - floor(log2 largest level)). The
/// largest weight of a group lies between the largest level's power of two and twice that, so it may be clipped, by 1/4 at most
/// for E2M1 (levels to 6) and 1/8 for E4M3 (to 448). Formats whose fit does not look at the largest weight (ternary, LloydMax)
/// get 2^floor(log2(1.5 scale)). A scale of 0 becomes the smallest, 2^-127.
struct ScaleE8M0 : IndependentScales<ScaleE8M0, std::uint8_t> {
  static constexpr auto name = FixedString("e8m0");
  template <class F>
  using of = e8m0::Floor<F>;
  static constexpr float largest = std::numeric_limits<float>::max();
  /// Without a format: 2^floor(log2 s).
  static constexpr ANYBIT_INLINE std::uint8_t encode(float s) {
    return s > largest ? std::uint8_t{254} : s > 0 ? e8m0::pattern(e8m0::floor_log2(static_cast<double>(s))) : std::uint8_t{0};
  }
  static constexpr ANYBIT_INLINE float decode(std::uint8_t p) { return e8m0::decode(p); }
};

/// The same bytes, with the exponent rounded up: the smallest power of two with which no weight is clipped. Errors of the many
/// small weights are up to twice those of ScaleE8M0, those of the largest smaller.
struct ScaleE8M0Up : IndependentScales<ScaleE8M0Up, std::uint8_t> {
  static constexpr auto name = FixedString("e8m0_up");
  static constexpr float largest = 0x1p127f;
  static constexpr ANYBIT_INLINE std::uint8_t encode(float s) {
    if (!(s > 0)) return 0;
    if (s > largest) return 254;
    const int exponent = e8m0::floor_log2(static_cast<double>(s));
    return e8m0::pattern(e8m0::power_of_two(exponent) < static_cast<double>(s) ? exponent + 1 : exponent);
  }
  static constexpr ANYBIT_INLINE float decode(std::uint8_t p) { return e8m0::decode(p); }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
