#pragma once
// Scales of one byte with a mantissa.

#include <bit>
#include <cstdint>

#include <anybit/core/fixed_string.hpp>
#include <anybit/core/types.hpp>
#include <anybit/scheme/scale_store.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// The upper bits of binary16, without a sign: 0 and 2^-17 to 61440, 3 bits of mantissa. A scale goes to the nearest, at most
/// 1/17 away from 2^-14 on, below which steps are 2^-17; what is larger than the largest saturates, also in bytes from elsewhere.
/// Weights are encoded on the scale as stored, so a coarse scale costs little, while the byte saved buys smaller groups.
struct ScaleE5M3 : IndependentScales<ScaleE5M3, std::uint8_t> {
  static constexpr auto name = FixedString("e5m3");
  static constexpr bool binary16 = true;
  static constexpr std::uint8_t largest_code = 247;  ///< all above would be infinite or no number in binary16
  static constexpr float largest = 61440;

  static constexpr ANYBIT_INLINE std::uint8_t encode(float s) {
    if (!(s > 0)) return 0;
    if (s >= largest) return largest_code;
    if (s < 0x1p-14f) {  // steps of 2^-17, halves to even; 8 of them are the first number with a leading one
      const float steps = s * 0x1p17f, whole = static_cast<float>(static_cast<int>(steps)), rest = steps - whole;
      const int low = static_cast<int>(whole);
      return static_cast<std::uint8_t>(low + (rest > 0.5f || (rest == 0.5f && low % 2 == 1) ? 1 : 0));
    }
    const auto bits = std::bit_cast<std::uint32_t>(s);
    const std::uint32_t rounded = (bits + 0x7FFFF + (bits >> 20 & 1)) >> 20;
    return static_cast<std::uint8_t>(rounded - (112u << 3));
  }
  static constexpr ANYBIT_INLINE float decode(std::uint8_t p) {
    if (p < 8) return static_cast<float>(p) * 0x1p-17f;
    return std::bit_cast<float>((static_cast<std::uint32_t>(p < largest_code ? p : largest_code) << 20) + (112u << 23));
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
