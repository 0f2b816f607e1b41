#pragma once
// The concept of a format, the value of one code: an empty struct of constexpr static members; docs/tutorial/ has an example.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <type_traits>

#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// bits     1 to 16; codes are 0 .. 2^bits - 1, and every one of them decodes to something documented.
/// name     unique, lower case, without '/' (it is part of the scheme's name in files).
/// encode   nearest level, saturating at the largest finite ones; NaN encodes like 0. The argument is already divided by
///          the scale.
/// decode   the level of a code.
/// fit      the Affine that suits a group of weights, before its scale is rounded by the scale store: scale finite and not
///          negative. A group of zeros must decode to zeros (scale 0 does that). Callers screen for NaN and infinity.
/// anybit/testing/laws.hpp checks all this for any format.
template <class F>
concept Format = requires(float x, Code c, std::span<const float> values) {
  requires(F::bits >= 1 && F::bits <= 16);
  { F::name } -> std::convertible_to<std::string_view>;
  { F::encode(x) } -> std::same_as<Code>;
  { F::decode(c) } -> std::same_as<float>;
  { F::fit(values) } -> std::same_as<Affine>;
};

/// Whether encode() and decode() can be called at compile time, as kernels do to find out how to decode.
template <class F>
concept ConstexprFormat = Format<F> && requires { typename std::bool_constant<(F::encode(0.0f), F::decode(Code{0}), true)>; };

/// Levels are step * integer, so that dot products with integer activations are exact integers.
template <class F>
concept UniformFormat = Format<F> && requires(Code c) {
  { F::to_int(c) } -> std::same_as<std::int32_t>;
  { F::step } -> std::convertible_to<float>;
};

/// Formats whose groups store a zero point besides the scale. They say `static constexpr bool has_zero_point = true` and
/// give `encode_around(x, zero)`: the code nearest to x + zero, rounding x before adding (as GPTQ and AWQ do).
template <class F>
constexpr bool has_zero_point_v = false;
template <class F>
  requires requires { requires F::has_zero_point; }
constexpr bool has_zero_point_v<F> = true;

/// Formats that multiply by the reciprocal of the scale instead of dividing (bitsandbytes) say
/// `static constexpr bool multiplies_by_reciprocal = true`; the two differ in the last bit before rounding.
template <class F>
constexpr bool multiplies_by_reciprocal_v = false;
template <class F>
  requires requires { requires F::multiplies_by_reciprocal; }
constexpr bool multiplies_by_reciprocal_v<F> = true;

/// How many codes, from 0 on, encode() gives. 2^bits unless the format says so with `static constexpr int code_count`; layouts
/// like Base3 hold only so many.
template <class F>
constexpr int code_count_v = 1 << F::bits;
template <class F>
  requires requires { F::code_count; }
constexpr int code_count_v<F> = F::code_count;

/// Whether encode() stays below 2^bits at every level (of more than 9 bits every 257th), at 0 and beyond both ends: a list of
/// more levels than codes does not.
template <Format F>
constexpr bool codes_fit_bits() {
  constexpr unsigned count = 1u << F::bits;
  float beyond = 0;
  for (unsigned c = 0; c < count; c += count > 512 ? 257 : 1) {
    const float level = F::decode(static_cast<Code>(c)), magnitude = level < 0 ? -level : level;
    if (!(magnitude <= 1e30f)) continue;  // arithmetic that overflows is no constant
    if (F::encode(level) >= count) return false;
    if (2 * magnitude > beyond) beyond = 2 * magnitude;
  }
  return F::encode(0) < count && F::encode(beyond) < count && F::encode(-beyond) < count;
}

/// Whether a weight of 0 stays exactly 0 in every group, as pruned weights must.
template <Format F>
constexpr bool keeps_zero_v = [] {
  if constexpr (has_zero_point_v<F>) {
    for (const int zero : {0, 1 << (F::bits - 1), (1 << F::bits) - 1})
      if (F::decode(F::encode_around(0, static_cast<float>(zero))) != static_cast<float>(zero)) return false;
    return true;
  } else {
    return F::decode(F::encode(0)) == 0;
  }
}();

/// How one code is held outside packed bytes.
template <int Bits>
using StoredCode = std::conditional_t<(Bits <= 8), std::uint8_t, std::uint16_t>;
template <Format F>
using code_t = StoredCode<F::bits>;

/// All levels of a format, indexed by code. What kernels use for formats that they know nothing else about. Up to 12 bits: a
/// wider table costs more to look up than to compute, and more to build than compilers allow.
template <Format F>
  requires(F::bits <= 12)
