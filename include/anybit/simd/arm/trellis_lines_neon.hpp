#pragma once
// 64 states of a trellis code with a linear codebook to bytes, with NEON.

#include <anybit/core/macros_begin.hpp>

#include <anybit/core/isa.hpp>

#if ANYBIT_HAS_NEON
#define ANYBIT_SIMD_ARM_TRELLIS_LINES_NEON 1

#include <arm_neon.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include <anybit/simd/linear_codebook.hpp>

namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// line(tile, q): bytes 64 q .. 64 q + 63 of a tile in the order of steps, level + 128 each.
template <int L, int K, class Book>
struct TrellisLinesNeon {
  using Tables = LinearTables<L, Book>;
  static constexpr bool usable = eight_in_a_word<L, K> && Tables::symmetric;

  struct Line {
    uint8x16_t quarters[4];
  };

  static ANYBIT_INLINE Line line(const std::byte* tile, Index q) {
    Line out;
#pragma GCC unroll 4
    for (Index part = 0; part < 4; ++part) {
      const uint8x16_t a = states(tile, q, 2 * part), b = states(tile, q, 2 * part + 1);
      uint8x16_t index = mapped<0>(vuzp1q_u8(a, b));
      if constexpr (L > 8) index = veorq_u8(index, mapped<2>(vuzp2q_u8(a, b)));
      out.quarters[part] = levels(index);
    }
    return out;
  }

 private:
  /// Eight states of 16 bits: those of word i.
  static ANYBIT_INLINE uint8x16_t states(const std::byte* tile, Index q, Index i) {
    const uint8x16_t word = vreinterpretq_u8_u64(vdupq_n_u64(bits_of_eight<K>(tile, q, i)));
    const auto four = [&](std::size_t first) __attribute__((always_inline)) {
      const uint8x16_t bytes = vqtbl1q_u8(word, vld1q_u8(bytes_of.data() + 4 * first));
      return vreinterpretq_u16_u32(vshlq_u32(vreinterpretq_u32_u8(bytes), vld1q_s32(left.data() + first)));
    };
    return vreinterpretq_u8_u16(vuzp1q_u16(four(0), four(4)));
  }
  /// A byte's two nibbles, number `first` and the next one of the state, into the index.
  template <std::size_t first>
  static ANYBIT_INLINE uint8x16_t mapped(uint8x16_t bytes) {
    const uint8x16_t low = vqtbl1q_u8(vld1q_u8(Tables::nibbles[first].data()), vandq_u8(bytes, vdupq_n_u8(15)));
    if constexpr (4 * (first + 1) >= L) return low;
    return veorq_u8(low, vqtbl1q_u8(vld1q_u8(Tables::nibbles[first + 1].data()), vshrq_n_u8(bytes, 4)));
  }
  static ANYBIT_INLINE uint8x16_t levels(uint8x16_t index) {
    const auto part = [](std::size_t i) __attribute__((always_inline)) {
      const std::uint8_t* const p = Tables::upper.data() + 64 * i;
      return uint8x16x4_t{{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
    };
    const uint8x16_t at = vandq_u8(index, vdupq_n_u8(127));
    // Look-ups beyond a table give 0, or keep what is there.
    const uint8x16_t level = vqtbx4q_u8(vqtbl4q_u8(part(0), at), part(1), vsubq_u8(at, vdupq_n_u8(64)));
    const uint8x16_t minus = vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(index), 7));
    return vsubq_u8(veorq_u8(level, minus), minus);
  }
  alignas(16) static constexpr std::array<std::uint8_t, 32> bytes_of = [] {
    std::array<std::uint8_t, 32> b{};
    for (int i = 0; i < 32; ++i)
      b[static_cast<std::size_t>(i)] = i % 4 == 3 ? 255 : static_cast<std::uint8_t>(first_byte<K>(i / 4) + i % 4);
    return b;
  }();
  /// Shifts to the left, so negative.
  alignas(16) static constexpr std::array<std::int32_t, 8> left = [] {
    std::array<std::int32_t, 8> b{};
    for (int m = 0; m < 8; ++m) b[static_cast<std::size_t>(m)] = -first_bit<K>(m);
    return b;
  }();
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd

#endif  // ANYBIT_HAS_NEON

#include <anybit/core/macros_end.hpp>
