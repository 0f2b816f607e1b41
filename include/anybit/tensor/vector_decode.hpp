#pragma once
// Codes to levels, one vector at a time. The policy follows from the format's properties, so that a format of
// a user is vectorized, too.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <bit>
#include <limits>
#include <string_view>

#include <anybit/format/format.hpp>
#include <anybit/simd/byte_table.hpp>
#include <anybit/simd/xsimd_compat.hpp>
#include <anybit/tensor/level_grid.hpp>

namespace anybit::decoding {
inline namespace ANYBIT_CODE {

/// Formats whose codes are a sign bit over bits that shift into a float's exponent and mantissa: level =
/// +-float_from_bits(magnitude << shift) * scale. Every minifloat is of this kind; its codes for infinity and NaN, if any,
/// are the highest magnitudes. That float may be subnormal, which some processors multiply very slowly and others, told to flush
/// subnormals, as 0.
/// So `scale`, at least 2, goes into the exponent before the bits become a float.
struct FloatShift {
  bool fits = false;
  int shift = 0;
  float scale = 0;
  unsigned finite = 0, infinite = 0;  ///< magnitudes below `finite` are numbers, those below `infinite` infinity, then NaN

  /// Added to the bits magnitude << shift, which multiplies by scale: (1 + f) 2^e, the level unless the exponent's field is 0.
  constexpr std::uint32_t normal() const { return std::bit_cast<std::uint32_t>(scale) - (127u << 23); }
  /// Added likewise: 2 (1 + f) 2^e. Less the 2 (1 + 0) 2^e of field 0 that is the level if the field is 0, and else not below it.
  /// So the lesser of the two is right, and but for 0 no number on the way there is subnormal.
  constexpr std::uint32_t twice() const { return normal() + (1u << 23); }
};
template <Format F>
constexpr FloatShift float_shift() {
  if constexpr (F::bits < 3 || F::bits > 8) {
    return {};
  } else {
    constexpr float inf = std::numeric_limits<float>::infinity();
    constexpr unsigned sign = 1u << (F::bits - 1), one = sign >> 1;
    const auto level = [](unsigned c) { return F::decode(static_cast<Code>(c)); };
    FloatShift s;
    for (s.finite = 0; s.finite < sign && level(s.finite) < inf && level(s.finite) > -inf;) ++s.finite;
    for (s.infinite = s.finite; s.infinite < sign && level(s.infinite) == inf;) ++s.infinite;
    for (int mantissa = 0; mantissa < F::bits - 1 && one < s.finite; ++mantissa) {
      s.shift = 23 - mantissa;
      // A normal number of both fixes the scale, a power of two, if this is the right number of mantissa bits.
      const std::uint32_t from = one << s.shift, to = std::bit_cast<std::uint32_t>(level(one));
      const std::uint32_t scale = to - from + (127u << 23);
      if (to >> 31 || (scale & 0x7FFFFFu) != 0 || scale < (128u << 23) || scale >= (255u << 23)) continue;
      if ((std::uint64_t{sign - 1} << s.shift) + (scale - (127u << 23)) + (1u << 23) >= (255u << 23)) continue;
      s.scale = std::bit_cast<float>(scale);
      s.fits = true;
      for (unsigned m = 0; m < sign && s.fits; ++m) {
        const float v = level(m), negative = level(m | sign), expected = std::bit_cast<float>(m << s.shift) * s.scale;
        if (m < s.finite)
          s.fits = v == expected && negative == -expected;
        else if (m < s.infinite)
          s.fits = v == inf && negative == -inf;
        else
          s.fits = v != v && negative != negative;
      }
      if (s.fits) return s;
    }
    return {};
  }
}
template <Format F>
inline constexpr FloatShift float_shift_v = float_shift<F>();

/// Levels as tables of bytes, for whoever has no other place for a format's meaning than a table.
template <Format F>
  requires(F::bits <= 8)
struct ByteTables {
  static constexpr std::size_t codes = std::size_t{1} << F::bits;
  /// Whether every level is a bfloat16 number, and of 8 bits the upper half of the codes the negative of the lower.
  bool bf16 = true;
  std::array<std::uint8_t, codes> high{}, low{};
  constexpr ByteTables() {
    for (std::size_t c = 0; c < codes; ++c) {
      const auto bits = std::bit_cast<std::uint32_t>(F::decode(static_cast<Code>(c)));
      high[c] = static_cast<std::uint8_t>(bits >> 24);
      low[c] = static_cast<std::uint8_t>(bits >> 16 & 0xFF);
      const bool nan = (bits & 0x7FFFFFFF) > 0x7F800000;
      bf16 = bf16 && (bits & 0xFFFF) == 0;
      if (F::bits == 8 && c >= 128) {
        const bool nan_too = (high[c - 128] & 0x7F) == 0x7F && low[c - 128] > 0x80;
        bf16 = bf16 && (nan ? nan_too : (high[c] == (high[c - 128] | 0x80) && high[c - 128] < 0x80 && low[c] == low[c - 128]));
      }
    }
  }
};
template <Format F>
inline constexpr ByteTables<F> byte_tables_v{};

/// Levels that tables of bytes have turned codes into before they are needed: for products of one token, which decode every code
/// for itself, where that is faster than Levels. Levels that are bfloat16 numbers take two tables, others four.
template <Format F>
class LookedUpLevels {
  static constexpr bool looked_up = F::bits >= 5 && F::bits <= 8 && !UniformFormat<F> && !has_zero_point_v<F>;
  static constexpr bool halves = [] {
#if defined(ANYBIT_LOOK_UP_PAIRS)
    if constexpr (looked_up) return byte_tables_v<F>.bf16 && (simd::width == 16 || F::bits <= 6);
#endif
    return false;
  }();
  static constexpr bool words = [] {
#if defined(ANYBIT_LOOK_UP_WORDS)
    if constexpr (looked_up) return !halves && F::bits >= 6 && !float_shift_v<F>.fits;
#endif
    return false;
  }();

 public:
  static constexpr bool fit = halves || words;
  static constexpr float factor = 1;
  /// A level, or the upper half of one.
  using element = std::conditional_t<halves, std::uint16_t, float>;

  /// Codes to elements, up to round_up(n, 64) of them.
  static ANYBIT_INLINE void prepare(const std::uint8_t* codes, Index n, element* out) {
    alignas(64) static constexpr auto tables = [] {
      std::array<std::array<std::uint8_t, 256>, 4> t{};
      for (std::size_t c = 0; c < std::size_t{1} << F::bits; ++c)
        for (std::size_t b = 0; b < 4; ++b)
          t[b][c] = static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(F::decode(static_cast<Code>(c))) >> (8 * b));
      return t;
    }();
#if defined(ANYBIT_LOOK_UP_PAIRS)
    if constexpr (halves) simd::look_up_pairs<F::bits, F::bits == 8>(tables[2].data(), tables[3].data(), codes, n, out);
#endif
#if defined(ANYBIT_LOOK_UP_WORDS)
    if constexpr (words) simd::look_up_words<F::bits>(tables, codes, n, out);
#endif
  }
  ANYBIT_INLINE simd::f32 operator()(const element* p) const {
    if constexpr (halves)
      return simd::load_bf16(p);
    else
      return simd::load(p);
  }
};

/// Levels of `simd::width` codes at once, over a common factor, equal to F::decode but for the sign of zero. First prepare() the
/// codes: some formats have a step that is cheaper on bytes. Where that finds no infinity or NaN, Specials = false is enough.
template <Format F, bool Specials = true>
class Levels {
  using code = code_t<F>;

