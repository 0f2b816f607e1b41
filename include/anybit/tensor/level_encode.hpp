#pragma once
// The encoders of formats whose levels are on no grid, in vectors. A format only gives a scalar encoder; here it is tried on both
// sides of every place where its code changes. One that rounds as a minifloat does is computed from the exponent's bits; of any
// other whose codes each stand for one stretch of the number line, the borders are searched by halves.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include <anybit/format/format.hpp>
#include <anybit/simd/byte_table.hpp>
#include <anybit/simd/groups.hpp>
#include <anybit/simd/search.hpp>
#include <anybit/simd/xsimd_compat.hpp>
#include <anybit/tensor/vector_decode.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::encoders {
inline namespace ANYBIT_CODE {

/// Floats in order as whole numbers: -0 and +0 are neighbours.
inline std::int64_t place_of(float x) {
  const auto bits = std::bit_cast<std::int32_t>(x);
  return bits < 0 ? -1 - std::int64_t{bits & 0x7FFFFFFF} : std::int64_t{bits};
}
inline float float_at(std::int64_t place) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(place < 0 ? 0x80000000 | (-1 - place) : place));
}

/// Rounding to a minifloat, ties to even, the largest level for all above it, code 0 for both zeros.
template <Format F>
  requires(decoding::float_shift_v<F>.fits)
struct FloatRounding {
  static constexpr decoding::FloatShift shape = decoding::float_shift_v<F>;
  static constexpr std::uint32_t half = 1u << (F::bits - 1);
  /// Bits of the least float whose exponent field is not 0.
  static constexpr std::uint32_t first = shape.twice();

  /// Codes of simd::width quotients, none of them NaN.
  static ANYBIT_INLINE simd::i32 codes(simd::f32 x) {
    const simd::u32 bits = simd::as_u32(x);
    const simd::f32 a = simd::min(simd::as_f32(bits & simd::broadcast(std::uint32_t{0x7FFFFFFF})),
                                  simd::broadcast(F::decode(static_cast<Code>(shape.finite - 1))));
    const simd::u32 binade = simd::as_u32(simd::max(simd::as_i32(simd::as_u32(a) & simd::broadcast(std::uint32_t{0x7F800000})),
                                                    simd::broadcast(static_cast<std::int32_t>(first))));
    // Added to a number whose last place is worth a step of this binade, `a` is rounded to steps, which end up in its last bits.
    const simd::u32 large = binade + simd::broadcast(static_cast<std::uint32_t>(shape.shift) << 23);
    const simd::u32 steps = simd::as_u32(a + simd::as_f32(large)) - large;
    // They count the mantissa's implied one, so they carry into the exponent by themselves.
    const simd::i32 magnitude = simd::as_i32(simd::shift_right(binade - simd::broadcast(first), shape.shift) + steps);
    const simd::i32 positive = (simd::broadcast(std::int32_t{0}) - magnitude) >> 31;
    const simd::i32 sign = simd::as_i32(simd::shift_right(bits, 32 - F::bits) & simd::broadcast(half));
    return magnitude | (sign & positive);
  }

  /// Whether F's encoder is this.
  static bool is_encoder() {
    static const bool is = [] {
      constexpr float inf = std::numeric_limits<float>::infinity(), largest = F::decode(static_cast<Code>(shape.finite - 1));
      if (F::encode(std::numeric_limits<float>::quiet_NaN()) != F::encode(0)) return false;
      const auto agree = [](float x) {
        float in[static_cast<std::size_t>(simd::width)];
        std::int32_t out[static_cast<std::size_t>(simd::width)];
        for (Index i = 0; i < simd::width; ++i) in[i] = i % 2 == 0 ? x : -x;
        simd::store(out, codes(simd::load(in)));
        return out[0] == F::encode(x) && out[1] == F::encode(-x);
      };
      for (const float x : {0.0f, 0x1p-149f, 0x1p-126f, largest, std::nextafter(largest, inf), 2 * largest, 0x1p127f})
        if (!agree(x)) return false;
      for (unsigned m = 0; m + 1 < shape.finite; ++m) {
        const float middle = 0.5f * F::decode(static_cast<Code>(m)) + 0.5f * F::decode(static_cast<Code>(m + 1));
        if (!agree(middle) || !agree(std::nextafter(middle, inf)) || !agree(std::nextafter(middle, -inf))) return false;
      }
      return true;
    }();
    return is;
  }
};

