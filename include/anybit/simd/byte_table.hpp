#pragma once
// Bytes looked up in a table of bytes, many at once.

#include <anybit/core/isa.hpp>
#include <anybit/simd/xsimd_compat.hpp>

#if ANYBIT_HAS_AVX512_VBMI
#include <anybit/simd/x86/bit_unpack_vbmi.hpp>
#endif

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// bytes[i] = table[bytes[i]], i < n, of bytes below 2^Bits. The table has 256 bytes.
template <int Bits>
ANYBIT_INLINE void look_up_bytes(const std::uint8_t* table, Index n, std::uint8_t* bytes) {
#if ANYBIT_HAS_AVX512_VBMI
  const __m512i a = _mm512_loadu_si512(table), b = _mm512_loadu_si512(table + 64), c = _mm512_loadu_si512(table + 128),
                d = _mm512_loadu_si512(table + 192);
  for (Index i = 0; i < n; i += 64) {
    const __mmask64 some = x86::detail::first_bytes(n - i);
    const __m512i at = _mm512_maskz_loadu_epi8(some, bytes + i);
    __m512i found;
    if constexpr (Bits <= 6)
      found = _mm512_permutexvar_epi8(at, a);
    else
      found = _mm512_permutex2var_epi8(a, at, b);
    if constexpr (Bits == 8) found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), found, _mm512_permutex2var_epi8(c, at, d));
    _mm512_mask_storeu_epi8(bytes + i, some, found);
  }
#elif ANYBIT_HAS_AVX2
  constexpr int parts = Bits <= 4 ? 1 : 1 << (Bits - 4);
  __m256i part[static_cast<std::size_t>(parts)];
  for (int p = 0; p < parts; ++p)
    part[p] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * p)));
  const auto found = [&](__m256i at) __attribute__((always_inline)) {
    const __m256i in_part = _mm256_and_si256(at, _mm256_set1_epi8(15));
    __m256i some[static_cast<std::size_t>(parts)];
#pragma GCC unroll 16
    for (int p = 0; p < parts; ++p) some[p] = _mm256_shuffle_epi8(part[p], in_part);
    // Bit 4 of the index, then 5, .., goes to the sign.
#pragma GCC unroll 4
    for (int left = parts, shift = 3; left > 1; left /= 2, --shift)
#pragma GCC unroll 8
      for (int p = 0; p < left / 2; ++p) some[p] = _mm256_blendv_epi8(some[2 * p], some[2 * p + 1], _mm256_slli_epi16(at, shift));
    return some[0];
  };
  Index i = 0;
  for (; i + 32 <= n; i += 32) {
    auto* const p = reinterpret_cast<__m256i*>(bytes + i);
    _mm256_storeu_si256(p, found(_mm256_loadu_si256(p)));
  }
  for (; i < n; ++i) bytes[i] = table[bytes[i]];
#else
  for (Index i = 0; i < n; ++i) bytes[i] = table[bytes[i]];
#endif
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
