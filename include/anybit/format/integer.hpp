#pragma once
// Integers: SInt<b> (symmetric, no zero point) and UInt<b> (min-max with a zero point).

#include <anybit/core/macros_begin.hpp>

#include <anybit/core/fixed_string.hpp>
#include <anybit/format/format.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Two's complement, levels -2^(Bits-1) .. 2^(Bits-1) - 1, nearest, ties to even.
/// The fit is symmetric, scale = max|w| / (2^(Bits-1) - 1), so no weight of the group is clipped (8 bits: the rule of Q8_0,
/// max|w| / 127) and the lowest level, -2^(Bits-1), stays unused by plain rounding. Whoever shrinks the scale or feeds errors
/// back (scale search, GPTQ) does reach it, and kernels must multiply it correctly.
/// One bit of two's complement has the levels 0 and -1, which suit no weights: SInt<1> is the sign instead, code 0 = +1, code
/// 1 = -1, scale = mean|w|, as in Superfloat<1>.
template <int Bits>
struct SInt {
  static_assert(Bits >= 1 && Bits <= 16, "anybit: SInt<Bits> needs 1 to 16 bits");
  static constexpr int bits = Bits;
  static constexpr auto name = "int" + decimal<Bits>();
  static constexpr std::int32_t max_int = Bits == 1 ? 1 : (1 << (Bits - 1)) - 1;
  static constexpr std::int32_t min_int = Bits == 1 ? -1 : -(1 << (Bits - 1));
  static constexpr float step = 1;

  static constexpr ANYBIT_INLINE Code encode(float x) {
    if constexpr (Bits == 1) {
      return x < 0;
    } else {
      std::int32_t k = 0;
      if (x >= static_cast<float>(max_int))
        k = max_int;
      else if (x <= static_cast<float>(min_int))
        k = min_int;
      else if (x == x)
        k = static_cast<std::int32_t>(round_half_even(x));
      return static_cast<Code>(k & ((1 << Bits) - 1));
    }
  }
  static constexpr ANYBIT_INLINE std::int32_t to_int(Code c) {
    if constexpr (Bits == 1) {
      return c & 1 ? -1 : 1;
    } else {
      constexpr std::int32_t sign = 1 << (Bits - 1);
      return ((c & ((1 << Bits) - 1)) ^ sign) - sign;
    }
  }
  static constexpr ANYBIT_INLINE float decode(Code c) { return static_cast<float>(to_int(c)); }
  static constexpr ANYBIT_INLINE Affine fit(std::span<const float> values) {
    if constexpr (Bits == 1)
      return {abs_mean(values), 0};
    else
      return fit_abs_max(values, static_cast<float>(max_int));
  }
};

/// Levels 0 .. 2^Bits - 1 around a zero point: w = scale * (code - zero).
/// The fit is GPTQ's asymmetric one, in float as there: low = min(0, min w), high = max(0, max w),
/// scale = (high - low) / (2^Bits - 1), zero = round(-low / scale) with ties to even. So 0 is always a level, and a group of
/// one sign has its zero point at 0 or at 2^Bits - 1.
template <int Bits>
struct UInt {
  static_assert(Bits >= 1 && Bits <= 16, "anybit: UInt<Bits> needs 1 to 16 bits");
  static constexpr int bits = Bits;
  static constexpr auto name = "uint" + decimal<Bits>();
  static constexpr bool has_zero_point = true;
  static constexpr std::int32_t max_int = (1 << Bits) - 1;
  static constexpr float step = 1;

  static constexpr ANYBIT_INLINE Code encode(float x) { return encode_around(x, 0); }
  /// clamp(round(x) + zero, 0, 2^Bits - 1): rounding first, as in GPTQ and AWQ, keeps ties independent of the zero point.
  static constexpr ANYBIT_INLINE Code encode_around(float x, float zero) {
    const float shifted = (x == x ? round_half_even(x) : 0.0f) + zero;
    if (shifted >= static_cast<float>(max_int)) return static_cast<Code>(max_int);
    return shifted > 0 ? static_cast<Code>(shifted) : Code{0};
  }
  static constexpr ANYBIT_INLINE std::int32_t to_int(Code c) { return c & max_int; }
  static constexpr ANYBIT_INLINE float decode(Code c) { return static_cast<float>(to_int(c)); }
  static constexpr ANYBIT_INLINE Affine fit(std::span<const float> values) {
    const auto [low, high] = low_high(values);
    const float range = high - low;
    float scale = range / static_cast<float>(max_int);
    if (!(scale <= std::numeric_limits<float>::max())) {  // the range alone overflows
      const double exact = (static_cast<double>(high) - static_cast<double>(low)) / max_int;
      scale = exact < static_cast<double>(std::numeric_limits<float>::max()) ? static_cast<float>(exact)
                                                                             : std::numeric_limits<float>::max();
    }
    if (!(scale > 0)) return {0, 0};
    return {scale, static_cast<float>(encode(-low / scale))};
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