constexpr std::array<float, (std::size_t{1} << F::bits)> decode_table() {
  std::array<float, (std::size_t{1} << F::bits)> table{};
  for (std::size_t c = 0; c < table.size(); ++c) table[c] = F::decode(static_cast<Code>(c));
  return table;
}
template <Format F>
inline constexpr auto decode_table_v = decode_table<F>();

/// The largest finite |level|.
template <Format F>
constexpr float max_level() {
  float m = 0;
  for (std::size_t c = 0; c < (std::size_t{1} << F::bits); ++c) {
    const float v = F::decode(static_cast<Code>(c)), a = v < 0 ? -v : v;
    if (a > m && a <= std::numeric_limits<float>::max()) m = a;
  }
  return m;
}

// Fits read every weight, so they must run in vectors, and formats know no simd/: the compilers' own vectors, as wide as the
// registers, do (wider ones are cut up badly). Elsewhere and at compile time there are plain loops.
namespace detail {

#if defined(__GNUC__)
/// The largest lane of a vector of int32.
template <class V>
ANYBIT_INLINE std::int32_t largest_lane(V v) {
  if constexpr (sizeof(V) == 64) {
    const auto a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
               b = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    return largest_lane(a > b ? a : b);
  } else if constexpr (sizeof(V) == 32) {
    const auto a = __builtin_shufflevector(v, v, 0, 1, 2, 3), b = __builtin_shufflevector(v, v, 4, 5, 6, 7);
    return largest_lane(a > b ? a : b);
  } else {
    const V other = __builtin_shufflevector(v, v, 2, 3, 0, 1), two = v > other ? v : other;
    return two[0] > two[1] ? two[0] : two[1];
  }
}
/// The sum of the lanes of a vector of double, added by halves.
template <class V>
ANYBIT_INLINE double sum_by_halves(V v) {
  if constexpr (sizeof(V) == 64)
    return sum_by_halves(__builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7));
  else if constexpr (sizeof(V) == 32)
    return sum_by_halves(__builtin_shufflevector(v, v, 0, 1) + __builtin_shufflevector(v, v, 2, 3));
  else
    return v[0] + v[1];
}
#endif

/// Maps the bits of a float to signed numbers of the same order: bits & mask ^ flip.
struct BitOrder {
  std::int32_t mask, flip;
};

#if defined(__GNUC__)
/// max_of_bits of the first whole vectors, at least one, of n floats; says how many they were.
template <std::size_t Orders>
ANYBIT_INLINE std::size_t max_of_bits_in_vectors(const float* values, std::size_t n, const BitOrder (&orders)[Orders],
                                                 std::array<std::int32_t, Orders>& m) {
  typedef std::int32_t V __attribute__((vector_size(ANYBIT_VECTOR_BYTES)));
  // Without unrolling gcc keeps the vectors in memory at -O2.
  constexpr std::size_t lanes = ANYBIT_VECTOR_BYTES / 4, sums = ANYBIT_VECTOR_BYTES == 64 || Orders > 1 ? 2 : 4;
  V largest[Orders][sums] = {};
  const auto take = [&](std::size_t s, std::size_t from) __attribute__((always_inline)) {
    V v;
    __builtin_memcpy(&v, values + from, sizeof v);
#pragma GCC unroll 2
    for (std::size_t o = 0; o < Orders; ++o) {
      const V x = (v & orders[o].mask) ^ orders[o].flip;
      largest[o][s] = x > largest[o][s] ? x : largest[o][s];
    }
  };
  std::size_t i = 0;
  for (; i + sums * lanes <= n; i += sums * lanes)
#pragma GCC unroll 4
    for (std::size_t s = 0; s < sums; ++s) take(s, i + s * lanes);
  for (; i + lanes <= n; i += lanes) take(0, i);
#pragma GCC unroll 2
  for (std::size_t o = 0; o < Orders; ++o) {
    V all = largest[o][0];
#pragma GCC unroll 4
    for (std::size_t s = 1; s < sums; ++s) all = all > largest[o][s] ? all : largest[o][s];
    m[o] = largest_lane(all);
  }
  return i;
}
#endif

/// For each order the largest of the values' bits in it, at least 0, in one pass.
template <std::size_t Orders>
constexpr ANYBIT_INLINE std::array<std::int32_t, Orders> max_of_bits(std::span<const float> values,
                                                                     const BitOrder (&orders)[Orders]) {
  std::array<std::int32_t, Orders> m{};
  std::size_t i = 0;
#if defined(__GNUC__)
  if (!std::is_constant_evaluated() && values.size() >= ANYBIT_VECTOR_BYTES / 4)
    i = max_of_bits_in_vectors(values.data(), values.size(), orders, m);
#endif
  for (; i < values.size(); ++i)
    for (std::size_t o = 0; o < Orders; ++o) {
      const std::int32_t v = (std::bit_cast<std::int32_t>(values[i]) & orders[o].mask) ^ orders[o].flip;
      m[o] = v > m[o] ? v : m[o];
    }
  return m;
}

