#pragma once
// Which formats multiply in integers, and how their codes become the unsigned bytes that integer dot products want.

#include <anybit/format/format.hpp>

namespace anybit::inline ANYBIT_ABI {

template <UniformFormat F>
constexpr std::int32_t min_int() {
  std::int32_t m = F::to_int(0);
  for (unsigned c = 1; c < (1u << F::bits); ++c) m = F::to_int(static_cast<Code>(c)) < m ? F::to_int(static_cast<Code>(c)) : m;
  return m;
}
template <UniformFormat F>
constexpr std::int32_t max_int() {
  std::int32_t m = F::to_int(0);
  for (unsigned c = 1; c < (1u << F::bits); ++c) m = F::to_int(static_cast<Code>(c)) > m ? F::to_int(static_cast<Code>(c)) : m;
  return m;
}

/// Levels of at most 8 bits that span at most 255 steps fit a byte. With a zero point the step must be 1, so that zeros
/// are whole levels.
template <class F>
constexpr bool has_integer_dot_v = false;
template <UniformFormat F>
  requires(F::bits <= 8)
constexpr bool has_integer_dot_v<F> = max_int<F>() - min_int<F>() <= 255 && (!has_zero_point_v<F> || F::step == 1.0f);

/// How a code c maps to the byte u = to_int(c) - min_int, found from the format's own levels.
enum class LevelMap {
  identity,        ///< u = c
  flip_sign_bit,   ///< two's complement: u = c ^ 2^(bits-1)
  sign_magnitude,  ///< u = max + magnitude or max - magnitude
  table,           ///< anything else
};

template <UniformFormat F>
constexpr LevelMap level_map() {
  constexpr int half = 1 << (F::bits - 1);
  bool identity = true, flip = true, magnitude = true;
  for (int c = 0; c < (1 << F::bits); ++c) {
    const int u = F::to_int(static_cast<Code>(c)) - min_int<F>();
    identity = identity && u == c;
    flip = flip && u == (c ^ half);
    magnitude = magnitude && u == (c & half ? half - 1 - (c & (half - 1)) : half - 1 + (c & (half - 1)));
  }
  return identity ? LevelMap::identity : flip ? LevelMap::flip_sign_bit : magnitude ? LevelMap::sign_magnitude : LevelMap::table;
}

/// u of one code.
template <UniformFormat F>
  requires(has_integer_dot_v<F>)
constexpr ANYBIT_INLINE std::uint8_t level_byte(std::uint8_t c) {
  constexpr LevelMap map = level_map<F>();
  constexpr unsigned half = 1u << (F::bits - 1), mask = half - 1;
  if constexpr (map == LevelMap::identity) return c;
  if constexpr (map == LevelMap::flip_sign_bit) return static_cast<std::uint8_t>(c ^ half);
  if constexpr (map == LevelMap::sign_magnitude) {
    const auto m = static_cast<std::uint8_t>(c & mask);
    return (c & half) != 0 ? static_cast<std::uint8_t>(mask - m) : static_cast<std::uint8_t>(mask + m);
  }
  return static_cast<std::uint8_t>(F::to_int(c) - min_int<F>());
}

}  // namespace anybit::inline ANYBIT_ABI
