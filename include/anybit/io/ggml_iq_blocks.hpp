#pragma once
// Values of ggml's i-quants, the same bits as ggml's own dequantize_row_*: blocks of 256 whose codes name points of a codebook.
// Products are exact in binary32, as in ggml_blocks.hpp.

#include <array>
#include <bit>
#include <cstdint>

#include <anybit/io/ggml_bytes.hpp>
#include <anybit/io/ggml_grids.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {
namespace ggml {

inline constexpr std::array<std::int8_t, 4> iq2_levels{8, 25, 43, 0};
inline constexpr std::array<std::int8_t, 8> iq3_xxs_levels{4, 12, 20, 28, 36, 44, 52, 62},
    iq3_s_levels{1, 3, 5, 7, 9, 11, 13, 15};
inline constexpr std::array<std::int8_t, 4> iq1_levels{-1, 0, 1, 0};

/// The signs of 8 values from 7 bits: the eighth makes the number of minus signs even.
constexpr int even_signs(std::uint32_t seven) {
  seven &= 127;
  return static_cast<int>(seven | static_cast<std::uint32_t>(std::popcount(seven) & 1) << 7);
}

/// y = scale * level, minus where the bit of `signs` is set; `point` holds `Bits` bits a level.
template <int Bits, int Count, std::size_t Levels>
void signed_point(const std::array<std::int8_t, Levels>& levels, std::uint16_t point, int signs, float scale, float* y) {
  for (int j = 0; j < Count; ++j) {
    const float value = scale * static_cast<float>(levels[static_cast<std::size_t>(point >> (Bits * j) & ((1 << Bits) - 1))]);
    y[j] = signs >> j & 1 ? -value : value;
  }
}

/// d, then for each 32 values four codes of a byte and a word: four times 7 bits of signs and 4 bits of scale.
inline void iq2_xxs(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int g = 0; g < 8; ++g) {
    const std::byte* const codes = b + 2 + 8 * g;
    const std::uint32_t word = u32(codes + 4);
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
    for (int k = 0; k < 4; ++k)
      signed_point<2, 8>(iq2_levels, iq2_xxs_grid[u8(codes + k)], even_signs(word >> (7 * k)), scale, y + 32 * g + 8 * k);
  }
}

/// Scale of 16 values, from 4 bits.
inline float iq2_scale(float d, const std::byte* scales, int sixteenth) {
  return d * (0.5f + static_cast<float>(u8(scales + sixteenth / 2) >> (4 * (sixteenth % 2)) & 15)) * 0.25f;
}

/// d, 32 words of 9 bits of code and 7 of signs, scales[8].
inline void iq2_xs(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int k = 0; k < 32; ++k) {
    const std::uint32_t word = u16(b + 2 + 2 * k);
    signed_point<2, 8>(iq2_levels, iq2_xs_grid[word & 511], even_signs(word >> 9), iq2_scale(d, b + 66, k / 2), y + 8 * k);
  }
}

/// d, codes[32], signs[32], two more bits of each code [8], scales[8].
inline void iq2_s(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int k = 0; k < 32; ++k) {
    const int code = u8(b + 2 + k) | (u8(b + 66 + k / 4) >> (2 * (k % 4)) & 3) << 8;
    signed_point<2, 8>(iq2_levels, iq2_s_grid[code], u8(b + 34 + k), iq2_scale(d, b + 74, k / 2), y + 8 * k);
  }
}

/// d, codes[64] of four values each, then for each 32 values a word as in iq2_xxs.
inline void iq3_xxs(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int g = 0; g < 8; ++g) {
    const std::uint32_t word = u32(b + 66 + 4 * g);
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
    for (int k = 0; k < 8; ++k)
      signed_point<3, 4>(iq3_xxs_levels, iq3_xxs_grid[u8(b + 2 + 8 * g + k)], even_signs(word >> (7 * (k / 2))) >> (4 * (k % 2)),
                         scale, y + 32 * g + 4 * k);
  }
}

/// d, codes[64] of four values each, their ninth bits [8], signs[32], scales[4] of 32 values each.
inline void iq3_s(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int k = 0; k < 64; ++k) {
    const int code = u8(b + 2 + k) | (u8(b + 66 + k / 8) >> (k % 8) & 1) << 8;
    const int scale = u8(b + 106 + k / 16) >> (4 * (k / 8 % 2)) & 15;
    signed_point<3, 4>(iq3_s_levels, iq3_s_grid[code], u8(b + 74 + k / 2) >> (4 * (k % 2)), d * static_cast<float>(1 + 2 * scale),
                       y + 4 * k);
  }
}

/// Eight values, each a level and an eighth more, or with `minus` an eighth less.
inline void iq1_point(int code, bool minus, float scale, float* y) {
  for (int j = 0; j < 8; ++j)
    y[j] = scale *
           (static_cast<float>(iq1_levels[static_cast<std::size_t>(iq1_grid[code] >> (2 * j) & 3)]) + (minus ? -0.125f : 0.125f));
}

/// d, codes[32], words[8]: of each 32 values four times 3 more bits of the code, 3 bits of scale and the sign of the eighth.
inline void iq1_s(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int k = 0; k < 32; ++k) {
    const int word = u16(b + 34 + 2 * (k / 4));
    iq1_point(u8(b + 2 + k) | (word >> (3 * (k % 4)) & 7) << 8, word >> 15 != 0, d * static_cast<float>(2 * (word >> 12 & 7) + 1),
              y + 8 * k);
  }
}

/// codes[32], [16]: 3 more bits of a code and the sign of its eighth, scales[8]: four words of four 3-bit scales of 16 values
/// and, on top, 4 bits of d each.
inline void iq1_m(const std::byte* b, float* y) {
  const std::byte* const scales = b + 48;
  int half = 0;
  for (int i = 0; i < 4; ++i) half |= u16(scales + 2 * i) >> 12 << (4 * i);
  const float d = f16_to_f32(static_cast<std::uint16_t>(half));
  for (int k = 0; k < 32; ++k) {
    const int more = u8(b + 32 + k / 2) >> (4 * (k % 2)) & 15;
    const int scale = u16(scales + 2 * (k / 8)) >> (3 * (k / 2 % 4)) & 7;
    iq1_point(u8(b + k) | (more & 7) << 8, (more & 8) != 0, d * static_cast<float>(2 * scale + 1), y + 8 * k);
  }
}

}  // namespace ggml
}  // namespace ANYBIT_CODE
}  // namespace anybit::io