inline constexpr std::int32_t sign_bit = std::numeric_limits<std::int32_t>::min(), magnitude_bits = 0x7FFFFFFF,
                              infinity_bits = 0x7F800000;
}  // namespace detail

/// The bits of max |v|, where NaN is above infinity: bits of floats without a sign are in the order of the floats. 0 for an empty
/// span.
constexpr ANYBIT_INLINE std::int32_t abs_max_bits(std::span<const float> values) {
  return detail::max_of_bits(values, {{detail::magnitude_bits, 0}})[0];
}

/// Whether no value is infinite or NaN.
constexpr ANYBIT_INLINE bool all_finite(std::span<const float> values) { return abs_max_bits(values) < detail::infinity_bits; }

/// max |v|; 0 for an empty span. NaN does not count.
constexpr ANYBIT_INLINE float abs_max(std::span<const float> values) {
  const std::int32_t bits = abs_max_bits(values);
  if (bits <= detail::infinity_bits) return std::bit_cast<float>(bits);
  float m = 0;
  for (const float v : values) {
    const float a = v < 0 ? -v : v;
    if (a > m) m = a;
  }
  return m;
}

/// min(0, v..) and max(0, v..). NaN does not count.
struct LowHigh {
  float low = 0, high = 0;
};
constexpr ANYBIT_INLINE LowHigh low_high(std::span<const float> values) {
  // As signed numbers the bits of positive floats are in order and above all others; with the sign bit flipped those of negative
  // floats are, the lowest float at the top.
  const auto [high, flipped] = detail::max_of_bits(values, {{-1, 0}, {-1, detail::sign_bit}});
  const std::int32_t low = flipped ^ detail::sign_bit;
  if (high <= detail::infinity_bits && (low & detail::magnitude_bits) <= detail::infinity_bits)
    return {(low & detail::magnitude_bits) != 0 ? std::bit_cast<float>(low) : 0.0f, std::bit_cast<float>(high)};
  LowHigh range;
  for (const float v : values) {
    if (v < range.low) range.low = v;
    if (v > range.high) range.high = v;
  }
  return range;
}

namespace detail {
#if defined(__GNUC__)
/// Calls add(from) for every 16 values in turn; a last few have zeros behind them.
template <class Add>
ANYBIT_INLINE void in_sixteens(const float* values, std::size_t n, const Add& add) {
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) add(values + i);
  if (i < n) {
    float last[16] = {};
    __builtin_memcpy(last, values + i, (n - i) * sizeof(float));
    add(last);
  }
}
/// Adds the upper half of the vectors to the lower, until one is left.
template <class Vector, std::size_t count>
ANYBIT_INLINE Vector add_vectors_by_halves(Vector (&v)[count]) {
#pragma GCC unroll 4
  for (std::size_t half = count / 2; half > 0; half /= 2)
#pragma GCC unroll 4
    for (std::size_t p = 0; p < half; ++p) v[p] += v[p + half];
  return v[0];
}

/// Sum j of 16 is that of |values[16 i + j]| * 2^-896; all are then added by halves. None may be infinite or NaN. The bits of a
/// float, moved to where a double has them, are that double, subnormals too, and nothing is rounded that would not be otherwise.
/// (Conversions would take more time than the sums.)
ANYBIT_INLINE double abs_sum_in_vectors(const float* values, std::size_t n) {
  typedef std::uint64_t Bits __attribute__((vector_size(ANYBIT_VECTOR_BYTES)));
  typedef double Doubles __attribute__((vector_size(ANYBIT_VECTOR_BYTES)));
  constexpr std::size_t lanes = ANYBIT_VECTOR_BYTES / sizeof(double), vectors = 8 / lanes;
  constexpr std::uint64_t magnitude = std::uint64_t{0x7FFFFFFF} << 29;
  Doubles even[vectors], odd[vectors];
#pragma GCC unroll 4
  for (std::size_t p = 0; p < vectors; ++p) even[p] = odd[p] = Doubles{};
  in_sixteens(values, n, [&](const float* from) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (std::size_t p = 0; p < vectors; ++p) {
      Bits two;
      __builtin_memcpy(&two, from + 2 * p * lanes, sizeof two);
      even[p] += reinterpret_cast<Doubles>(two << 29 & magnitude);
      odd[p] += reinterpret_cast<Doubles>(two >> 3 & magnitude);
    }
  });
  return sum_by_halves(add_vectors_by_halves(even)) + sum_by_halves(add_vectors_by_halves(odd));
}
#endif
}  // namespace detail

