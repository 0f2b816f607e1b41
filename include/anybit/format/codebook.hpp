#pragma once
// Formats whose levels are a list of numbers. Codebook is the base of a format of your own; NF4 and FP4 are those of
// bitsandbytes.

#include <array>

#include <anybit/core/fixed_string.hpp>
#include <anybit/format/format.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// N finite levels, in any order: code c stands for levels[c]. A value goes to the nearest level; exactly half way between
/// two (the midpoint in float) it goes to the lower one. Made at compile time:
///
///   static constexpr anybit::Codebook<4> book{{-1.0f, -0.25f, 0.25f, 1.0f}};
template <std::size_t N>
class Codebook {
 public:
  static_assert(N >= 1 && N <= 65536, "anybit: Codebook<N> needs 1 to 65536 levels");

  /// From a list in braces, which must have N levels: an array would be filled up with zeros.
  template <std::size_t M>
  constexpr ANYBIT_INLINE explicit Codebook(const float (&levels)[M]) : Codebook(array_of(levels)) {
    static_assert(M == N, "anybit: the list of a Codebook<N> must have N levels, no fewer (see docs/tutorial/03_a_format_of_your_own.md)");
  }
  constexpr ANYBIT_INLINE explicit Codebook(const std::array<float, N>& levels) : levels_(levels) {
    for (std::size_t i = 0; i < N; ++i) {  // insertion sort: stable, so of equal levels the lowest code comes first
      std::size_t at = i;
      for (; at > 0 && levels[codes_[at - 1]] > levels[i]; --at) codes_[at] = codes_[at - 1];
      codes_[at] = static_cast<Code>(i);
    }
    for (std::size_t i = 0; i + 1 < N; ++i) thresholds_[i] = 0.5f * levels[codes_[i]] + 0.5f * levels[codes_[i + 1]];
    for (std::size_t i = 1; i < N; ++i)
      if (levels[codes_[i]] == levels[codes_[i - 1]]) codes_[i] = codes_[i - 1];
  }

  constexpr ANYBIT_INLINE Code encode(float x) const {
    if (!(x == x)) x = 0;
    std::size_t below = 0;  // thresholds smaller than x
    for (std::size_t left = N - 1; left > 0;) {
      const std::size_t half = (left + 1) / 2;
      if (x > thresholds_[below + half - 1]) below += half;
      left -= half;
    }
    return codes_[below];
  }
  /// Codes from N on, which encode() never gives, stand for the last level.
  constexpr ANYBIT_INLINE float decode(Code c) const { return levels_[c < N ? c : N - 1]; }

 private:
  template <std::size_t M>
  static constexpr ANYBIT_INLINE std::array<float, N> array_of(const float (&levels)[M]) {
    std::array<float, N> all{};
    for (std::size_t i = 0; i < N && i < M; ++i) all[i] = levels[i];
    return all;
  }
  std::array<float, N> levels_{};
  std::array<float, N> thresholds_{};  // between neighbours in order of level; the last is unused
  std::array<Code, N> codes_{};        // in order of level
};

/// NormalFloat of QLoRA (arXiv 2305.14314), the constants of bitsandbytes. Ties go to the lower level, and the weight is
/// multiplied by 1 / max|w|, both as there.
struct Nf4 {
  static constexpr int bits = 4;
  static constexpr auto name = FixedString("nf4");
  static constexpr bool multiplies_by_reciprocal = true;
  static constexpr Codebook<16> book{{-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                                      -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                                      0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
                                      0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f}};

  static constexpr ANYBIT_INLINE Code encode(float x) { return book.encode(x); }
  static constexpr ANYBIT_INLINE float decode(Code c) { return book.decode(c & 15); }
  static constexpr ANYBIT_INLINE Affine fit(std::span<const float> values) { return fit_abs_max(values, 1.0f); }
};

/// FP4 of bitsandbytes, which is not the E2M1 of OCP: sign in bit 3, and the magnitudes 0, 0.0625, 8, 12, 4, 6, 2, 3 (over 12)
/// in the order of the codes. Ties go to the lower level, as there. Zero has one code here, 0; code 8 decodes to zero as well.
struct Fp4 {
  static constexpr int bits = 4;
  static constexpr auto name = FixedString("fp4");
  static constexpr bool multiplies_by_reciprocal = true;
  static constexpr Codebook<16> book{{0.0f, 0.005208333333f, 0.66666667f, 1.0f, 0.33333333f, 0.5f, 0.16666667f, 0.25f, 0.0f,
                                      -0.005208333333f, -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f}};

  static constexpr ANYBIT_INLINE Code encode(float x) { return book.encode(x); }
  static constexpr ANYBIT_INLINE float decode(Code c) { return book.decode(c & 15); }
  static constexpr ANYBIT_INLINE Affine fit(std::span<const float> values) { return fit_abs_max(values, 1.0f); }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
