#pragma once
// Which formats multiply in integers, and how their codes become the unsigned bytes that integer dot products want.

#include <algorithm>
#include <bit>

#include <anybit/format/format.hpp>

namespace anybit::inline ANYBIT_ABI {

/// The integers of a uniform format. Codes that encode() never gives (code_count) do not count: should a file hold one, the
/// integer kernels read it as some level or other.
struct IntegerRange {
  std::int32_t lowest, highest;
};
template <UniformFormat F>
constexpr IntegerRange integer_range() {
  IntegerRange r{F::to_int(0), F::to_int(0)};
  for (int c = 1; c < code_count_v<F>; ++c) {
    const std::int32_t v = F::to_int(static_cast<Code>(c));
    r = {v < r.lowest ? v : r.lowest, v > r.highest ? v : r.highest};
  }
  return r;
}
template <UniformFormat F>
inline constexpr IntegerRange integer_range_v = integer_range<F>();

/// Levels of at most 8 bits that span at most 255 steps fit a byte. With a zero point the step must be 1, so that zeros
/// are whole levels.
template <class F>
constexpr bool has_integer_dot_v = false;
template <UniformFormat F>
  requires(F::bits <= 8)
constexpr bool has_integer_dot_v<F> =
    integer_range_v<F>.highest - integer_range_v<F>.lowest <= 255 && (!has_zero_point_v<F> || F::step == 1.0f);

/// Bits that the byte u = to_int(c) - lowest takes: at times one more than the code, where levels leave integers out.
template <UniformFormat F>
inline constexpr int level_bits_v =
    std::max(1, static_cast<int>(std::bit_width(static_cast<unsigned>(integer_range_v<F>.highest - integer_range_v<F>.lowest))));

/// How a code c maps to the byte u = to_int(c) - lowest, found from the format's own levels.
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
  for (int c = 0; c < code_count_v<F>; ++c) {
    const int u = F::to_int(static_cast<Code>(c)) - integer_range_v<F>.lowest;
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
  return static_cast<std::uint8_t>(F::to_int(c) - integer_range_v<F>.lowest);
}

}  // namespace anybit::inline ANYBIT_ABI
