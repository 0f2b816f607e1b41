#pragma once
// Rounding weights to codes, described by numbers instead of a format's type: one body serves every uniform format.

#include <cstdint>

#include <anybit/simd/groups.hpp>

namespace anybit::simd {
inline namespace ANYBIT_ABI {

/// code(k), k = clamp(round(weight * factors[g]) + zeros[g], lowest, highest).
/// Fraction is 16 where codes are below 2^7 and |round(..)| <= 64, 15 up to 128, 14 up to 256.
struct RoundRule {
  int lowest, highest;
  int centre;                 ///< k + centre is what stands in the bits: 0 to 127 with Fraction = 16, 0 to 255, 0 to 511
  int shift, mask, sign;      ///< code is (k + shift) & mask, or |k| with the bit `sign` if k < 0
  const std::uint8_t* codes;  ///< of all 128 values of k + centre, if Fraction is 16
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::simd
