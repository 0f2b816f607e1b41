#pragma once
// The concept of a scale store: the bytes of a matrix's scales.

#include <anybit/core/macros_begin.hpp>

#include <bit>
#include <concepts>
#include <cstring>
#include <limits>
#include <span>
#include <string_view>

#include <anybit/core/fixed_string.hpp>
#include <anybit/core/half.hpp>
#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// joint             true when the stored form of one scale depends on the others (double quantization)
/// largest           every scale above is stored as this one is: it saturates, and a Report counts it
/// bytes(n)          bytes of n scales
/// round_trip(s)     replaces scales by what load() will give after store(); all scales of a matrix if joint. Idempotent.
/// store(s, out)     writes bytes(s.size()) bytes
/// load(in, n, first, out)  reads scales first .. first + out.size() - 1 of n
/// Scales are finite and not negative; stored scales always are too (overflow saturates).
/// A store whose scales depend on the format has `template <class F> using of`, the store of format F, under the same name.
/// docs/tutorial/04_a_scheme_of_your_own.md writes one; testing/scheme_laws.hpp has the laws.
template <class S>
concept ScaleStore = requires(Index n, std::span<float> s, std::span<const float> cs, std::byte* out, const std::byte* in) {
  { S::name } -> std::convertible_to<std::string_view>;
  { S::joint } -> std::convertible_to<bool>;
  { S::largest } -> std::convertible_to<float>;
  { S::bytes(n) } -> std::same_as<Index>;
  S::round_trip(s);
  S::store(cs, out);
  S::load(in, n, n, s);
};

/// Every stored scale is a binary16 number (the store says binary16 = true), so that a kernel may keep it as one.
template <class S>
concept Binary16Scales = ScaleStore<S> && requires { requires S::binary16; };

/// The format's levels are the values: every scale is 1 and takes no bytes.
struct NoScale {
  static constexpr auto name = FixedString("noscale");
  static constexpr bool joint = false;
  static constexpr float largest = 1;
  static constexpr Index bytes(Index) { return 0; }
  static ANYBIT_INLINE void round_trip(std::span<float> s) {
    for (float& v : s) v = 1;
  }
  static ANYBIT_INLINE void store(std::span<const float>, std::byte*) {}
  static ANYBIT_INLINE void load(const std::byte*, Index, Index, std::span<float> out) { round_trip(out); }
};

/// A store in which every scale stands alone as one Pattern (an unsigned integer), to derive from: Codec, the derived class,
/// gives encode(float) -> Pattern and decode(Pattern) -> float, its name and its largest scale.
template <class Codec, class Pattern>
struct IndependentScales {
  static constexpr bool joint = false;
  static constexpr Index bytes(Index n) { return n * static_cast<Index>(sizeof(Pattern)); }
  static ANYBIT_INLINE void round_trip(std::span<float> s) {
    for (float& v : s) v = Codec::decode(Codec::encode(v));
  }
  static ANYBIT_INLINE void store(std::span<const float> s, std::byte* out) {
    for (std::size_t i = 0; i < s.size(); ++i) {
      const Pattern p = Codec::encode(s[i]);
      std::memcpy(out + i * sizeof(Pattern), &p, sizeof(Pattern));
    }
  }
  static ANYBIT_INLINE void load(const std::byte* in, Index, Index first, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      Pattern p;
      std::memcpy(&p, in + (static_cast<std::size_t>(first) + i) * sizeof(Pattern), sizeof(Pattern));
      out[i] = Codec::decode(p);
    }
  }
};

struct ScaleF32 : IndependentScales<ScaleF32, std::uint32_t> {
  static constexpr auto name = FixedString("f32");
  static constexpr float largest = std::numeric_limits<float>::max();
  static constexpr ANYBIT_INLINE std::uint32_t encode(float s) { return std::bit_cast<std::uint32_t>(s); }
  static constexpr ANYBIT_INLINE float decode(std::uint32_t p) { return std::bit_cast<float>(p); }
};
struct ScaleF16 : IndependentScales<ScaleF16, std::uint16_t> {
  static constexpr auto name = FixedString("f16");
  static constexpr bool binary16 = true;
  static constexpr float largest = 65504;
  static constexpr ANYBIT_INLINE std::uint16_t encode(float s) { return f32_to_f16(s < largest ? s : largest); }
  static constexpr ANYBIT_INLINE float decode(std::uint16_t p) { return f16_to_f32(p); }
};
struct ScaleBF16 : IndependentScales<ScaleBF16, std::uint16_t> {
  static constexpr auto name = FixedString("bf16");
  static constexpr float largest = 0x1.FEp127f;
  static constexpr ANYBIT_INLINE std::uint16_t encode(float s) { return f32_to_bf16(s < largest ? s : largest); }
  static constexpr ANYBIT_INLINE float decode(std::uint16_t p) { return bf16_to_f32(p); }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
