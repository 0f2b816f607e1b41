#pragma once
// Packed codes of a bit stream straight to floats with AVX2, for levels that are whole multiples of a power of two: 8 codes a
// vector. A byte shuffle puts the two bytes that hold a code into the upper half of a dword, a multiplication by a power of two
// moves the code to the top of it, and a mask clears what is below. The dword is then the code's number times a power of two,
// which belongs to the scale.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstring>

#include <immintrin.h>

#include <anybit/simd/groups.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

enum class Sign {
  magnitude,        ///< the highest bit negates what the bits below it say
  twos_complement,  ///< the code is a signed number
  none,             ///< the code is a number from 0, to which a constant may be added
};

namespace detail {

/// Bit of the dword above a code.
constexpr int top_bit(Sign sign) { return sign == Sign::none ? 31 : 32; }

/// Of 8 codes in 8 bytes, which both halves hold.
template <int Bits, Sign S>
struct TopWindows {
  alignas(32) std::array<std::int8_t, 32> bytes{};
  alignas(32) std::array<std::uint16_t, 16> factors{};
};
template <int Bits, Sign S>
inline constexpr TopWindows<Bits, S> top_windows = [] {
  TopWindows<Bits, S> w;
  for (int i = 0; i < 8; ++i) {
    const int at = i * Bits / 8, offset = i * Bits % 8;
    const auto dword = static_cast<std::size_t>(i);
    w.bytes[4 * dword] = w.bytes[4 * dword + 1] = -1;  // zero
    w.bytes[4 * dword + 2] = static_cast<std::int8_t>(at);
    w.bytes[4 * dword + 3] = static_cast<std::int8_t>(offset + Bits > 8 ? at + 1 : -1);
    w.factors[2 * dword + 1] = static_cast<std::uint16_t>(1 << (top_bit(S) - 16 - Bits - offset));
  }
  return w;
}();

ANYBIT_INLINE std::int64_t load8(const std::byte* p) {
  std::int64_t v;
  std::memcpy(&v, p, 8);
  return v;
}
/// The bytes from `at` on of `n`, without reading behind them; zeros follow.
ANYBIT_INLINE std::int64_t load_last8(const std::byte* p, Index at, Index n) {
  if (at + 8 <= n) return load8(p + at);
  if (n >= 8) return static_cast<std::int64_t>(static_cast<std::uint64_t>(load8(p + n - 8)) >> (8 * (at + 8 - n)));
  std::int64_t v = 0;
  std::memcpy(&v, p + at, static_cast<std::size_t>(n - at));
  return v;
}

}  // namespace detail

/// What the scales that dequantize_steps_avx2 gets are multiplied with, for levels that are multiples of `step`.
template <int Bits, Sign S>
constexpr float unit_of_steps(float step) {
  return step / static_cast<float>(std::uint64_t{1} << (detail::top_bit(S) - Bits));
}

/// scale / unit * step * (number + lowest - zero), rounded once. Offset says whether there are zeros or a `lowest`. Groups are
/// multiples of 16, or reach past the end. Reads ceil(n * Bits / 8) bytes.
template <int Bits, Sign S, bool Offset>
void dequantize_steps_avx2(const std::byte* in, Index n, int lowest, Groups groups, float* out) {
  static_assert(Bits >= 2 && Bits <= 7);
  constexpr int below = detail::top_bit(S) - Bits;
  const auto constant = [](const auto& list) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(list.data())); };
  const __m256i bytes = constant(detail::top_windows<Bits, S>.bytes), factors = constant(detail::top_windows<Bits, S>.factors),
                mask = _mm256_set1_epi32(
                    static_cast<int>(((std::uint64_t{1} << (S == Sign::magnitude ? Bits - 1 : Bits)) - 1) << below));
  // Up to here 16 codes can be read as two times 8 bytes.
  const Index all = ceil_div(n * Bits, 8), whole = all < Bits + 8 ? 0 : std::min(n / 16, (all - Bits - 8) / (2 * Bits) + 1) * 16;
  Index i = 0, end = groups.first;
  for (Index g = 0; i < n; ++g, end += groups.size) {
    const __m256 scale = _mm256_set1_ps(groups.scales[g]);
    [[maybe_unused]] const __m256 offset = _mm256_set1_ps((static_cast<float>(lowest) - (groups.zeros ? groups.zeros[g] : 0.0f)) *
                                                          static_cast<float>(std::uint64_t{1} << below));
    const auto eight = [&](std::int64_t codes) __attribute__((always_inline)) {
      const __m256i raised = _mm256_mullo_epi16(_mm256_shuffle_epi8(_mm256_set1_epi64x(codes), bytes), factors);
      __m256i number = _mm256_and_si256(raised, mask);
      if constexpr (S == Sign::magnitude) number = _mm256_sign_epi32(number, raised);
      __m256 floats = _mm256_cvtepi32_ps(number);
      if constexpr (Offset) floats = _mm256_add_ps(floats, offset);
      return _mm256_mul_ps(floats, scale);
    };
    const Index stop = std::min(end, n);
    for (const Index full = std::min(stop, whole); i < full; i += 16) {
      _mm256_storeu_ps(out + i, eight(detail::load8(in + i / 8 * Bits)));
      _mm256_storeu_ps(out + i + 8, eight(detail::load8(in + i / 8 * Bits + Bits)));
    }
    for (; i < stop; i += 8) {
      const __m256 floats = eight(detail::load_last8(in, i / 8 * Bits, all));
      if (n - i >= 8) {
        _mm256_storeu_ps(out + i, floats);
      } else {
        float some[8];
        _mm256_storeu_ps(some, floats);
        std::memcpy(out + i, some, static_cast<std::size_t>(n - i) * sizeof(float));
      }
    }
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
