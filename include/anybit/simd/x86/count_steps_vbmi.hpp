#pragma once
// count_steps with AVX-512 VBMI, 64 weights at a time, compared with one step after the other.

#include <anybit/simd/x86/round_vbmi.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

inline bool count_steps_vbmi(const float* w, Index n, const float* steps, int count, const std::uint8_t* codes,
                             std::uint8_t* out) {
  const __m512i code_table = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  __mmask16 nan = 0;
  const auto codes_of = [&](__m512 a, __m512 b, __m512 c, __m512 d) __attribute__((always_inline)) {
    nan = static_cast<__mmask16>(nan | _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(c, d, _CMP_UNORD_Q));
    __m512i passed = _mm512_setzero_si512();
    for (int s = 0; s < count; ++s) {
      const __m512 step = _mm512_set1_ps(steps[s]);
      const auto reached = [&](__m512 x) { return static_cast<std::uint64_t>(_mm512_cmp_ps_mask(x, step, _CMP_GE_OQ)); };
      const __mmask64 mask = reached(a) | reached(b) << 16 | reached(c) << 32 | reached(d) << 48;
      passed = _mm512_sub_epi8(passed, _mm512_movm_epi8(mask));
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