/// The places where a format's code changes, for any format of up to 8 bits whose codes each stand for one stretch of the number
/// line.
struct LevelSteps {
  bool usable = false;
  int count = 0;
  std::array<float, 256> from{};         ///< step i: the smallest x that has code[i + 1]; in rising order
  std::array<std::uint8_t, 256> code{};  ///< by the number of steps passed
  /// Some step is 0 or subnormal, so that it matters whether a tiny quotient is above 0.
  bool near_zero = false;
  alignas(64) std::array<float, 256> tree{};  ///< the floats just below the steps, as simd::StepSearch wants them

  /// `levels` are those of all codes.
  LevelSteps(int bits, Code (*encode)(float), std::span<const float> levels) {
    const auto most = (1 << bits) - 1;
    std::int64_t x = place_of(-std::numeric_limits<float>::infinity());
    const std::int64_t last = place_of(std::numeric_limits<float>::infinity());
    const auto code_of = [&](std::int64_t place) { return static_cast<std::uint8_t>(encode(float_at(place))); };
    const std::uint8_t last_code = code_of(last);
    code[0] = code_of(x);
    while (code[static_cast<std::size_t>(count)] != last_code) {
      std::int64_t same = x, changed = last;
      while (changed - same > 1) {
        const std::int64_t middle = same + (changed - same) / 2;
        (code_of(middle) == code[static_cast<std::size_t>(count)] ? same : changed) = middle;
      }
      if (count == most) return;  // a code came back: not one stretch
      from[static_cast<std::size_t>(count++)] = float_at(changed);
      code[static_cast<std::size_t>(count)] = code_of(changed);
      x = changed;
    }
    if (encode(-0.0f) != encode(0.0f) || encode(std::numeric_limits<float>::quiet_NaN()) != encode(0.0f)) return;
    for (const float level : levels)
      for (const float factor : {-1.0f, 0.0f, 0.5f, 0.999f, 1.0f, 1.001f})
        if (const float v = factor * level; v == v && static_cast<std::uint8_t>(encode(v)) != at(v)) return;
    for (int i = 0; i < count; ++i) {
      const float size = std::fabs(from[static_cast<std::size_t>(i)]);
      near_zero = near_zero || size < std::numeric_limits<float>::min();
      if (size >= std::numeric_limits<float>::min() && (size < 0x1p-40f || size > 0x1p40f)) return;
    }
    usable = true;
    simd::plant_search(
        bits, count, [&](int i) { return float_at(place_of(from[static_cast<std::size_t>(i)]) - 1); }, tree.data());
  }

  std::uint8_t at(float x) const {
    return code[static_cast<std::size_t>(std::upper_bound(from.begin(), from.begin() + count, x) - from.begin())];
  }
};

template <Format F>
  requires(F::bits <= 8)
const LevelSteps& level_steps() {
  static const LevelSteps steps(F::bits, [](float x) { return F::encode(x); }, decode_table_v<F>);
  return steps;
}

/// x / scale as quantize_value has it, of simd::width x; 0 where the scale is 0. Right to the last bit for finite x and scales
/// that in_range() allows, but for quotients below 2^-40, which get their sign and zero right.
template <bool ByReciprocal>
class Quotients {
 public:
  /// With a step near 0 a quotient that is not 0 must not become 0.
  static ANYBIT_INLINE bool in_range(float scale, bool near_zero) {
    return scale == 0 || (scale > 0x1p-60f && scale <= (near_zero ? 1.0f : 0x1p60f));
  }
  explicit ANYBIT_INLINE Quotients(float scale)
      : scale_(simd::broadcast(scale)), reciprocal_(simd::broadcast(scale == 0 ? 0.0f : 1.0f / scale)) {}
  ANYBIT_INLINE simd::f32 operator()(simd::f32 x) const {
    if constexpr (ByReciprocal)
      return x * reciprocal_;
    else
      return simd::divide(x, scale_, reciprocal_);
  }

