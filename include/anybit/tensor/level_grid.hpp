#pragma once
// Formats that multiply in integers, and the unsigned bytes of their codes for integer dot products.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <span>

#include <anybit/format/format.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Levels as whole multiples of a step, from step * lowest to step * highest. A step of 0 says that there is no such grid.
struct LevelGrid {
  float step = 0;
  std::int32_t lowest = 0, highest = 0;

  constexpr ANYBIT_INLINE std::int32_t span() const { return highest - lowest; }
  /// The multiple nearest to a finite level.
  constexpr ANYBIT_INLINE std::int32_t nearest(float level) const {
    const double steps = static_cast<double>(level) / static_cast<double>(step);
    return static_cast<std::int32_t>(steps < 0 ? steps - 0.5 : steps + 0.5);
  }
};

/// The widest grid of which every level is a multiple, up to `error` times the largest |level|. Its span is at most 255
/// steps, so that steps above the lowest fit a byte.
constexpr ANYBIT_INLINE LevelGrid find_grid(std::span<const float> levels, float error) {
  float most = 0;
  for (const float v : levels) {
    const float a = v < 0 ? -v : v;
    if (!(a <= std::numeric_limits<float>::max())) return {};
    if (a > most) most = a;
  }
  if (most == 0) return {1, 0, 0};
  for (int parts = 1; parts <= 255; ++parts) {
    LevelGrid grid{most / static_cast<float>(parts), 0, 0};
    bool fits = grid.step > 0;
    for (std::size_t i = 0; fits && i < levels.size(); ++i) {
      const std::int32_t n = grid.nearest(levels[i]);
      const double off = static_cast<double>(n) * static_cast<double>(grid.step) - static_cast<double>(levels[i]);
      fits = (off < 0 ? -off : off) <= static_cast<double>(error) * static_cast<double>(most);
      grid.lowest = std::min(grid.lowest, n), grid.highest = std::max(grid.highest, n);
    }
    if (fits && grid.span() <= 255) return grid;
  }
  return {};
}

/// The grid of a format's own codes. Codes that encode() never gives (code_count) do not count: should a file hold one, the
/// integer kernels read it as some level or other. Codebooks and minifloats have one if all levels are multiples of a step, up to
/// the rounding of a float: E2M1's are whole halves from -12 to 12.
template <Format F>
constexpr LevelGrid level_grid() {
  if constexpr (UniformFormat<F>) {
    LevelGrid r{F::step, F::to_int(0), F::to_int(0)};
    for (int c = 1; c < code_count_v<F>; ++c) {
      const std::int32_t v = F::to_int(static_cast<Code>(c));
      r.lowest = std::min(r.lowest, v), r.highest = std::max(r.highest, v);
    }
    return r;
  } else if constexpr (F::bits <= 8 && !has_zero_point_v<F>) {
    return find_grid(std::span(decode_table_v<F>).first(static_cast<std::size_t>(code_count_v<F>)), 0x1p-24f);
  } else {
    return {};
  }
}
template <Format F>
inline constexpr LevelGrid level_grid_v = level_grid<F>();

/// With a zero point the step must be 1, so that zeros are whole levels.
template <class F>
constexpr bool has_integer_dot_v = false;
template <Format F>
  requires(F::bits <= 8)
constexpr bool has_integer_dot_v<F> =
    level_grid_v<F>.step != 0 && level_grid_v<F>.span() <= 255 && (!has_zero_point_v<F> || level_grid_v<F>.step == 1.0f);

/// Bits that the byte u = level / step - lowest takes: at times more than the code, where levels leave steps out.
template <Format F>
inline constexpr int level_bits_v = std::max(1, static_cast<int>(std::bit_width(static_cast<unsigned>(level_grid_v<F>.span()))));

/// How a code c maps to the byte u = level / step - lowest, found from the format's own levels.
enum class LevelMap {
  identity,        ///< u = c
  flip_sign_bit,   ///< two's complement: u = c ^ 2^(bits-1)
  sign_magnitude,  ///< u = max + magnitude or max - magnitude
  table,           ///< anything else
};

namespace detail {
template <Format F>
constexpr std::uint8_t level_byte_of(Code c) {
  if constexpr (UniformFormat<F>) return static_cast<std::uint8_t>(F::to_int(c) - level_grid_v<F>.lowest);
  if (static_cast<int>(c) >= code_count_v<F>) return 0;
  return static_cast<std::uint8_t>(level_grid_v<F>.nearest(F::decode(c)) - level_grid_v<F>.lowest);
}
}  // namespace detail

template <Format F>
constexpr LevelMap level_map() {
  constexpr int half = 1 << (F::bits - 1);
  bool identity = true, flip = true, magnitude = true;
  for (int c = 0; c < code_count_v<F>; ++c) {
    const int u = detail::level_byte_of<F>(static_cast<Code>(c));
    identity = identity && u == c;
    flip = flip && u == (c ^ half);
    magnitude = magnitude && u == (c & half ? half - 1 - (c & (half - 1)) : half - 1 + (c & (half - 1)));
  }
  return identity ? LevelMap::identity : flip ? LevelMap::flip_sign_bit : magnitude ? LevelMap::sign_magnitude : LevelMap::table;
}

/// u of one code.
template <Format F>
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
  return detail::level_byte_of<F>(c);
}

/// Every u is a multiple of 2^level_shift_v, as where all levels are odd: -1 and 1, or -3, -1, 1, 3.
template <Format F>
  requires(has_integer_dot_v<F>)
inline constexpr int level_shift_v = [] {
  unsigned any = 0;
  for (int c = 0; c < code_count_v<F>; ++c) any |= level_byte<F>(static_cast<std::uint8_t>(c));
  return any == 0 ? 0 : std::countr_zero(any);
}();

/// Bytes that a table look-up reads: entry c belongs to code c, those past the codes are 0.
struct alignas(64) ByteTable {
  std::array<std::uint8_t, 256> bytes{};
};

/// level_byte of every code.
template <Format F>
  requires(has_integer_dot_v<F>)
inline constexpr ByteTable level_bytes_v = [] {
  ByteTable table;
  for (std::size_t c = 0; c < (std::size_t{1} << F::bits); ++c) table.bytes[c] = level_byte<F>(static_cast<std::uint8_t>(c));
  return table;
}();

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
