#pragma once
// Packing codes into a bit stream, 32 at a time with AVX2 and 64 with AVX-512 VBMI. Two multiply-adds join codes to pairs and
// pairs to fours, a shift joins fours to eights, and a byte shuffle closes the gaps between them.

#include <array>
#include <cstring>

#include <immintrin.h>

#include <anybit/core/isa.hpp>
#include <anybit/simd/bit_swar.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

namespace detail {
/// The bytes that hold something: Bits of every 8.
template <int Bits, int Bytes>
struct FilledBytes {
  alignas(64) std::array<std::uint8_t, static_cast<std::size_t>(Bytes)> list{};
};
template <int Bits, int Bytes>
inline constexpr FilledBytes<Bits, Bytes> filled_bytes = [] {
  FilledBytes<Bits, Bytes> f;
  for (int j = 0; j < Bytes; ++j)
    f.list[static_cast<std::size_t>(j)] = static_cast<std::uint8_t>(j < Bytes / 8 * Bits ? j / Bits * 8 + j % Bits : 0x80);
  return f;
}();
}  // namespace detail

/// n codes below 2^Bits. Writes ceil(n * Bits / 8) bytes; unused bits of the last are 0.
#if ANYBIT_HAS_AVX512_VBMI
template <int Bits>
void pack_bits_x86(const std::uint8_t* codes, std::byte* out, Index n) {
  static_assert(Bits >= 1 && Bits <= 7);
  const Index bytes = ceil_div(n * Bits, 8);
  const __m512i pairs = _mm512_set1_epi16(static_cast<short>(1 | 1 << (Bits + 8))),
                fours = _mm512_set1_epi32(1 | 1 << (2 * Bits + 16)), lower = _mm512_set1_epi64((1ll << (4 * Bits)) - 1),
                filled = _mm512_load_si512(detail::filled_bytes<Bits, 64>.list.data());
  const auto packed = [&](__m512i c) __attribute__((always_inline)) {
    const __m512i joined = _mm512_madd_epi16(_mm512_maddubs_epi16(pairs, c), fours);
    return _mm512_permutexvar_epi8(filled,
                                   _mm512_ternarylogic_epi64(lower, joined, _mm512_srli_epi64(joined, 32 - 4 * Bits), 0xCA));
  };
  Index i = 0;
  // Each store overwrites what is behind the bytes of the one before.
  for (; i + 64 <= n && i / 8 * Bits + 64 <= bytes; i += 64)
    _mm512_storeu_si512(out + i / 8 * Bits, packed(_mm512_loadu_si512(codes + i)));
  for (; i < n; i += 64) {
    const auto first = [](Index count) { return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1; };
    const Index rest = bytes - i / 8 * Bits;
    _mm512_mask_storeu_epi8(out + i / 8 * Bits, first(rest < 8 * Bits ? rest : 8 * Bits),
                            packed(_mm512_maskz_loadu_epi8(first(n - i), codes + i)));
  }
}
#else
template <int Bits>
void pack_bits_x86(const std::uint8_t* codes, std::byte* out, Index n) {
  static_assert(Bits >= 1 && Bits <= 7);
  const Index bytes = ceil_div(n * Bits, 8);
  const __m256i pairs = _mm256_set1_epi16(static_cast<short>(1 | 1 << (Bits + 8))),
                fours = _mm256_set1_epi32(1 | 1 << (2 * Bits + 16)), lower = _mm256_set1_epi64x((1ll << (4 * Bits)) - 1),
                filled = _mm256_broadcastsi128_si256(
                    _mm_load_si128(reinterpret_cast<const __m128i*>(detail::filled_bytes<Bits, 16>.list.data())));
  Index i = 0;
  // Each store overwrites what is behind the bytes of the one before.
  for (; i + 32 <= n && i / 8 * Bits + 2 * Bits + 16 <= bytes; i += 32) {
    const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i));
    const __m256i joined = _mm256_madd_epi16(_mm256_maddubs_epi16(pairs, c), fours);
    const __m256i eights =
        _mm256_or_si256(_mm256_and_si256(lower, joined), _mm256_andnot_si256(lower, _mm256_srli_epi64(joined, 32 - 4 * Bits)));
    const __m256i together = _mm256_shuffle_epi8(eights, filled);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i / 8 * Bits), _mm256_castsi256_si128(together));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i / 8 * Bits + 2 * Bits), _mm256_extracti128_si256(together, 1));
  }
  pack_bits_swar<Bits>(codes + i, out + i / 8 * Bits, n - i);
}
#endif

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END
