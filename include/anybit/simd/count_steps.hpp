#pragma once
// Weights to the codes of a format that divides the number line into at most four intervals: the choice among the bodies.

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

/// out[i] = codes[how many of the steps are at or below w[i]]. `steps` are in rising order, one to three of them; `codes`
/// are 16 bytes. False if a weight is NaN: then `out` holds nothing.
inline bool count_steps(const float* w, Index n, const float* steps, int count, const std::uint8_t* codes, std::uint8_t* out) {
#if ANYBIT_HAS_AVX512_VBMI
  return x86::count_steps_vbmi(w, n, steps, count, codes, out);
#else
  return x86::count_steps_avx2(w, n, steps, count, codes, out);
#endif
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
#endif
