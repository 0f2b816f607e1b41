#pragma once
// Small floating point formats: OCP Microscaling's E2M1 (MXFP4), OCP's E4M3 and E5M2, and every other split of up to 16 bits.

#include <bit>

#include <anybit/core/fixed_string.hpp>
#include <anybit/format/format.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// The meaning of a Minifloat's highest exponent field.
enum class MinifloatSpecials {
  none,  ///< more numbers (E2M1, E2M3, E3M2)
  nan,   ///< more numbers, but all ones is NaN (E4M3, also called E4M3FN)
  ieee,  ///< infinity and NaN (E5M2, E5M10 = binary16, E8M7 = bfloat16)
};

/// The rule of the formats' own standards: nothing special below 8 bits, IEEE from five exponent bits on, else one NaN.
constexpr MinifloatSpecials usual_specials(int exponent_bits, int mantissa_bits) {
  if (1 + exponent_bits + mantissa_bits < 8) return MinifloatSpecials::none;
  return exponent_bits >= 5 && mantissa_bits > 0 ? MinifloatSpecials::ieee : MinifloatSpecials::nan;
}

/// Code = sign, exponent, mantissa from the highest bit down; bias 2^(E-1) - 1; subnormals. The encoder rounds to nearest, ties
/// to even, saturates at the largest finite level (infinity too), gives NaN and zero the code 0 and never writes the
/// other zero, an infinity or a NaN; the decoder knows them all.
template <int E, int M, MinifloatSpecials Specials = usual_specials(E, M)>
struct Minifloat {
  static_assert(E >= 1 && E <= 8 && M >= 0 && E + M <= 15,
                "anybit: Minifloat<E, M> needs 1 to 8 exponent bits and 16 bits at most");
  static_assert(Specials != MinifloatSpecials::ieee || M >= 1, "anybit: a Minifloat with infinity and NaN needs a mantissa bit");
  static constexpr int bits = 1 + E + M;
  static constexpr auto name = [] {
    constexpr auto split = "e" + decimal<E>() + "m" + decimal<M>();
    if constexpr (Specials == usual_specials(E, M))
      return split;
    else if constexpr (Specials == MinifloatSpecials::none)
      return split + "_finite";
    else if constexpr (Specials == MinifloatSpecials::nan)
      return split + "_nan";
    else
      return split + "_ieee";
  }();
  static constexpr int bias = (1 << (E - 1)) - 1;

 private:
  static constexpr unsigned sign_bit = 1u << (E + M), magnitude_mask = sign_bit - 1;
  static constexpr unsigned first_special = Specials == MinifloatSpecials::ieee  ? ((1u << E) - 1) << M
                                            : Specials == MinifloatSpecials::nan ? magnitude_mask
                                                                                 : magnitude_mask + 1;
  static constexpr ANYBIT_INLINE double power_of_two(int e) {
    return std::bit_cast<double>(static_cast<std::uint64_t>(e + 1023) << 52);
  }
  static constexpr ANYBIT_INLINE float magnitude(unsigned code) {
    const int field = static_cast<int>(code >> M);
    const unsigned mantissa = code & ((1u << M) - 1);
    if (field == 0) return static_cast<float>(mantissa * power_of_two(1 - bias - M));
    return static_cast<float>((mantissa + (1u << M)) * power_of_two(field - bias - M));
  }

 public:
  /// The largest finite level: 6 (E2M1), 448 (E4M3), 57344 (E5M2).
  static constexpr Code largest_code = static_cast<Code>(first_special - 1);
  static constexpr float largest = magnitude(first_special - 1);

  static constexpr ANYBIT_INLINE Code encode(float x) {
    const bool negative = x < 0;
    const float a = negative ? -x : x;
    unsigned code = 0;
    if (a >= largest) {
      code = largest_code;
    } else if (a > 0) {
      // a lies in the binade of `field`, where levels are 2^(field - bias - M) apart; field 1 also serves the subnormals.
      const int exponent = static_cast<int>(std::bit_cast<std::uint32_t>(a) >> 23) - 127;
      const int field = exponent + bias > 1 ? exponent + bias : 1;
      const auto steps = static_cast<float>(static_cast<double>(a) * power_of_two(bias + M - field));
      // steps counts the implied one, so it carries into the exponent by itself, also when it rounds up to the next binade.
      code = (static_cast<unsigned>(field - 1) << M) + static_cast<unsigned>(round_half_even(steps));
    }
    return static_cast<Code>(negative && code != 0 ? code | sign_bit : code);
  }
  static constexpr ANYBIT_INLINE float decode(Code c) {
    const unsigned m = c & magnitude_mask;
    float a = 0;
    if (m < first_special)
      a = magnitude(m);
    else if (Specials == MinifloatSpecials::ieee && m == first_special)
      a = std::numeric_limits<float>::infinity();
    else
      a = std::numeric_limits<float>::quiet_NaN();
    return c & sign_bit ? -a : a;
  }
  static constexpr ANYBIT_INLINE Affine fit(std::span<const float> values) { return fit_abs_max(values, largest); }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
