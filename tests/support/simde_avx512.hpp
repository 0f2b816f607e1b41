#pragma once
// AVX-512 intrinsics on a processor without them, by SIMDe (Debian: libsimde-dev), for tests only. Include it first, then
// the header under test. Where the flags name AVX-512 VBMI these are the processor's own.
// ANYBIT_TEST_HAS_AVX512 says whether there are any.

#define ANYBIT_TEST_SIMDE

#include <anybit/core/isa.hpp>

#if ANYBIT_HAS_AVX512_VBMI
#include <immintrin.h>
#define ANYBIT_TEST_HAS_AVX512 1
#elif __has_include(<simde/x86/avx512.h>)
#define SIMDE_ENABLE_NATIVE_ALIASES
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"  // emulated vectors are passed by value; nothing else is compiled to receive them
#endif
#include <simde/x86/avx512.h>
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed"  // SIMDe asks for vectors that clang cannot make; said where they are inlined
#endif
#define ANYBIT_TEST_HAS_AVX512 1

#include <cmath>
#include <cstdint>
#include <cstring>

#include <anybit/core/half.hpp>

// What SIMDe 0.7.4 lacks. Masked-off bytes are not touched, as the processor does not.
namespace simde_missing {
inline simde__m512i maskz_loadu_epi8(std::uint64_t mask, const void* p) {
  std::uint8_t bytes[64] = {};
  for (int i = 0; i < 64; ++i)
    if (mask >> i & 1) bytes[i] = static_cast<const std::uint8_t*>(p)[i];
  return simde_mm512_loadu_si512(bytes);
}
inline void mask_storeu_epi8(void* p, std::uint64_t mask, simde__m512i v) {
  std::uint8_t bytes[64];
  simde_mm512_storeu_si512(bytes, v);
  for (int i = 0; i < 64; ++i)
    if (mask >> i & 1) static_cast<std::uint8_t*>(p)[i] = bytes[i];
}
inline simde__m512i mulhi_epu16(simde__m512i a, simde__m512i b) {
  std::uint16_t x[32], y[32];
  simde_mm512_storeu_si512(x, a);
  simde_mm512_storeu_si512(y, b);
  for (int i = 0; i < 32; ++i) x[i] = static_cast<std::uint16_t>((std::uint32_t{x[i]} * y[i]) >> 16);
  return simde_mm512_loadu_si512(x);
}
inline simde__m512i srai_epi32(simde__m512i a, unsigned count) {
  std::int32_t x[16];
  simde_mm512_storeu_si512(x, a);
  for (auto& v : x) v >>= count;
  return simde_mm512_loadu_si512(x);
}
inline simde__m512 cvtepi32_ps(simde__m512i a) {
  std::int32_t x[16];
  float y[16];
  simde_mm512_storeu_si512(x, a);
  for (int i = 0; i < 16; ++i) y[i] = static_cast<float>(x[i]);
  return simde_mm512_loadu_ps(y);
}
inline simde__m512i cvtepu8_epi32(simde__m128i a) {
  std::uint8_t x[16];
  std::int32_t y[16];
  simde_mm_storeu_si128(x, a);
  for (int i = 0; i < 16; ++i) y[i] = x[i];
  return simde_mm512_loadu_si512(y);
}
inline simde__m512 cvtph_ps(simde__m256i a) {
  std::uint16_t x[16];
  float y[16];
  simde_mm256_storeu_si256(x, a);
  for (int i = 0; i < 16; ++i) y[i] = anybit::f16_to_f32(x[i]);
  return simde_mm512_loadu_ps(y);
}
inline simde__m256 cvtph_ps_8(simde__m128i a) {
  std::uint16_t x[8];
  float y[8];
  simde_mm_storeu_si128(x, a);
  for (int i = 0; i < 8; ++i) y[i] = anybit::f16_to_f32(x[i]);
  return simde_mm256_loadu_ps(y);
}
/// SIMDe has one that rounds twice where the flags have no FMA; the processor rounds once.
inline simde__m256 fmadd_ps_8(simde__m256 a, simde__m256 b, simde__m256 c) {
  float x[8], y[8], z[8];
  simde_mm256_storeu_ps(x, a);
  simde_mm256_storeu_ps(y, b);
  simde_mm256_storeu_ps(z, c);
  for (int i = 0; i < 8; ++i) z[i] = std::fma(x[i], y[i], z[i]);
  return simde_mm256_loadu_ps(z);
}
inline simde__m512 fmadd_ps(simde__m512 a, simde__m512 b, simde__m512 c) {
  float x[16], y[16], z[16];
  simde_mm512_storeu_ps(x, a);
  simde_mm512_storeu_ps(y, b);
  simde_mm512_storeu_ps(z, c);
  for (int i = 0; i < 16; ++i) z[i] = std::fma(x[i], y[i], z[i]);
  return simde_mm512_loadu_ps(z);
}
}  // namespace simde_missing
#define __mmask64 std::uint64_t
#if !ANYBIT_HAS_AVX2
#undef _mm256_cvtph_ps
#define _mm256_cvtph_ps(a) ::simde_missing::cvtph_ps_8(a)
#undef _mm256_fmadd_ps
#define _mm256_fmadd_ps(a, b, c) ::simde_missing::fmadd_ps_8(a, b, c)
#endif
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps(a, b, c) ::simde_missing::fmadd_ps(a, b, c)
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32(a) ::simde_missing::cvtepu8_epi32(a)
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps(a) ::simde_missing::cvtph_ps(a)
#undef _mm512_srai_epi32
#define _mm512_srai_epi32(a, count) ::simde_missing::srai_epi32(a, count)
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(a) ::simde_missing::cvtepi32_ps(a)
#undef _mm512_mulhi_epu16
#define _mm512_mulhi_epu16(a, b) ::simde_missing::mulhi_epu16(a, b)
#undef _mm512_maskz_loadu_epi8
#define _mm512_maskz_loadu_epi8(mask, p) ::simde_missing::maskz_loadu_epi8(mask, p)
#undef _mm512_mask_storeu_epi8
#define _mm512_mask_storeu_epi8(p, mask, v) ::simde_missing::mask_storeu_epi8(p, mask, v)
#else
#define ANYBIT_TEST_HAS_AVX512 0
#endif
