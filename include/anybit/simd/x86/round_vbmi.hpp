#pragma once
// round_groups with AVX-512 VBMI, 64 weights at a time. simd/round_bytes.hpp explains it.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>

#include <anybit/simd/round_rule.hpp>
#include <anybit/simd/x86/bit_unpack_vbmi.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

namespace detail {
/// Byte 2 of the dwords of two vectors, in the lower or the upper half of the result.
struct ThirdBytes {
  alignas(64) std::array<std::uint8_t, 128> lists{};
};
inline constexpr ThirdBytes third_bytes = [] {
  ThirdBytes t;
  for (int i = 0; i < 64; ++i) {
    const auto source = static_cast<std::uint8_t>(4 * (i % 32) + 2);
    t.lists[static_cast<std::size_t>(i < 32 ? i : 64 + i)] = source;
  }
  return t;
}();
}  // namespace detail

template <int Fraction, bool Clamp, bool SignMagnitude>
bool round_groups_vbmi(const float* w, Index n, const Groups& groups, const float* factors, const RoundRule& rule,
                       std::uint8_t* out) {
  constexpr float base = static_cast<float>(1 << (23 - Fraction));
  const float half_up = base + static_cast<float>(rule.centre) + 0.5f;
  const __m512 magic = _mm512_set1_ps(half_up), least = _mm512_set1_ps(half_up + static_cast<float>(rule.lowest)),
               most = _mm512_set1_ps(half_up + static_cast<float>(rule.highest));
  const __m512i first_list = _mm512_load_si512(detail::third_bytes.lists.data()),
                second_list = _mm512_load_si512(detail::third_bytes.lists.data() + 64);
  [[maybe_unused]] __m512i codes_low{}, codes_high{};
  if constexpr (Fraction == 16) {
    codes_low = _mm512_loadu_si512(rule.codes);
    codes_high = _mm512_loadu_si512(rule.codes + 64);
  }
  const __m512i to_k = _mm512_set1_epi8(static_cast<char>(SignMagnitude ? -rule.centre : rule.shift - rule.centre)),
                mask = _mm512_set1_epi8(static_cast<char>(rule.mask)),
                least_byte = _mm512_set1_epi8(static_cast<char>(rule.centre + rule.lowest)),
                below_zero = _mm512_set1_epi8(static_cast<char>(rule.sign + rule.centre));
  const __m512i exponent = _mm512_castps_si512(_mm512_set1_ps(base));
  __m512i low = _mm512_set1_epi32(-1), differs = _mm512_setzero_si512();
  __m512 scale = _mm512_setzero_ps(), offset = magic;
  Index g = 0, end = 0;
  const auto start_group = [&](Index i) __attribute__((always_inline)) {
    if (i != end) return;
    scale = _mm512_set1_ps(factors[g]);
    if (groups.zeros) offset = _mm512_add_ps(magic, _mm512_set1_ps(groups.zeros[g]));
    end += g++ == 0 ? groups.first : groups.size;
  };
  /// k + centre in bits 16 and up.
  const auto round = [&](__m512 x) __attribute__((always_inline)) {
    __m512 sum = _mm512_fmadd_ps(x, scale, offset);
    if constexpr (Clamp) sum = _mm512_min_ps(most, _mm512_max_ps(least, sum));  // operands in this order let NaN pass
    __m512i bits = _mm512_castps_si512(sum);
    differs = _mm512_ternarylogic_epi32(differs, bits, exponent, 0xF6);  // differs | (bits ^ exponent)
    if constexpr (Fraction < 16) bits = _mm512_slli_epi32(bits, 16 - Fraction);
    low = _mm512_min_epu16(low, bits);
    return bits;
  };
  const auto codes_of = [&](__m512i a, __m512i b, __m512i c, __m512i d) __attribute__((always_inline)) {
    __m512i bytes =
        _mm512_mask_blend_epi64(0xF0, _mm512_permutex2var_epi8(a, first_list, b), _mm512_permutex2var_epi8(c, second_list, d));
    if constexpr (Fraction == 16) return _mm512_permutex2var_epi8(codes_low, bytes, codes_high);
    if constexpr (SignMagnitude) {
      bytes = _mm512_max_epu8(bytes, least_byte);
      const __m512i k = _mm512_add_epi8(bytes, to_k);
      return _mm512_mask_sub_epi8(k, _mm512_movepi8_mask(k), below_zero, bytes);
    } else {
      return _mm512_and_si512(_mm512_add_epi8(bytes, to_k), mask);
    }
  };
  Index i = 0;
  for (; i + 64 <= n; i += 64) {
    start_group(i);
    const __m512i a = round(_mm512_loadu_ps(w + i));
    start_group(i + 16);
    const __m512i b = round(_mm512_loadu_ps(w + i + 16));
    start_group(i + 32);
    const __m512i c = round(_mm512_loadu_ps(w + i + 32));
    start_group(i + 48);
    const __m512i d = round(_mm512_loadu_ps(w + i + 48));
    _mm512_storeu_si512(out + i, codes_of(a, b, c, d));
  }
  if (i < n) {
    __m512i parts[4];
    for (Index p = 0; p < 4; ++p) {
      const Index at = i + 16 * p, left = std::max<Index>(n - at, 0);
      if (left > 0) start_group(at);
      parts[p] = round(_mm512_maskz_loadu_ps(static_cast<__mmask16>(detail::first_bytes(std::min<Index>(left, 16))), w + at));
    }
    _mm512_mask_storeu_epi8(out + i, detail::first_bytes(n - i), codes_of(parts[0], parts[1], parts[2], parts[3]));
  }
  // The low half of each dword is the remainder, 0 in doubt; above 23 bits for k + centre and the remainder all sums are alike.
  const __mmask32 doubt = _mm512_testn_epi16_mask(low, low) & 0x55555555u;
  const __mmask16 outside = _mm512_test_epi32_mask(differs, _mm512_set1_epi32(static_cast<int>(0xFF800000)));
  return doubt == 0 && outside == 0;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