  static constexpr int bits = F::bits;
  static constexpr unsigned half = 1u << (bits - 1);
  enum class How { signed_bytes, unsigned_bytes, shift, table, scalar };
  static constexpr How choose() {
    if constexpr (bits > 8)
      return How::scalar;
    else if constexpr (UniformFormat<F> && has_integer_dot_v<F>) {
      if (level_map<F>() != LevelMap::table)
        return level_grid_v<F>.lowest >= -128 && level_grid_v<F>.highest <= 127 ? How::signed_bytes : How::unsigned_bytes;
    }
    return bits > 4 && float_shift_v<F>.fits ? How::shift : How::table;
  }
  static constexpr How how = choose();

 public:
  /// How, for people and tests.
  static constexpr std::string_view name = how == How::signed_bytes || how == How::unsigned_bytes ? "converts integers"
                                           : how == How::shift                                    ? "shifts exponent and mantissa"
                                           : how == How::table                                    ? "looks levels up"
                                                               : "calls decode() for each code";
  /// Whether there are infinities or NaN that cost extra instructions.
  static constexpr bool has_specials = how == How::shift && float_shift_v<F>.finite < half;

  /// In place; up to round_up(n, 64) codes may be read and written. True if a minifloat's special value is among them.
  static ANYBIT_INLINE bool prepare(code* codes, Index n) {
    bool special = false;
    if constexpr (has_specials) {
      std::uint8_t found = 0;
      for (Index i = 0; i < n; i += 64)
        for (Index j = 0; j < 64; ++j)
          found = static_cast<std::uint8_t>(found | ((codes[i + j] & (half - 1)) >= float_shift_v<F>.finite));
      special = found != 0;
    }
    if constexpr (how == How::signed_bytes || how == How::unsigned_bytes) {
      constexpr int lowest = how == How::signed_bytes ? level_grid_v<F>.lowest : 0;
      if constexpr (lowest != 0 || level_map<F>() != LevelMap::identity)
        if constexpr (bits < 8 || level_map<F>() != LevelMap::flip_sign_bit)
          in_place(codes, n, [](code c) { return static_cast<code>(level_byte<F>(c) + lowest); });
    } else if constexpr (how == How::shift && bits < 8) {
      in_place(codes, n, [](code c) { return static_cast<code>(c << (8 - bits)); });
    }
    return special;
  }

