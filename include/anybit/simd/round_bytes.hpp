#pragma once
// Weights to the codes of a uniform format, vectorized, without a division: the choice among the bodies.
//
// A weight times 1 / scale is added to a number so large that the sum has Fraction places after the point. Code and remainder
// then stand side by side in the bits of the sum. The product is not quite the quotient that decides codes, but it is nearer to
// it than 2^-(Fraction + 1); so a code can only differ where the sum falls on the very border between two codes, and then the
// functions say that they are not certain. One such case in thousands of weights costs little.

#include <anybit/core/isa.hpp>
#include <anybit/simd/round_rule.hpp>
#include <anybit/simd/vector_code.hpp>

#if ANYBIT_HAS_AVX512_VBMI
#define ANYBIT_ROUND_BYTES
#include <anybit/simd/x86/round_vbmi.hpp>
#elif ANYBIT_HAS_AVX2
#define ANYBIT_ROUND_BYTES
#include <anybit/simd/x86/round_avx2.hpp>
#endif

#if defined(ANYBIT_ROUND_BYTES)
ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// Groups are multiples of 16, or reach past the end. Without Clamp weights must stay near the codes' range. False if any code is
/// in doubt (a tie, a weight out of range, not a number): then `out` holds nothing.
template <int Fraction, bool Clamp, bool SignMagnitude>
bool round_groups(const float* w, Index n, const Groups& groups, const float* factors, const RoundRule& rule, std::uint8_t* out) {
#if ANYBIT_HAS_AVX512_VBMI
  return x86::round_groups_vbmi<Fraction, Clamp, SignMagnitude>(w, n, groups, factors, rule, out);
#else
  return x86::round_groups_avx2<Fraction, Clamp, SignMagnitude>(w, n, groups, factors, rule, out);
#endif
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
#endif
