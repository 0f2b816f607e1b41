#pragma once
// A linear codebook as tables for look-ups of bytes: nibbles of the state into an index, the index into half of the levels.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <anybit/core/types.hpp>

namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// Of levels that are each other's negatives half the table is enough: the index of a lower one becomes that of its counterpart,
/// and its upper bit says which. 128 - level is minus (128 + level) in 8 bits.
template <int L, class Book>
struct LinearTables {
  static constexpr bool symmetric = [] {
    bool all = true;
    for (std::size_t i = 0; i < 128; ++i) all = all && Book::levels[i] == -Book::levels[255 - i];
    return all;
  }();
  /// The bits of the index that a bit of the state exchanges; with the upper one of symmetric levels all others.
  static constexpr unsigned exchanged(unsigned column) { return symmetric && column >= 128 ? column ^ 127u : column; }
  /// The index of state 0.
  static constexpr unsigned zero = symmetric ? 255 : 0;
  /// What the nibbles of a state, from the lowest on, exchange; bits from L on exchange nothing. The first one brings `zero`.
  alignas(64) static constexpr std::array<std::array<std::uint8_t, 16>, 4> nibbles = [] {
    std::array<std::array<std::uint8_t, 16>, 4> t{};
    for (std::size_t n = 0; n < 4; ++n)
      for (std::size_t v = 0; v < 16; ++v) {
        unsigned index = n == 0 ? zero : 0;
        for (std::size_t i = 0; i < 4 && 4 * n + i < L; ++i)
          if ((v >> i & 1) != 0) index ^= exchanged(Book::hash[4 * n + i]);
        t[n][v] = static_cast<std::uint8_t>(index);
      }
    return t;
  }();
  /// level + 128 of the upper half of symmetric levels.
  alignas(64) static constexpr std::array<std::uint8_t, 128> upper = [] {
    std::array<std::uint8_t, 128> t{};
    for (std::size_t i = 0; i < 128; ++i) t[i] = static_cast<std::uint8_t>(Book::levels[128 + i] + 128);
    return t;
  }();
};

/// The bits of eight successive steps of a tile of 256, the last step's lowest, and those before them: steps 64 q + 8 i .. + 7 of
/// BitshiftTrellis<L, K>. Nothing beyond the tile is read.
template <int K>
ANYBIT_INLINE std::uint64_t bits_of_eight(const std::byte* tile, Index q, Index i) {
  constexpr Index tile_bytes = 32 * K;
  const auto word = [](const std::byte* p) __attribute__((always_inline)) {
    std::uint64_t w;
    std::memcpy(&w, p, sizeof w);
    return w;
  };
  const Index first = K * (8 * (3 - q) + 7 - i), there = tile_bytes - first;
  if (there >= 8) return word(tile + first);
  return word(tile + tile_bytes - 8) >> (64 - 8 * there) | word(tile) << (8 * there);
}
/// The byte of such a word from which the state of step m = 0 .. 7 begins, and its bit there.
template <int K>
constexpr int first_byte(int m) {
  return (7 - m) * K / 8;
}
template <int K>
constexpr int first_bit(int m) {
  return (7 - m) * K % 8;
}
/// Whether a word holds all bits of the eight states.
template <int L, int K>
inline constexpr bool eight_in_a_word = 7 * K + L <= 64;

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd

#include <anybit/core/macros_end.hpp>
