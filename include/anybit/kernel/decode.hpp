#pragma once
// Codes to levels, a vector at a time. The policy follows from the format's own properties, so that a format which
// nobody wrote a kernel for gets a vectorized one.

#include <anybit/format/format.hpp>
#include <anybit/kernel/integer_levels.hpp>
#include <anybit/simd/xsimd_compat.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

/// Formats whose codes are a sign bit over bits that shift into a float's exponent and mantissa: level =
/// +-float_from_bits(magnitude << shift) * scale. Every minifloat without special values is of this kind.
struct FloatShift {
  bool fits = false;
  int shift = 0;
  float scale = 0;
};
template <Format F>
constexpr FloatShift float_shift() {
  if constexpr (F::bits < 3 || F::bits > 8) return {};
  else {
    constexpr unsigned sign = 1u << (F::bits - 1);
    for (int mantissa = 0; mantissa < F::bits - 1; ++mantissa) {
      FloatShift s{true, 23 - mantissa, 0};
      // Codes 0 .. sign-1 become floats with exponent field 0 .. 2^E - 1, a power of two away from the levels.
      const float first = std::bit_cast<float>((sign >> 1) << s.shift), level = F::decode(static_cast<Code>(sign >> 1));
      if (!(first > 0) || !(level > 0) || !(level < 3e38f)) continue;
      const std::uint32_t ratio_bits = std::bit_cast<std::uint32_t>(level), first_bits = std::bit_cast<std::uint32_t>(first);
      if ((ratio_bits & 0x7FFFFFu) != (first_bits & 0x7FFFFFu)) continue;
      const int exponent = static_cast<int>(ratio_bits >> 23) - static_cast<int>(first_bits >> 23) + 127;
      if (exponent < 1 || exponent > 254) continue;
      s.scale = std::bit_cast<float>(static_cast<std::uint32_t>(exponent) << 23);
      for (unsigned c = 0; c < 2 * sign; ++c) {
        const float magnitude = std::bit_cast<float>((c & (sign - 1)) << s.shift) * s.scale;
        if ((c & sign ? -magnitude : magnitude) != F::decode(static_cast<Code>(c))) { s.fits = false; break; }
      }
      if (s.fits) return s;
    }
    return {};
  }
}

/// Levels of `simd::width` codes at once; reads exactly that many codes. Equal to F::decode but for the sign of zero.
template <Format F>
class Levels {
  using code = code_t<F>;

 public:
  ANYBIT_INLINE simd::f32 operator()(const code* p) const { return decode(simd::load_i32(p)); }

 private:
  static constexpr int bits = F::bits;
  static constexpr FloatShift shifted = float_shift<F>();
  enum class How { integer, table, shift, scalar };
  static constexpr bool arithmetic() {
    if constexpr (has_integer_dot_v<F>) return level_map<F>() != LevelMap::table;
    else return false;
  }
  static constexpr How how = arithmetic() ? How::integer : bits > 8 ? How::scalar : bits > 4 && shifted.fits ? How::shift : How::table;

  ANYBIT_INLINE simd::f32 decode(simd::i32 c) const {
    if constexpr (how == How::integer) {
      constexpr std::int32_t half = 1 << (bits - 1);
      constexpr LevelMap map = level_map<F>();
      simd::f32 v;
      if constexpr (map == LevelMap::identity) {
        v = simd::to_f32(c);
        if constexpr (min_int<F>() != 0) v = v + simd::broadcast(static_cast<float>(min_int<F>()));
      } else if constexpr (map == LevelMap::flip_sign_bit) {
        v = simd::to_f32((c ^ simd::broadcast(half)) + simd::broadcast(min_int<F>()));
      } else {
        const simd::u32 sign = simd::shift_left(simd::as_u32(c & simd::broadcast(half)), 32 - bits);
        v = simd::as_f32(simd::as_u32(simd::to_f32(c & simd::broadcast(half - 1))) ^ sign);
      }
      if constexpr (F::step != 1.0f) v = v * simd::broadcast(static_cast<float>(F::step));
      return v;
    } else if constexpr (how == How::shift) {
      constexpr std::int32_t sign = 1 << (bits - 1);
      const simd::f32 magnitude = simd::as_f32(simd::shift_left(simd::as_u32(c & simd::broadcast(sign - 1)), shifted.shift)) * simd::broadcast(shifted.scale);
      return simd::as_f32(simd::as_u32(magnitude) ^ simd::shift_left(simd::as_u32(c & simd::broadcast(sign)), 32 - bits));
    } else if constexpr (how == How::table) {
      return table_[c];
    } else {
      std::int32_t codes[static_cast<std::size_t>(simd::width)];
      float levels[static_cast<std::size_t>(simd::width)];
      simd::store(codes, c);
      for (Index i = 0; i < simd::width; ++i) levels[i] = F::decode(static_cast<Code>(codes[i]));
      return simd::load(levels);
    }
  }

  struct Nothing {
    explicit ANYBIT_INLINE Nothing(const float*) {}
  };
  static constexpr const float* table_values() {
    if constexpr (how == How::table) return decode_table_v<F>.data();
    else return nullptr;
  }
  std::conditional_t<how == How::table, simd::Table<(how == How::table ? 1 << bits : 2)>, Nothing> table_{table_values()};
};

}  // namespace anybit::kernel::inline ANYBIT_CODE
