#pragma once
// 64 states of a trellis code with a linear codebook to bytes, with AVX2.

#include <anybit/core/macros_begin.hpp>

#include <anybit/core/isa.hpp>

#if ANYBIT_HAS_AVX2
#define ANYBIT_SIMD_X86_TRELLIS_LINES_AVX2 1

#include <immintrin.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include <anybit/simd/linear_codebook.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// line(tile, q): bytes 64 q .. 64 q + 63 of a tile in the order of steps, level + 128 each.
template <int L, int K, class Book>
struct TrellisLinesAvx2 {
  using Tables = LinearTables<L, Book>;
  static constexpr bool usable = eight_in_a_word<L, K> && Tables::symmetric;

  struct Line {
    __m256i halves[2];
  };

  static ANYBIT_INLINE Line line(const std::byte* tile, Index q) {
    Line out;
#pragma GCC unroll 2
    for (Index half = 0; half < 2; ++half) {
      __m256i s[4];  // states of 8 steps each
#pragma GCC unroll 4
      for (Index i = 0; i < 4; ++i) {
        const __m256i word = _mm256_set1_epi64x(static_cast<long long>(bits_of_eight<K>(tile, q, 4 * half + i)));
        const __m256i window = _mm256_srlv_epi32(_mm256_shuffle_epi8(word, constant(bytes_of)), constant(bits_of));
        s[i] = _mm256_and_si256(window, _mm256_set1_epi32(0xffff));
      }
      const __m256i a = _mm256_packus_epi32(s[0], s[1]), b = _mm256_packus_epi32(s[2], s[3]);
      const __m256i byte = _mm256_set1_epi16(255);
      __m256i index = mapped<0>(_mm256_packus_epi16(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte)));
      if constexpr (L > 8)
        index = _mm256_xor_si256(index, mapped<2>(_mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8))));
      // Packing works in halves: dwords are those of words 0, 1, 2, 3, 0, ..
      out.halves[half] = _mm256_permutevar8x32_epi32(levels(index), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    }
    return out;
  }

 private:
  template <class T>
  static ANYBIT_INLINE __m256i constant(const T& a) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(a.data()));
  }
  static ANYBIT_INLINE __m256i twice(const std::uint8_t* sixteen) {
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(sixteen)));
  }
  /// A byte's two nibbles, number `first` and the next one of the state, into the index.
  template <std::size_t first>
  static ANYBIT_INLINE __m256i mapped(__m256i bytes) {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i low = _mm256_shuffle_epi8(twice(Tables::nibbles[first].data()), _mm256_and_si256(bytes, nibble));
    if constexpr (4 * (first + 1) >= L) return low;
    return _mm256_xor_si256(low, _mm256_shuffle_epi8(twice(Tables::nibbles[first + 1].data()),
                                                     _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble)));
  }
  /// A look-up gives 0 where the index is negative: with 16 less from part to part, the parts of the table up to the index's own
  /// add up, each stored as its difference from the one before.
  static ANYBIT_INLINE __m256i levels(__m256i index) {
    __m256i at = _mm256_and_si256(index, _mm256_set1_epi8(127));
    __m256i sum = _mm256_shuffle_epi8(twice(differences.data()), at);
#pragma GCC unroll 7
    for (std::size_t part = 1; part < 8; ++part) {
      at = _mm256_sub_epi8(at, _mm256_set1_epi8(16));
      sum = _mm256_xor_si256(sum, _mm256_shuffle_epi8(twice(differences.data() + 16 * part), at));
    }
    return _mm256_sign_epi8(sum, _mm256_or_si256(index, _mm256_set1_epi8(1)));
  }
  alignas(64) static constexpr std::array<std::uint8_t, 128> differences = [] {
    std::array<std::uint8_t, 128> d = Tables::upper;
    for (std::size_t i = 16; i < 128; ++i) d[i] = Tables::upper[i] ^ Tables::upper[i - 16];
    return d;
  }();
  alignas(32) static constexpr std::array<std::uint8_t, 32> bytes_of = [] {
    std::array<std::uint8_t, 32> b{};
    for (int i = 0; i < 32; ++i)
      b[static_cast<std::size_t>(i)] = i % 4 == 3 ? 0x80 : static_cast<std::uint8_t>(first_byte<K>(i / 4) + i % 4);
    return b;
  }();
  alignas(32) static constexpr std::array<std::int32_t, 8> bits_of = [] {
    std::array<std::int32_t, 8> b{};
    for (int m = 0; m < 8; ++m) b[static_cast<std::size_t>(m)] = first_bit<K>(m);
    return b;
  }();
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END

#endif  // ANYBIT_HAS_AVX2

#include <anybit/core/macros_end.hpp>
