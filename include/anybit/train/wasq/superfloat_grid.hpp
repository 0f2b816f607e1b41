#pragma once
// Superfloat's grid with bits that are known at run time: { k 2^-m : |k| <= 2^m - 1 }, m = bits - 1, and its straight-through
// gradient. Format and bytes: format/superfloat.hpp.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <cstdint>

#include <anybit/core/types.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_ABI {

/// How a magnitude becomes a whole number of steps.
enum class Rounding : std::uint8_t {
  nearest,   ///< ties to even
  truncate,  ///< toward zero, as the repository of 2025 does
};

struct SuperfloatGrid {
  int bits = 8;  ///< 2 to 16
  Rounding rounding = Rounding::nearest;
  /// The decoder of 2025 gives every value the other sign. For comparison with published figures only.
  bool inverted_sign = false;

  float steps() const { return static_cast<float>(1 << (bits - 1)); }
  float step() const { return 1 / steps(); }
  /// 1 - 2^-m.
  float largest() const { return 1 - step(); }

  /// Q(x), a multiple of step(): exact, for every operation is one by a power of two. NaN stays NaN.
  template <class Real>
  Real round(Real x) const {
    const Real most = static_cast<Real>(largest()), c = x > most ? most : x < -most ? -most : x;
    const Real k = c * static_cast<Real>(steps());
    const Real whole = rounding == Rounding::nearest ? std::nearbyint(k) : std::trunc(k);
    return (whole == 0 ? Real{0} : inverted_sign ? -whole : whole) * static_cast<Real>(step());
  }
  /// k of round(x); x is no NaN.
  std::int32_t to_int(float x) const { return static_cast<std::int32_t>(round(x) * steps()); }
  /// dQ/dx as training takes it: 1 on the closed interval |x| <= largest(), so that a weight that was clamped to the bound can
  /// leave it again; 0 outside.
  template <class Real>
  bool passes(Real x) const {
    const Real most = static_cast<Real>(largest());
    return x <= most && x >= -most;
  }
  /// Whether Q(x) = 0: |x| <= step / 2, for the tie is even.
  bool is_dead(float x) const { return round(x) == 0; }
};

/// Q1.15 of the repository's CUDA and image code: k = rint(clip(x / scale) 2^15), value k 2^-15 scale. Asymmetric: -1 is on it.
struct Q115 {
  float scale = 1;
  float least = -1, most = 32767.0f / 32768.0f;

  std::int32_t to_int(float x) const {
    const float u = x / scale, c = u > most ? most : u < least ? least : u;
    return static_cast<std::int32_t>(std::nearbyint(c * 32768.0f));
  }
  float round(float x) const { return static_cast<float>(to_int(x)) / 32768.0f * scale; }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
