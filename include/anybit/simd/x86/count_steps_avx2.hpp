#pragma once
// count_steps with AVX2, 32 weights at a time: up to three steps are compared one by one, more by bisection. A
// comparison gives -1, so counts are kept negative; tables are indexed with them modulo their size.

#include <cstring>

#include <immintrin.h>

#include <anybit/core/types.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

template <bool Few>
bool count_steps_avx2(const float* w, Index n, const float* steps, int count, const std::uint8_t* codes, std::uint8_t* out) {
  alignas(16) std::uint8_t by_count[16];
  for (int c = 0; c < 16; ++c) by_count[-c & 15] = codes[c];
  const __m256i code_table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(by_count))),
                in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256 middle = _mm256_set1_ps(steps[7]), quarter = _mm256_set1_ps(steps[3]), three_quarters = _mm256_set1_ps(steps[11]),
               eighths = _mm256_setr_ps(steps[1], 0, 0, 0, 0, steps[13], steps[9], steps[5]),
               sixteenths = _mm256_setr_ps(steps[0], steps[14], steps[12], steps[10], steps[8], steps[6], steps[4], steps[2]);
  const auto reached = [](__m256 x, __m256 step) { return _mm256_castps_si256(_mm256_cmp_ps(x, step, _CMP_GE_OQ)); };
  const auto minus_passed = [&](__m256 x) __attribute__((always_inline)) {
    if constexpr (Few) {
      __m256i passed = reached(x, _mm256_set1_ps(steps[0]));
      for (int s = 1; s < count; ++s) passed = _mm256_add_epi32(passed, reached(x, _mm256_set1_ps(steps[s])));
      return passed;
    }
    const auto next = [](__m256i at, __m256i more) { return _mm256_add_epi32(_mm256_add_epi32(at, at), more); };
    __m256i at = reached(x, middle);
    at = next(at, reached(x, _mm256_blendv_ps(quarter, three_quarters, _mm256_castsi256_ps(at))));
    at = next(at, reached(x, _mm256_permutevar8x32_ps(eighths, at)));
    return next(at, reached(x, _mm256_permutevar8x32_ps(sixteenths, at)));
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
