#pragma once
// Codebooks of trellis codes: hashes of the state whose values are nearly normal. Those of EXL3 (exllamav3), bit for bit, and
// some of whole numbers, for products of integers.

#include <array>
#include <cstdint>

#include <anybit/core/fixed_string.hpp>
#include <anybit/core/half.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

namespace detail {
constexpr ANYBIT_INLINE float rounded_to_f16(float x) { return f16_to_f32(f32_to_f16(x)); }
/// Two binary16 numbers of 2^-3 to 2^1, of which 12 bits of x each choose sign, exponent and fraction, added.
constexpr ANYBIT_INLINE float sum_of_halves(std::uint32_t x) {
  x = (x & 0x8fff8fffu) ^ 0x3b603b60u;
  return rounded_to_f16(f16_to_f32(static_cast<std::uint16_t>(x)) + f16_to_f32(static_cast<std::uint16_t>(x >> 16)));
}
constexpr ANYBIT_INLINE int byte_sum(std::uint32_t x) {
  return static_cast<int>((x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24));
}
}  // namespace detail

/// EXL3's first codebook, QTIP's 3INST. Standard deviation 1.2437.
struct ThreeInst {
  static constexpr auto name = FixedString("3inst");
  static constexpr std::uint32_t multiplier = 89226354u, increment = 64248484u;
  static constexpr float value(std::uint32_t state) { return detail::sum_of_halves(state * multiplier + increment); }
};
/// EXL3's second. Standard deviation 1.2441.
struct Mcg {
  static constexpr auto name = FixedString("mcg");
  static constexpr std::uint32_t multiplier = 0xCBAC1FEDu;
  static constexpr float value(std::uint32_t state) { return detail::sum_of_halves(state * multiplier); }
};
/// EXL3's third: fma(1024 + sum of bytes, 0x1eee, 0xc931) in binary16. The float product and sum are exact. Standard deviation
/// 1.0003.
struct Mul1 {
  static constexpr auto name = FixedString("mul1");
  static constexpr std::uint32_t multiplier = 0x83DCD12Du;
  static constexpr float value(std::uint32_t state) {
    return detail::rounded_to_f16(static_cast<float>(1024 + detail::byte_sum(state * multiplier)) * f16_to_f32(0x1eee) +
                                  f16_to_f32(0xc931));
  }
};
/// QTIP's 1MAD. Standard deviation 1.0001.
struct OneMad {
  static constexpr auto name = FixedString("1mad");
  static constexpr float value(std::uint32_t state) {
    return static_cast<float>(detail::byte_sum(state * 34038481u + 76625530u) - 510) / 147.800537109375f;
  }
};

/// The sum of four numbers of 6 bits, less its mean: -126 to 126, standard deviation 36.9. The numbers are the upper bits of the
/// bytes of a product, which the dot-product instructions of 8-bit integers can add, or multiply with activations, as they are:
/// then everything comes four times as large. The multiplier was chosen among 500 for its error on normal weights.
struct ByteSum {
  static constexpr auto name = FixedString("bytesum");
  static constexpr std::uint32_t multiplier = 0x23A79D4Du, mask = 0xfcfcfcfcu;
  static constexpr int offset = 126, unit = 4;
  static constexpr int value(std::uint32_t state) { return detail::byte_sum(state * multiplier & mask) / unit - offset; }
};
/// Two weights a step, each the sum of two numbers of 7 bits, less its mean: the lower two and the upper two bytes of a product.
/// -127 to 127, standard deviation 52.3. The multiplier was chosen among 25 for its error on normal weights.
struct BytePairs {
  static constexpr auto name = FixedString("bytepairs");
  static constexpr std::uint32_t multiplier = 0x2591CB4Fu, mask = 0xfefefefeu;
  static constexpr int offset = 127, unit = 2;
  static constexpr std::array<int, 2> value(std::uint32_t state) {
    const std::uint32_t x = state * multiplier & mask;
    return {static_cast<int>((x & 255) + (x >> 8 & 255)) / unit - offset,
            static_cast<int>((x >> 16 & 255) + (x >> 24)) / unit - offset};
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
