#pragma once
// count_steps with AVX-512 VBMI, 64 weights at a time: up to three steps are compared one by one, more by bisection.

#include <anybit/simd/x86/round_vbmi.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

template <bool Few>
bool count_steps_vbmi(const float* w, Index n, const float* steps, int count, const std::uint8_t* codes, std::uint8_t* out) {
  const __m512i code_table = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  const __m512 all = _mm512_loadu_ps(steps);
  const __m512i bits = _mm512_castps_si512(all);
  const __m512 by_one = _mm512_castsi512_ps(_mm512_alignr_epi32(bits, bits, 1)),
               by_three = _mm512_castsi512_ps(_mm512_alignr_epi32(bits, bits, 3)), middle = _mm512_set1_ps(steps[7]);
  const __m512i first_list = _mm512_sub_epi8(_mm512_load_si512(detail::third_bytes.lists.data()), _mm512_set1_epi8(2)),
                second_list = _mm512_sub_epi8(_mm512_load_si512(detail::third_bytes.lists.data() + 64), _mm512_set1_epi8(2));
  const auto all_of = [](int v) { return _mm512_set1_epi32(v); };
  const auto search = [&](__m512 x) __attribute__((always_inline)) {
    __m512i at = _mm512_maskz_mov_epi32(_mm512_cmp_ps_mask(x, middle, _CMP_GE_OQ), all_of(8));
    at = _mm512_mask_add_epi32(at, _mm512_cmp_ps_mask(x, _mm512_permutexvar_ps(at, by_three), _CMP_GE_OQ), at, all_of(4));
    at = _mm512_mask_add_epi32(at, _mm512_cmp_ps_mask(x, _mm512_permutexvar_ps(at, by_one), _CMP_GE_OQ), at, all_of(2));
    return _mm512_mask_add_epi32(at, _mm512_cmp_ps_mask(x, _mm512_permutexvar_ps(at, all), _CMP_GE_OQ), at, all_of(1));
  };
  __mmask16 nan = 0;
  const auto codes_of = [&](__m512 a, __m512 b, __m512 c, __m512 d) __attribute__((always_inline)) {
    nan = static_cast<__mmask16>(nan | _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(c, d, _CMP_UNORD_Q));
    __m512i passed = _mm512_setzero_si512();
    if constexpr (Few) {
      for (int s = 0; s < count; ++s) {
        const __m512 step = _mm512_set1_ps(steps[s]);
        const auto reached = [&](__m512 x) { return static_cast<std::uint64_t>(_mm512_cmp_ps_mask(x, step, _CMP_GE_OQ)); };
        const __mmask64 mask = reached(a) | reached(b) << 16 | reached(c) << 32 | reached(d) << 48;
        passed = _mm512_sub_epi8(passed, _mm512_movm_epi8(mask));
      }
    } else {
      passed = _mm512_mask_blend_epi64(0xF0, _mm512_permutex2var_epi8(search(a), first_list, search(b)),
                                       _mm512_permutex2var_epi8(search(c), second_list, search(d)));
    }
    return _mm512_shuffle_epi8(code_table, passed);
  };
  Index i = 0;
  for (; i + 64 <= n; i += 64)
    _mm512_storeu_si512(out + i, codes_of(_mm512_loadu_ps(w + i), _mm512_loadu_ps(w + i + 16), _mm512_loadu_ps(w + i + 32),
                                          _mm512_loadu_ps(w + i + 48)));
  if (i < n) {
    const auto part = [&](Index p) {
      const Index left = std::clamp<Index>(n - i - 16 * p, 0, 16);
      return _mm512_maskz_loadu_ps(static_cast<__mmask16>(detail::first_bytes(left)), w + i + 16 * p);
    };
    _mm512_mask_storeu_epi8(out + i, detail::first_bytes(n - i), codes_of(part(0), part(1), part(2), part(3)));
  }
  return nan == 0;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END
