#pragma once
// Ternary weights of BitNet b1.58 (arXiv 2402.17764): -1, 0, +1 times the mean magnitude.

#include <anybit/core/fixed_string.hpp>
#include <anybit/format/format.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Codes 0, 1, 2 are -1, 0, +1. Code 3 is never written and decodes to 0. The fit is absmean, gamma = max(mean|w|, 1e-5), and
/// a code is clamp(round(w * (1 / gamma)), -1, 1) with ties to even, so exactly half of gamma becomes 0.
struct Ternary {
  static constexpr int bits = 2;
  static constexpr int code_count = 3;
  static constexpr auto name = FixedString("ternary");
  static constexpr bool multiplies_by_reciprocal = true;
  static constexpr float step = 1;

  static constexpr ANYBIT_INLINE Code encode(float x) { return x > 0.5f ? Code{2} : x < -0.5f ? Code{0} : Code{1}; }
  static constexpr ANYBIT_INLINE std::int32_t to_int(Code c) { return (c & 3) == 3 ? 0 : (c & 3) - 1; }
  static constexpr ANYBIT_INLINE float decode(Code c) { return static_cast<float>(to_int(c)); }
  static constexpr ANYBIT_INLINE Affine fit(std::span<const float> values) {
    const float gamma = abs_mean(values);
    return {gamma > 1e-5f ? gamma : 1e-5f, 0};
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
