#pragma once
// Weights to the codes of a format that divides the number line into at most 16 intervals: the choice among the bodies.

#include <anybit/core/isa.hpp>
#include <anybit/simd/vector_code.hpp>

#if ANYBIT_HAS_AVX512_VBMI
#define ANYBIT_COUNT_STEPS
#include <anybit/simd/x86/count_steps_vbmi.hpp>
#elif ANYBIT_HAS_AVX2
#define ANYBIT_COUNT_STEPS
#include <anybit/simd/x86/count_steps_avx2.hpp>
#endif

#if defined(ANYBIT_COUNT_STEPS)
ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// out[i] = codes[how many of the steps are at or below w[i]]. `steps` are 16 floats in rising order, of which `count` are steps
/// and the others NaN; `codes` are 16. False if a weight is NaN: then `out` holds nothing.
inline bool count_steps(const float* w, Index n, const float* steps, int count, const std::uint8_t* codes, std::uint8_t* out) {
#if ANYBIT_HAS_AVX512_VBMI
  return count <= 3 ? x86::count_steps_vbmi<true>(w, n, steps, count, codes, out)
                    : x86::count_steps_vbmi<false>(w, n, steps, count, codes, out);
#else
  return count <= 3 ? x86::count_steps_avx2<true>(w, n, steps, count, codes, out)
                    : x86::count_steps_avx2<false>(w, n, steps, count, codes, out);
#endif
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
#endif
