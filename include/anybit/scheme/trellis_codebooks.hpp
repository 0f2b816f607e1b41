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

/// Levels of the normal distribution, chosen by a linear code: bit i of the state exchanges the bits hash[i] of an index into 256
/// levels. Good convolutional codes have this form; the columns were searched for, among 300 sets, by their error on normal
/// weights at 2 to 4 bits with 12 bits of state, and four more of 40 for states of 13 to 16 bits. Level i is q + 0.015 q^3 of the
/// quantile q of (i + 1/2) / 256, in units that make the largest 127: -127 to 127, standard deviation 40.7.
struct Quantiles {
  static constexpr auto name = FixedString("quantiles");
  static constexpr std::array<std::uint8_t, 16> hash{0xfe, 0xaf, 0x9f, 0xf4, 0xeb, 0x2e, 0xe7, 0x07,
                                                     0xa3, 0xb1, 0x95, 0x41, 0x27, 0x4f, 0xfa, 0x2f};
  static constexpr std::array<std::int8_t, 256> levels = [] {
    constexpr std::int8_t upper[128]{0,  1,  1,  1,  2,  2,  2,  3,  3,  4,  4,  4,  5,  5,  6,  6,  6,   7,  7,  8,  8,  8,
                                     9,  9,  9,  10, 10, 11, 11, 11, 12, 12, 13, 13, 14, 14, 14, 15, 15,  16, 16, 16, 17, 17,
                                     18, 18, 19, 19, 19, 20, 20, 21, 21, 22, 22, 23, 23, 23, 24, 24, 25,  25, 26, 26, 27, 27,
                                     28, 28, 29, 29, 30, 30, 31, 31, 32, 33, 33, 34, 34, 35, 35, 36, 37,  37, 38, 38, 39, 40,
                                     40, 41, 42, 43, 43, 44, 45, 46, 46, 47, 48, 49, 50, 51, 51, 52, 53,  54, 55, 57, 58, 59,
                                     60, 61, 63, 64, 66, 67, 69, 71, 73, 75, 78, 81, 84, 88, 93, 99, 108, 127};
    std::array<std::int8_t, 256> all{};
    for (std::size_t i = 0; i < 128; ++i) all[128 + i] = upper[i], all[127 - i] = static_cast<std::int8_t>(-upper[i]);
    return all;
  }();
  static constexpr int value(std::uint32_t state) {
    std::uint32_t index = 0;
    for (std::size_t i = 0; i < 16; ++i)
      if ((state >> i & 1) != 0) index ^= hash[i];
    return levels[index];
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
