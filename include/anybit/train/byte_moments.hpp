#pragma once
// Running moments of gradients in one byte per value. A block of 256 values shares a float, its largest magnitude m; a code is
// the upper bits of x = |value| / m in binary32, 3 of its mantissa. The largest code is 1 and codes are 1/8 of an octave apart or
// less:
//
//   first moments    sign and 7 bits: 0 and 2^-15.75 <= x <= 1       second moments   8 bits: 0 and 2^-31.75 <= x <= 1
//
// Rounding is stochastic: averages keep growing by steps that are smaller than a code's, which rounding to nearest would swallow.
// (Block-wise 8-bit states: Dettmers et al., arXiv:2110.02861, with another code.)

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include <anybit/core/types.hpp>

namespace anybit::train {
inline namespace ANYBIT_ABI {

namespace byte_moments {

inline constexpr Index block = 256;

namespace detail {
inline constexpr int dropped_bits = 20;  ///< of binary32's mantissa

/// x in [0, 1] to a code up to `largest`; 20 random bits decide between the two neighbours. Below the smallest, that or 0.
constexpr ANYBIT_INLINE std::uint32_t encode(float x, std::uint32_t largest, std::uint32_t random) {
  constexpr std::uint32_t one = std::bit_cast<std::uint32_t>(1.0f) >> dropped_bits;
  const std::uint32_t base = one - largest;                                  // upper bits of the number that would be code 0
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFu;  // of -0 those of 0
  if (bits >> dropped_bits <= base) {
    const float smallest = std::bit_cast<float>((base + 1) << dropped_bits);
    return x > smallest * (static_cast<float>(random) * 0x1p-20f) ? 1 : 0;
  }
  return std::min((bits + random) >> dropped_bits, one) - base;
}
constexpr ANYBIT_INLINE float decode(std::uint32_t code, std::uint32_t largest) {
  constexpr std::uint32_t one = std::bit_cast<std::uint32_t>(1.0f) >> dropped_bits;
  return code == 0 ? 0.0f : std::bit_cast<float>((code + one - largest) << dropped_bits);
}
}  // namespace detail

/// `random`: 20 uniform bits.
constexpr ANYBIT_INLINE std::uint8_t encode_signed(float x, std::uint32_t random) {
  return static_cast<std::uint8_t>(detail::encode(x < 0 ? -x : x, 127, random) | (x < 0 ? 128u : 0u));
}
constexpr ANYBIT_INLINE float decode_signed(std::uint8_t code) {
  const float x = detail::decode(code & 127u, 127);
  return code & 128u ? -x : x;
}
/// A second moment above 0 stays above 0: it is divided by.
constexpr ANYBIT_INLINE std::uint8_t encode_unsigned(float x, std::uint32_t random) {
  return static_cast<std::uint8_t>(std::max<std::uint32_t>(detail::encode(x, 255, random), x > 0 ? 1 : 0));
}
constexpr ANYBIT_INLINE float decode_unsigned(std::uint8_t code) { return detail::decode(code, 255); }

}  // namespace byte_moments

}  // namespace ANYBIT_ABI
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
