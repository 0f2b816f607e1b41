#pragma once
// round_groups with AVX2 and FMA, 32 weights at a time. simd/round_bytes.hpp explains it.

#include <algorithm>
#include <cstring>

#include <immintrin.h>

#include <anybit/simd/round_rule.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

template <int Fraction, bool Clamp, bool SignMagnitude>
bool round_groups_avx2(const float* w, Index n, const Groups& groups, const float* factors, const RoundRule& rule,
                       std::uint8_t* out) {
  constexpr float base = static_cast<float>(1 << (23 - Fraction));
  const float half_up = base + static_cast<float>(rule.centre) + 0.5f;
  const __m256 magic = _mm256_set1_ps(half_up), least = _mm256_set1_ps(half_up + static_cast<float>(rule.lowest)),
               most = _mm256_set1_ps(half_up + static_cast<float>(rule.highest));
  const auto all = [](int v) { return _mm256_set1_epi8(static_cast<char>(v)); };
  const __m256i least_byte = all(rule.centre + rule.lowest), most_byte = all(rule.centre + rule.highest),
                to_k = all(SignMagnitude ? -rule.centre : rule.shift - rule.centre), mask = all(rule.mask),
                below_zero = all(rule.sign + rule.centre), in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  __m256i low = _mm256_set1_epi32(-1), high = _mm256_setzero_si256(), signs = high;
  __m256 scale = _mm256_setzero_ps(), offset = magic;
  Index g = 0, end = 0;
  const auto start_group = [&](Index i) __attribute__((always_inline)) {
    if (i != end) return;
    scale = _mm256_set1_ps(factors[g]);
    if (groups.zeros) offset = _mm256_add_ps(magic, _mm256_set1_ps(groups.zeros[g]));
    end += g++ == 0 ? groups.first : groups.size;
  };
  /// k + centre in bits 16 and up.
  const auto round = [&](__m256 x) __attribute__((always_inline)) {
    __m256 sum = _mm256_fmadd_ps(x, scale, offset);
    if constexpr (Clamp) sum = _mm256_min_ps(most, _mm256_max_ps(least, sum));  // operands in this order let NaN pass
    __m256i bits = _mm256_castps_si256(sum);
    if constexpr (Fraction < 16) {
      if constexpr (!Clamp) signs = _mm256_or_si256(signs, bits);
      bits = _mm256_slli_epi32(bits, 16 - Fraction);
    }
    low = _mm256_min_epu16(low, bits);
    high = _mm256_max_epu16(high, bits);
    return bits;
  };
  const auto codes_of = [&](__m256i a, __m256i b, __m256i c, __m256i d) __attribute__((always_inline)) {
    const auto third = [](__m256i x, int dword) __attribute__((always_inline)) {  // byte 2 of dwords, in this dword of each half
      const int list = 0x0E0A0602;
      return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(_mm_setr_epi32(dword == 0 ? list : -1, dword == 1 ? list : -1,
                                                                               dword == 2 ? list : -1, dword == 3 ? list : -1)));
    };
    __m256i bytes = _mm256_or_si256(_mm256_or_si256(third(a, 0), third(b, 1)), _mm256_or_si256(third(c, 2), third(d, 3)));
    if constexpr (Fraction == 16 || SignMagnitude) bytes = _mm256_max_epu8(bytes, least_byte);
    if constexpr (Fraction == 16) bytes = _mm256_min_epu8(bytes, most_byte);
    const __m256i k = _mm256_add_epi8(bytes, to_k);
    const __m256i codes =
        SignMagnitude ? _mm256_blendv_epi8(k, _mm256_sub_epi8(below_zero, bytes), k) : _mm256_and_si256(k, mask);
    return _mm256_permutevar8x32_epi32(codes, in_order);
  };
  const auto step = [&](const float* from, Index i) __attribute__((always_inline)) {
    start_group(i);
    const __m256i a = round(_mm256_loadu_ps(from)), b = round(_mm256_loadu_ps(from + 8));
    start_group(i + 16);
    const __m256i c = round(_mm256_loadu_ps(from + 16)), d = round(_mm256_loadu_ps(from + 24));
    return codes_of(a, b, c, d);
  };
  Index i = 0;
  for (; i + 32 <= n; i += 32) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), step(w + i, i));
  if (i < n) {
    float last[32] = {};
    std::uint8_t codes[32];
    std::memcpy(last, w + i, static_cast<std::size_t>(n - i) * sizeof(float));
    start_group(i);
    if (n - i <= 16) end = n + 16;  // no group starts in the second half, which holds no weights
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), step(last, i));
    std::memcpy(out + i, codes, static_cast<std::size_t>(n - i));
  }
  // The low half of each dword is the remainder, 0 in doubt; the high half is the exponent over k + centre.
  constexpr std::uint32_t exponent = static_cast<std::uint32_t>(127 + 23 - Fraction) << 23 << (16 - Fraction);
  constexpr int from = static_cast<int>(exponent >> 16), to = from + (1 << (23 - Fraction)) - 1;
  const auto word = [](int v) { return _mm256_set1_epi16(static_cast<short>(v)); };
  const __m256i zero = _mm256_setzero_si256(), high_halves = _mm256_set1_epi32(static_cast<int>(0xFFFF0000));
  const __m256i inside = _mm256_and_si256(_mm256_cmpeq_epi16(_mm256_max_epu16(low, word(from)), low),
                                          _mm256_cmpeq_epi16(_mm256_min_epu16(high, word(to)), high));
  const __m256i doubt =
      _mm256_blendv_epi8(_mm256_cmpeq_epi16(low, zero), _mm256_xor_si256(inside, _mm256_cmpeq_epi16(zero, zero)), high_halves);
  return _mm256_testz_si256(doubt, doubt) != 0 && _mm256_movemask_ps(_mm256_castsi256_ps(signs)) == 0;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END