 private:
  simd::f32 scale_, reciprocal_;
};

/// Weights of many groups: codes(quotients, out) for 1 or 4 vectors at once. False if a weight is not finite or a scale out of
/// range: then `out` holds nothing.
template <bool ByReciprocal, class Codes>
ANYBIT_INLINE bool each_quotient(const float* w, Index n, const simd::Groups& groups, bool near_zero, std::uint8_t* out,
                                 Codes codes) {
  simd::f32 finite = simd::zero();
  Index i = 0, g = 0, end = groups.first;
  for (; i < n; ++g, end += groups.size) {
    if (!Quotients<ByReciprocal>::in_range(groups.scales[g], near_zero)) return false;
    const Quotients<ByReciprocal> quotients(groups.scales[g]);
    const auto some = [&]<std::size_t Vectors>(std::integral_constant<std::size_t, Vectors>) __attribute__((always_inline)) {
      simd::f32 x[Vectors];
#pragma GCC unroll 4
      for (std::size_t v = 0; v < Vectors; ++v) {
        x[v] = quotients(simd::load(w + i + static_cast<Index>(v) * simd::width));
        finite = simd::fma(x[v], simd::zero(), finite);
      }
      simd::i32 c[Vectors];
      codes(x, c);
#pragma GCC unroll 4
      for (std::size_t v = 0; v < Vectors; ++v) simd::store_u8(out + i + static_cast<Index>(v) * simd::width, c[v]);
      i += static_cast<Index>(Vectors) * simd::width;
    };
    const Index stop = std::min(end, n);
    while (i + 4 * simd::width <= stop) some(std::integral_constant<std::size_t, 4>());
    while (i + simd::width <= stop) some(std::integral_constant<std::size_t, 1>());
    if (i < stop) {
      const simd::f32 x[1] = {quotients(simd::load_partial(w + i, stop - i))};
      finite = simd::fma(x[0], simd::zero(), finite);
      simd::i32 c[1];
      codes(x, c);
      std::uint8_t last[static_cast<std::size_t>(simd::width)];
      simd::store_u8(last, c[0]);
      std::memcpy(out + i, last, static_cast<std::size_t>(stop - i));
      i = stop;
    }
  }
  return simd::reduce_add(finite) == 0;
}

/// quantize_value of n weights by FloatRounding or LevelSteps; false where those do not serve.
template <Format F>
bool quantize_by_floats(const float* w, Index n, const simd::Groups& groups, std::uint8_t* out) {
  return each_quotient<multiplies_by_reciprocal_v<F>>(
      w, n, groups, false, out, []<std::size_t V>(const simd::f32(&x)[V], simd::i32(&codes)[V]) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (std::size_t v = 0; v < V; ++v) codes[v] = FloatRounding<F>::codes(x[v]);
      });
}
template <int Bits, bool ByReciprocal>
bool quantize_by_search(const LevelSteps& steps, const float* w, Index n, const simd::Groups& groups, std::uint8_t* out) {
  const simd::StepSearch<Bits> search(steps.tree.data());
  if (!each_quotient<ByReciprocal>(w, n, groups, steps.near_zero, out,
                                   [&](const auto& x, auto& at) __attribute__((always_inline)) { search(x, at); }))
    return false;
  simd::look_up_bytes<Bits>(steps.code.data(), n, out);
  return true;
}
template <Format F>
bool quantize_by_search(const float* w, Index n, const simd::Groups& groups, std::uint8_t* out) {
  return quantize_by_search<F::bits, multiplies_by_reciprocal_v<F>>(level_steps<F>(), w, n, groups, out);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::encoders
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
