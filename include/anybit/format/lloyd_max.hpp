#pragma once
// The levels with the least mean square error for a normal distribution.

#include <anybit/core/macros_begin.hpp>

#include <cmath>

#include <anybit/core/fixed_string.hpp>
#include <anybit/format/codebook.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

namespace detail {

/// Square root at compile time too: Newton's steps from above, which stop at the first that no longer falls.
constexpr ANYBIT_INLINE double square_root(double x) {
  if (!std::is_constant_evaluated()) return std::sqrt(x);
  if (!(x > 0)) return 0;
  double root = x > 1 ? x : 1;
  for (double next = 0.5 * (root + x / root); next < root; next = 0.5 * (root + x / root)) root = next;
  return root;
}

#if defined(__GNUC__)
/// Sum j of 16 is that of values[16 i + j]^2; all are then added by halves.
ANYBIT_INLINE double square_sum_in_vectors(const float* values, std::size_t n) {
  typedef float Floats __attribute__((vector_size(ANYBIT_VECTOR_BYTES / 2)));
  typedef double Doubles __attribute__((vector_size(ANYBIT_VECTOR_BYTES)));
  constexpr std::size_t lanes = ANYBIT_VECTOR_BYTES / sizeof(double), vectors = 16 / lanes;
  Doubles sums[vectors];
#pragma GCC unroll 8
  for (auto& sum : sums) sum = Doubles{};
  in_sixteens(values, n, [&](const float* from) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (std::size_t p = 0; p < vectors; ++p) {
      Floats some;
      __builtin_memcpy(&some, from + p * lanes, sizeof some);
      const Doubles wide = __builtin_convertvector(some, Doubles);
      sums[p] += wide * wide;
    }
  });
  return sum_by_halves(add_vectors_by_halves(sums));
}
#endif

/// sqrt(mean v^2), summed in double in 16 interleaved sums, which are added by halves; 0 for an empty span.
constexpr ANYBIT_INLINE float root_mean_square(std::span<const float> values) {
  if (values.empty()) return 0;
  const auto root = [&](double sum) { return static_cast<float>(square_root(sum / static_cast<double>(values.size()))); };
#if defined(__GNUC__)
  if (!std::is_constant_evaluated()) return root(square_sum_in_vectors(values.data(), values.size()));
#endif
  double sums[16] = {};
  for (std::size_t i = 0; i < values.size(); ++i) sums[i % 16] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  for (std::size_t half = 8; half > 0; half /= 2)
    for (std::size_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  return root(sums[0]);
}

/// Positive levels for N(0, 1), ascending: each is the mean of its cell, and cells end half way between levels (Lloyd, Max;
/// evaluate::lloyd_max finds them again). Rounded to bfloat16, which costs less than 0.015 dB.
template <int Bits>
struct LloydMaxLevels;
template <>
struct LloydMaxLevels<2> {
  static constexpr float positive[] = {0.453125f, 1.5078125f};
};
template <>
struct LloydMaxLevels<3> {
  static constexpr float positive[] = {0.2451171875f, 0.7578125f, 1.34375f, 2.15625f};
};
template <>
struct LloydMaxLevels<4> {
  static constexpr float positive[] = {0.1279296875f, 0.388671875f, 0.65625f, 0.94140625f,
                                       1.2578125f,    1.6171875f,   2.0625f,  2.734375f};
};
template <>
struct LloydMaxLevels<5> {
  static constexpr float positive[] = {0.06591796875f, 0.1982421875f, 0.33203125f, 0.466796875f, 0.60546875f, 0.74609375f,
                                       0.89453125f,    1.046875f,     1.2109375f,  1.3828125f,   1.578125f,   1.7890625f,
                                       2.03125f,       2.3125f,       2.6875f,     3.265625f};
};
template <>
struct LloydMaxLevels<6> {
  static constexpr float positive[] = {
      0.033447265625f, 0.10009765625f, 0.1669921875f, 0.234375f,  0.302734375f, 0.37109375f, 0.439453125f, 0.5078125f,
      0.578125f,       0.6484375f,     0.72265625f,   0.796875f,  0.87109375f,  0.9453125f,  1.0234375f,   1.109375f,
      1.1875f,         1.2734375f,     1.3671875f,    1.4609375f, 1.5546875f,   1.65625f,    1.765625f,    1.8828125f,
      2.015625f,       2.140625f,      2.296875f,     2.46875f,   2.671875f,    2.921875f,   3.234375f,    3.75f};
};
/// Code = place of the magnitude | sign << (Bits - 1).
template <int Bits>
constexpr ANYBIT_INLINE std::array<float, (std::size_t{1} << Bits)> lloyd_max_levels() {
  constexpr std::size_t half = std::size_t{1} << (Bits - 1);
  std::array<float, 2 * half> levels{};
  for (std::size_t i = 0; i < half; ++i) {
    levels[i] = LloydMaxLevels<Bits>::positive[i];
    levels[half + i] = -levels[i];
  }
  return levels;
}

}  // namespace detail

/// Lloyd-Max quantizer of the normal distribution. The scale is the root mean square of the group, so about 0.7 % of the weights
/// lie beyond the last level at 4 bits; Search::least_squares finds the scale that suits the group's own weights. There is no
/// level 0: pruned weights and sparse matrices want another format.
template <int Bits>
struct LloydMax {
  static_assert(Bits >= 2 && Bits <= 6, "anybit: LloydMax<Bits> has levels for 2 to 6 bits");
  static constexpr int bits = Bits;
  static constexpr auto name = "lloydmax" + decimal<Bits>();
  static constexpr Codebook<(std::size_t{1} << Bits)> book{detail::lloyd_max_levels<Bits>()};

  static constexpr ANYBIT_INLINE Code encode(float x) { return book.encode(x); }
  static constexpr ANYBIT_INLINE float decode(Code c) { return book.decode(static_cast<Code>(c & ((1 << Bits) - 1))); }
  static constexpr ANYBIT_INLINE Affine fit(std::span<const float> values) {
    constexpr float largest = detail::LloydMaxLevels<Bits>::positive[(std::size_t{1} << (Bits - 1)) - 1];
    const float scale = detail::root_mean_square(values), most = std::numeric_limits<float>::max() / largest;
    return {scale < most ? scale : most, 0};
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
