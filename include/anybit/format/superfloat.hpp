#pragma once
// Superfloat SF<b>: sign-magnitude fixed point Q0.(b-1) without exponent; levels are +-k / 2^(b-1), k < 2^(b-1).
// Source: github.com/aloshdenny/superfloat. Readable twin: reference/superfloat.hpp.

#include <anybit/core/fixed_string.hpp>
#include <anybit/format/format.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Nearest rounding, ties to even, saturating at 1 - 2^-(Bits-1). Code = magnitude | sign << (Bits-1). The encoder gives
/// zero one code (sign 0); the decoder reads both as 0.
/// One bit leaves no magnitude (Q0.0 has only zeros), so Superfloat<1> is the sign alone, with levels +1 and -1 and the mean
/// magnitude as its scale, which is the least squares choice.
template <int Bits>
struct Superfloat {
  static_assert(Bits >= 1 && Bits <= 16, "anybit: Superfloat<Bits> needs 1 to 16 bits");
  static constexpr int bits = Bits;
  static constexpr auto name = "superfloat" + decimal<Bits>();
  static constexpr int magnitude_bits = Bits - 1;
  static constexpr std::int32_t max_int = Bits == 1 ? 1 : (1 << magnitude_bits) - 1;
  static constexpr float step = 1.0f / static_cast<float>(1 << magnitude_bits);

  static constexpr ANYBIT_INLINE Code encode(float x) {
    const bool negative = x < 0;
    if constexpr (Bits == 1) {
      return negative;
    } else {
      const float magnitude = (negative ? -x : x) * static_cast<float>(1 << magnitude_bits);
      std::int32_t k = max_int;
      if (!(magnitude >= static_cast<float>(max_int)))
        k = magnitude > 0 ? static_cast<std::int32_t>(round_half_even(magnitude)) : 0;
      return static_cast<Code>(k | (negative && k != 0 ? 1 << magnitude_bits : 0));
    }
  }
  static constexpr ANYBIT_INLINE std::int32_t to_int(Code c) {
    if constexpr (Bits == 1) {
      return c & 1 ? -1 : 1;
    } else {
      const std::int32_t k = c & max_int;
      return c >> magnitude_bits & 1 ? -k : k;
    }
  }
  static constexpr ANYBIT_INLINE float decode(Code c) { return static_cast<float>(to_int(c)) * step; }
  static constexpr ANYBIT_INLINE Affine fit(std::span<const float> values) {
    if constexpr (Bits == 1)
      return {abs_mean(values), 0};
    else
      return fit_abs_max(values, static_cast<float>(max_int) * step);
  }
};

/// Superfloat as its authors published it, for comparison only: it truncates toward zero, and negative weights that truncate
/// to zero get the code "negative zero". It is meant to be used without a scale. Step by step in float, as published:
/// magnitude = floor(|x| * (2^m - 1) / (1 - 2^-m)), m = Bits - 1, which from 14 bits on loses one of some codes even for
/// exactly representable x. Use Superfloat<Bits> for anything but comparisons.
template <int Bits>
struct SuperfloatPublished {
  static_assert(Bits >= 4 && Bits <= 16, "anybit: SuperfloatPublished<Bits> was published for 4 to 16 bits");
  static constexpr int bits = Bits;
  static constexpr auto name = "superfloat_published" + decimal<Bits>();
  static constexpr int magnitude_bits = Bits - 1;
  static constexpr std::int32_t max_int = (1 << magnitude_bits) - 1;
  static constexpr float step = 1.0f / static_cast<float>(1 << magnitude_bits);
  static constexpr float largest = static_cast<float>(max_int) * step;

  static constexpr ANYBIT_INLINE Code encode(float x) {
    const bool negative = x < 0;
    const float magnitude = negative ? -x : x;
    std::int32_t k = max_int;
    if (!(magnitude >= largest))
      k = magnitude > 0 ? static_cast<std::int32_t>(magnitude * static_cast<float>(max_int) / largest) : 0;
    return static_cast<Code>(k | (negative ? 1 << magnitude_bits : 0));
  }
  static constexpr ANYBIT_INLINE std::int32_t to_int(Code c) { return Superfloat<Bits>::to_int(c); }
  static constexpr ANYBIT_INLINE float decode(Code c) { return Superfloat<Bits>::decode(c); }
  /// The published decoder multiplies by 2 * sign - 1 and so inverts every sign.
  static constexpr ANYBIT_INLINE float decode_as_published(Code c) { return -decode(c); }
  static constexpr ANYBIT_INLINE Affine fit(std::span<const float> values) { return fit_abs_max(values, largest); }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
