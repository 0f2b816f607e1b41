#pragma once
// Superfloat SF<b>, b = 4 .. 16 (aloshdenny/superfloat): a sign and m = b - 1 bits of magnitude below 1, no exponent.
//
//   mantissa = min(round(|x| 2^m), 2^m - 1),   value = +-mantissa / 2^m,   code = mantissa | sign << m
//
// round takes ties to even and zero has sign 0. As published (2025) the mantissa is floor(|x| 2^m), and a negative x sets the
// sign also of zero; its decoder returned the negative of every value, which is not repeated here.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <anybit/core/types.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

enum class SuperfloatRounding { nearest, truncate };

inline std::uint32_t superfloat_code(double x, int bits, SuperfloatRounding rounding = SuperfloatRounding::nearest) {
  const int m = bits - 1;
  const double scaled = std::abs(x) * std::exp2(m), most = std::exp2(m) - 1;
  const double rounded = rounding == SuperfloatRounding::nearest ? std::nearbyint(scaled) : std::floor(scaled);
  const auto mantissa = static_cast<std::uint32_t>(std::min(rounded, most));
  const bool sign = x < 0 && (mantissa > 0 || rounding == SuperfloatRounding::truncate);
  return mantissa | std::uint32_t{sign} << m;
}

inline double superfloat_value(std::uint32_t code, int bits) {
  const int m = bits - 1;
  const double magnitude = static_cast<double>(code & ((1u << m) - 1)) / std::exp2(m);
  return code >> m ? -magnitude : magnitude;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