/// mean |v|, summed in double in 16 interleaved sums, which are added by halves; 0 for an empty span.
constexpr ANYBIT_INLINE float abs_mean(std::span<const float> values) {
  if (values.empty()) return 0;
  const auto mean = [&](double sum) { return static_cast<float>(sum / static_cast<double>(values.size())); };
#if defined(__GNUC__)
  if (!std::is_constant_evaluated())
    // An infinity or NaN would be 2^-768 or more.
    if (const double sum = detail::abs_sum_in_vectors(values.data(), values.size()); sum < 0x1p-768) return mean(sum * 0x1p896);
#endif
  double sums[16] = {};
  for (std::size_t i = 0; i < values.size(); ++i) sums[i % 16] += static_cast<double>(values[i] < 0 ? -values[i] : values[i]);
  for (std::size_t half = 8; half > 0; half /= 2)
    for (std::size_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  return mean(sums[0]);
}

/// The usual fit of a format without zero point: the largest weight lands on the level `largest` > 0, by default the largest
/// there is (found by trying every code, so a format of more than 12 bits does better to say it).
constexpr ANYBIT_INLINE Affine fit_abs_max(std::span<const float> values, float largest) {
  const float scale = abs_max(values) / largest;
  return {scale <= std::numeric_limits<float>::max() ? scale : std::numeric_limits<float>::max(), 0};
}
template <class F>
constexpr ANYBIT_INLINE Affine fit_abs_max(std::span<const float> values) {
  constexpr float largest = max_level<F>();
  static_assert(largest > 0, "anybit: fit_abs_max needs a format with a level other than 0");
  return fit_abs_max(values, largest);
}

/// The magnitude of the level that F::fit() puts the largest weight of a group on; 0 for a fit that looks at all weights.
template <class F>
constexpr float fitted_level() {
  constexpr float one[] = {1}, half_of_it[] = {1, 0};
  constexpr float scale = F::fit(one).scale;
  if (!(scale > 0) || F::fit(half_of_it).scale != scale) return 0;
  if constexpr (F::bits <= 12)  // the level itself, if there is one, and not the quotient of a rounded one
    for (std::size_t c = 0; c < (std::size_t{1} << F::bits); ++c) {
      const float v = F::decode(static_cast<Code>(c)), a = v < 0 ? -v : v;
      if (a > 0 && a <= std::numeric_limits<float>::max() && 1 / a == scale) return a;
    }
  return 1 / scale;
}

/// The code of weight w in a group with affine a. One definition for every algorithm, so that codes are equal on every
/// instruction set. A group with scale 0 holds only zeros.
template <Format F>
constexpr ANYBIT_INLINE Code quantize_value(float w, Affine a) {
  float x = 0;
  if (a.scale != 0) {
    x = w / a.scale;
    if constexpr (multiplies_by_reciprocal_v<F>) {
      const float reciprocal = 1.0f / a.scale;
      if (reciprocal <= std::numeric_limits<float>::max()) x = w * reciprocal;  // infinite below 2^-128
    }
  }
  if constexpr (has_zero_point_v<F>)
    return F::encode_around(x, a.zero);
  else
    return F::encode(x);
}

/// The weight that code c stands for.
template <Format F>
constexpr ANYBIT_INLINE float dequantize_value(Code c, Affine a) {
  if constexpr (has_zero_point_v<F>)
    return a.scale * (F::decode(c) - a.zero);
  else
    return a.scale * F::decode(c);
}

/// Rounds to the nearest whole number, ties to even, whatever the magnitude; infinities and NaN stay what they are.
/// Constexpr, and the same on every instruction set in the default rounding mode.
constexpr ANYBIT_INLINE float round_half_even(float x) {
  if (!std::is_constant_evaluated()) return std::nearbyintf(x);
  if (!(x > -0x1p23f && x < 0x1p23f)) return x;  // from 2^23 on every float is whole
  const auto i = static_cast<std::int32_t>(x);   // toward zero
  const float whole = static_cast<float>(i), rest = x - whole;
  const bool odd = (i & 1) != 0;
  if (rest > 0.5f || (rest == 0.5f && odd)) return whole + 1;
  if (rest < -0.5f || (rest == -0.5f && odd)) return whole - 1;
  return whole;
}

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
