#pragma once
// count_steps with AVX2, 32 weights at a time, compared with one step after the other. A comparison gives -1, so counts
// are kept negative; the table is indexed with them modulo its size.

#include <cstring>

#include <immintrin.h>

#include <anybit/core/types.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

inline bool count_steps_avx2(const float* w, Index n, const float* steps, int count, const std::uint8_t* codes,
                             std::uint8_t* out) {
  alignas(16) std::uint8_t by_count[16];
  for (int c = 0; c < 16; ++c) by_count[-c & 15] = codes[c];
  const __m256i code_table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(by_count))),
                in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const auto reached = [](__m256 x, __m256 step) { return _mm256_castps_si256(_mm256_cmp_ps(x, step, _CMP_GE_OQ)); };
  const auto minus_passed = [&](__m256 x) __attribute__((always_inline)) {
    __m256i passed = reached(x, _mm256_set1_ps(steps[0]));
    for (int s = 1; s < count; ++s) passed = _mm256_add_epi32(passed, reached(x, _mm256_set1_ps(steps[s])));
    return passed;
  };
  __m256 nan = _mm256_setzero_ps();
  const auto step = [&](const float* from) __attribute__((always_inline)) {
    const __m256 a = _mm256_loadu_ps(from), b = _mm256_loadu_ps(from + 8), c = _mm256_loadu_ps(from + 16),
                 d = _mm256_loadu_ps(from + 24);
    nan = _mm256_or_ps(nan, _mm256_or_ps(_mm256_cmp_ps(a, b, _CMP_UNORD_Q), _mm256_cmp_ps(c, d, _CMP_UNORD_Q)));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(minus_passed(a), minus_passed(b)),
                                             _mm256_packs_epi32(minus_passed(c), minus_passed(d)));
    return _mm256_shuffle_epi8(code_table, _mm256_and_si256(_mm256_permutevar8x32_epi32(bytes, in_order), _mm256_set1_epi8(15)));
  };
  Index i = 0;
  for (; i + 32 <= n; i += 32) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), step(w + i));
  if (i < n) {
    float last[32] = {};
    std::uint8_t found[32];
    std::memcpy(last, w + i, static_cast<std::size_t>(n - i) * sizeof(float));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(found), step(last));
    std::memcpy(out + i, found, static_cast<std::size_t>(n - i));
  }
  return _mm256_movemask_ps(nan) == 0;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END
