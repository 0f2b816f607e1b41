#pragma once
// Bytes looked up in tables of bytes, many at once.

#include <array>

#include <anybit/core/isa.hpp>
#include <anybit/simd/xsimd_compat.hpp>

#if ANYBIT_HAS_AVX512_VBMI
#include <anybit/simd/x86/bit_unpack_vbmi.hpp>
#include <anybit/simd/x86/byte_lookup_vbmi.hpp>
#elif ANYBIT_HAS_AVX2 && !ANYBIT_HAS_AVX512
#include <anybit/simd/x86/byte_lookup_avx2.hpp>
#endif

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

namespace detail {
#if ANYBIT_HAS_AVX512_VBMI
template <int Bits>
using ByteLookup = x86::ByteLookupVbmi<Bits>;
#elif ANYBIT_HAS_AVX2 && !ANYBIT_HAS_AVX512
template <int Bits>
using ByteLookup = x86::ByteLookupAvx2<Bits>;
#endif
}  // namespace detail

/// bytes[i] = table[bytes[i]], i < n, of bytes below 2^Bits. The table has 256 bytes.
template <int Bits>
ANYBIT_INLINE void look_up_bytes(const std::uint8_t* table, Index n, std::uint8_t* bytes) {
#if ANYBIT_HAS_AVX512_VBMI
  const detail::ByteLookup<Bits> found(table);
  for (Index i = 0; i < n; i += 64) {
    const __mmask64 some = x86::detail::first_bytes(n - i);
    _mm512_mask_storeu_epi8(bytes + i, some, found[_mm512_maskz_loadu_epi8(some, bytes + i)]);
  }
#else
  Index i = 0;
#if ANYBIT_HAS_AVX2 && !ANYBIT_HAS_AVX512
  const detail::ByteLookup<Bits> found(table);
  for (; i + 32 <= n; i += 32) {
    auto* const p = reinterpret_cast<__m256i*>(bytes + i);
    _mm256_storeu_si256(p, found[_mm256_loadu_si256(p)]);
  }
#endif
  for (; i < n; ++i) bytes[i] = table[bytes[i]];
#endif
}

#if ANYBIT_HAS_AVX512_VBMI || (ANYBIT_HAS_AVX2 && !ANYBIT_HAS_AVX512)
#define ANYBIT_LOOK_UP_PAIRS
/// out[i] = low[bytes[i]] | high[bytes[i]] << 8 of bytes below 2^Bits, for i < n rounded up to 64: both may be read and written
/// up to there. Tables have 256 bytes; where MirroredHalves, 8 bits that is, the upper half of `high` is the lower one with bit 7
/// set, that of `low` equal to its lower one, and neither is read.
template <int Bits, bool MirroredHalves>
ANYBIT_INLINE void look_up_pairs(const std::uint8_t* low, const std::uint8_t* high, const std::uint8_t* bytes, Index n,
                                 std::uint16_t* out) {
  static_assert(!MirroredHalves || Bits == 8);
  constexpr int index_bits = MirroredHalves ? 7 : Bits;
  const detail::ByteLookup<index_bits> low_of(low), high_of(high);
#if ANYBIT_HAS_AVX512_VBMI
  alignas(64) static constexpr auto lists = [] {
    std::array<std::uint8_t, 128> l{};
    for (std::size_t i = 0; i < 128; ++i) l[i] = static_cast<std::uint8_t>(i / 2 + i % 2 * 64);
    return l;
  }();
  const __m512i first_half = _mm512_load_si512(lists.data()), second_half = _mm512_load_si512(lists.data() + 64);
  for (Index i = 0; i < n; i += 64) {
    const __m512i at = _mm512_loadu_si512(bytes + i);
    const __m512i l = low_of[at];
    __m512i h = high_of[at];
    if constexpr (MirroredHalves) h = _mm512_ternarylogic_epi32(h, at, _mm512_set1_epi8(-128), 0xF8);  // h | (at & 128)
    _mm512_storeu_si512(out + i, _mm512_permutex2var_epi8(l, first_half, h));
    _mm512_storeu_si512(out + i + 32, _mm512_permutex2var_epi8(l, second_half, h));
  }
#else
  for (Index i = 0; i < round_up(n, 64); i += 32) {
    const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + i));
    const __m256i index = MirroredHalves ? _mm256_and_si256(at, _mm256_set1_epi8(127)) : at;
    const __m256i l = low_of[index];
    __m256i h = high_of[index];
    if constexpr (MirroredHalves) h = _mm256_or_si256(h, _mm256_and_si256(at, _mm256_set1_epi8(-128)));
    const __m256i a = _mm256_unpacklo_epi8(l, h), b = _mm256_unpackhi_epi8(l, h);  // 0-7 16-23, 8-15 24-31
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm256_permute2x128_si256(a, b, 0x20));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i + 16), _mm256_permute2x128_si256(a, b, 0x31));
  }
#endif
}
#endif

#if ANYBIT_HAS_AVX512_VBMI
#define ANYBIT_LOOK_UP_WORDS
/// out[i] = the four bytes that tables[0] .. tables[3] have at bytes[i], lowest first, of bytes below 2^Bits, for i < n rounded
/// up to 64: both may be read and written up to there.
template <int Bits>
ANYBIT_INLINE void look_up_words(const std::array<std::array<std::uint8_t, 256>, 4>& tables, const std::uint8_t* bytes, Index n,
                                 float* out) {
  const detail::ByteLookup<Bits> byte0(tables[0].data()), byte1(tables[1].data()), byte2(tables[2].data()),
      byte3(tables[3].data());
  // Where the bytes stand such that interleaving within lanes of 16 puts word i at place i.
  alignas(64) static constexpr auto order = [] {
    std::array<std::uint8_t, 64> at{};
    for (std::size_t i = 0; i < 64; ++i) at[i] = static_cast<std::uint8_t>(i / 4 % 4 * 16 + i / 16 * 4 + i % 4);
    return at;
  }();
  const __m512i places = _mm512_load_si512(order.data());
  for (Index i = 0; i < n; i += 64) {
    const __m512i at = _mm512_permutexvar_epi8(places, _mm512_loadu_si512(bytes + i));
    const __m512i b0 = byte0[at], b1 = byte1[at], b2 = byte2[at], b3 = byte3[at];
    const __m512i low = _mm512_unpacklo_epi8(b0, b1), high = _mm512_unpacklo_epi8(b2, b3);
    const __m512i low2 = _mm512_unpackhi_epi8(b0, b1), high2 = _mm512_unpackhi_epi8(b2, b3);
    _mm512_storeu_si512(out + i, _mm512_unpacklo_epi16(low, high));
    _mm512_storeu_si512(out + i + 16, _mm512_unpackhi_epi16(low, high));
    _mm512_storeu_si512(out + i + 32, _mm512_unpacklo_epi16(low2, high2));
    _mm512_storeu_si512(out + i + 48, _mm512_unpackhi_epi16(low2, high2));
  }
}
#endif

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