  /// What the scale is to be multiplied with, so that vectors need not be: level = factor * (what operator() gives). A power
  /// of two, so nothing is rounded as long as scale * factor is not subnormal.
  static constexpr float factor = [] {
    if constexpr (how == How::signed_bytes && !has_zero_point_v<F>)
      if ((std::bit_cast<std::uint32_t>(static_cast<float>(F::step)) & 0x7FFFFFu) == 0) return static_cast<float>(F::step);
    return 1.0f;
  }();

  ANYBIT_INLINE simd::f32 operator()(const code* p) const {
    if constexpr (how == How::signed_bytes) {
      return stepped(simd::load_f32(reinterpret_cast<const std::int8_t*>(p)));
    } else if constexpr (how == How::unsigned_bytes) {
      return stepped(simd::load_f32(p) + simd::broadcast(static_cast<float>(level_grid_v<F>.lowest)));
    } else if constexpr (how == How::shift) {
      constexpr FloatShift s = float_shift_v<F>;
      constexpr std::uint32_t mask = (half - 1) << s.shift;
      const simd::u32 c = simd::as_u32(simd::load_i32(reinterpret_cast<const std::int8_t*>(p)));  // the sign fills the upper bits
      const simd::u32 magnitude = simd::shift_left(c, s.shift - (8 - bits)) & simd::broadcast(mask);
      const simd::f32 normal = simd::as_f32(magnitude + simd::broadcast(s.normal())),
                      twice = simd::as_f32(magnitude + simd::broadcast(s.twice()));
      const simd::f32 level = simd::min(normal, twice - simd::broadcast(std::bit_cast<float>(s.twice())));
      simd::f32 v = simd::as_f32(simd::as_u32(level) | (c & simd::broadcast(std::uint32_t{0x80000000u})));
      if constexpr (Specials && has_specials) {
        const simd::f32 largest = simd::broadcast(F::decode(static_cast<Code>(s.finite - 1)));
        const simd::f32 raw = simd::abs(v), nan = simd::broadcast(std::numeric_limits<float>::quiet_NaN());
        if constexpr (s.infinite > s.finite) {
          constexpr float infinite = std::bit_cast<float>((s.infinite - 1) << s.shift) * s.scale;
          const simd::f32 special = simd::select_greater(raw, simd::broadcast(infinite), nan,
                                                         v * simd::broadcast(std::numeric_limits<float>::infinity()));
          v = simd::select_greater(raw, largest, special, v);
        } else {
          v = simd::select_greater(raw, largest, nan, v);
        }
      }
      return v;
    } else if constexpr (how == How::table) {
      return table_[simd::load_i32(p)];
    } else {
      float levels[static_cast<std::size_t>(simd::width)];
      for (Index i = 0; i < simd::width; ++i) levels[i] = F::decode(p[i]);
      return simd::load(levels);
    }
  }

 private:
  /// Constant inner length: compilers vectorize it at -O2 too.
  template <class Map>
  static ANYBIT_INLINE void in_place(code* codes, Index n, Map map) {
    for (Index i = 0; i < n; i += 64)
      for (Index j = 0; j < 64; ++j) codes[i + j] = map(codes[i + j]);
  }
  static ANYBIT_INLINE simd::f32 stepped(simd::f32 v) {
    if constexpr (F::step == factor)
      return v;
    else
      return v * simd::broadcast(static_cast<float>(F::step));
  }

  struct Nothing {
    explicit ANYBIT_INLINE Nothing(const float*) {}
  };
  static constexpr const float* table_values() {
    if constexpr (how == How::table)
      return decode_table_v<F>.data();
    else
      return nullptr;
  }
  std::conditional_t<how == How::table, simd::Table<(how == How::table ? 1 << bits : 2)>, Nothing> table_{table_values()};
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::decoding

#include <anybit/core/macros_end.hpp>
