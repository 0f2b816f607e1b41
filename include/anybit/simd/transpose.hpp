#pragma once
// Squares of floats, turned over: rows of a row-major matrix become vectors of one column each.

#include <cstdint>
#include <cstring>

#include <anybit/core/isa.hpp>
#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// out[c * stride + r] = lane c of row(r), for r < width and c < cols <= width. `row` is called once for each r.
template <class Row>
ANYBIT_INLINE void transpose(Row&& row, float* out, Index stride, Index cols) {
  constexpr auto n = static_cast<std::size_t>(width);
#if ANYBIT_HAS_AVX512
  __m512 a[n], b[n];
#pragma GCC unroll 16
  for (std::size_t r = 0; r < n; ++r) a[r] = row(static_cast<Index>(r));
#pragma GCC unroll 8
  for (std::size_t r = 0; r < n; r += 2) {
    b[r] = _mm512_unpacklo_ps(a[r], a[r + 1]);
    b[r + 1] = _mm512_unpackhi_ps(a[r], a[r + 1]);
  }
  // Of four rows each: a[r + j] has columns j, 4 + j, 8 + j, 12 + j in its quarters.
  const auto pairs = [](__m512 x, __m512 y, bool high) {
    const __m512d u = _mm512_castps_pd(x), v = _mm512_castps_pd(y);
    return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(u, v) : _mm512_unpacklo_pd(u, v));
  };
#pragma GCC unroll 4
  for (std::size_t r = 0; r < n; r += 4) {
    a[r] = pairs(b[r], b[r + 2], false), a[r + 1] = pairs(b[r], b[r + 2], true);
    a[r + 2] = pairs(b[r + 1], b[r + 3], false), a[r + 3] = pairs(b[r + 1], b[r + 3], true);
  }
#pragma GCC unroll 4
  for (std::size_t j = 0; j < 4; ++j) {
    const __m512 top = _mm512_shuffle_f32x4(a[j], a[4 + j], 0x44), top_right = _mm512_shuffle_f32x4(a[j], a[4 + j], 0xEE);
    const __m512 low = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0x44),
                 low_right = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0xEE);
    b[j] = _mm512_shuffle_f32x4(top, low, 0x88), b[4 + j] = _mm512_shuffle_f32x4(top, low, 0xDD);
    b[8 + j] = _mm512_shuffle_f32x4(top_right, low_right, 0x88), b[12 + j] = _mm512_shuffle_f32x4(top_right, low_right, 0xDD);
  }
#pragma GCC unroll 16
  for (std::size_t c = 0; c < n; ++c)
    if (static_cast<Index>(c) < cols) _mm512_storeu_ps(out + static_cast<Index>(c) * stride, b[c]);
#elif ANYBIT_HAS_AVX2
  __m256 a[n], b[n];
#pragma GCC unroll 8
  for (std::size_t r = 0; r < n; ++r) a[r] = row(static_cast<Index>(r));
#pragma GCC unroll 4
  for (std::size_t r = 0; r < n; r += 2) b[r] = _mm256_unpacklo_ps(a[r], a[r + 1]), b[r + 1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
  // Of four rows each: a[r + j] has columns j and 4 + j in its halves.
#pragma GCC unroll 2
  for (std::size_t r = 0; r < n; r += 4) {
    a[r] = _mm256_shuffle_ps(b[r], b[r + 2], 0x44), a[r + 1] = _mm256_shuffle_ps(b[r], b[r + 2], 0xEE);
    a[r + 2] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0x44), a[r + 3] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (std::size_t j = 0; j < 4; ++j) {
    b[j] = _mm256_permute2f128_ps(a[j], a[4 + j], 0x20);
    b[4 + j] = _mm256_permute2f128_ps(a[j], a[4 + j], 0x31);
  }
#pragma GCC unroll 8
  for (std::size_t c = 0; c < n; ++c)
    if (static_cast<Index>(c) < cols) _mm256_storeu_ps(out + static_cast<Index>(c) * stride, b[c]);
#else
  float lanes[n];
  for (Index r = 0; r < width; ++r) {
    store(lanes, row(r));
    for (Index c = 0; c < cols; ++c) out[c * stride + r] = lanes[c];
  }
#endif
}

/// Rows of n dwords, `stride` bytes apart, woven: dword k of row r becomes number k * Rows + r.
template <Index Rows>
inline void weave_dwords(const std::int8_t* from, Index stride, Index n, std::int8_t* out) {
  Index k = 0;
#if ANYBIT_HAS_AVX2
  if constexpr (Rows == 8) {
    for (; k + 8 <= n; k += 8) {
      __m256i a[8], b[8];
#pragma GCC unroll 8
      for (Index r = 0; r < 8; ++r) a[r] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + r * stride + 4 * k));
#pragma GCC unroll 4
      for (Index r = 0; r < 8; r += 2)
        b[r] = _mm256_unpacklo_epi32(a[r], a[r + 1]), b[r + 1] = _mm256_unpackhi_epi32(a[r], a[r + 1]);
      // Of four rows each: a[r + j] has dwords j and 4 + j in its halves.
#pragma GCC unroll 2
      for (Index r = 0; r < 8; r += 4) {
        a[r] = _mm256_unpacklo_epi64(b[r], b[r + 2]), a[r + 1] = _mm256_unpackhi_epi64(b[r], b[r + 2]);
        a[r + 2] = _mm256_unpacklo_epi64(b[r + 1], b[r + 3]), a[r + 3] = _mm256_unpackhi_epi64(b[r + 1], b[r + 3]);
      }
      const auto put = [&](Index row, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * (k + row)), v); };
#pragma GCC unroll 4
      for (Index j = 0; j < 4; ++j)
        put(j, _mm256_permute2x128_si256(a[j], a[4 + j], 0x20)), put(4 + j, _mm256_permute2x128_si256(a[j], a[4 + j], 0x31));
    }
  } else if constexpr (Rows == 4) {
    for (; k + 4 <= n; k += 4) {
      const auto row = [&](Index r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * stride + 4 * k)); };
      const auto put = [&](Index c, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * (k + c)), v); };
      const __m128i a = _mm_unpacklo_epi32(row(0), row(1)), b = _mm_unpackhi_epi32(row(0), row(1));
      const __m128i c = _mm_unpacklo_epi32(row(2), row(3)), d = _mm_unpackhi_epi32(row(2), row(3));
      put(0, _mm_unpacklo_epi64(a, c)), put(1, _mm_unpackhi_epi64(a, c));
      put(2, _mm_unpacklo_epi64(b, d)), put(3, _mm_unpackhi_epi64(b, d));
    }
  }
#endif
  for (; k < n; ++k)
    for (Index r = 0; r < Rows; ++r) std::memcpy(out + 4 * (k * Rows + r), from + r * stride + 4 * k, 4);
}

#if ANYBIT_HAS_AVX512
/// The same as transpose() for 16 rows of 32 elements of 16 bits each: row(r) is where row r begins, and each is loaded once.
template <class Row>
ANYBIT_INLINE void transpose_halves(Row&& row, std::uint16_t* out, Index stride) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (Index r = 0; r < 16; ++r) a[r] = _mm512_loadu_si512(row(r));
  // Each step interleaves the first eight vectors with the others. In a quarter of 8 columns, element e of row r is the (8 r +
  // e)th; four steps turn these 3 + 4 bits around, so that it becomes the (16 e + r)th.
#pragma GCC unroll 8
  for (std::size_t r = 0; r < 8; ++r)
    b[2 * r] = _mm512_unpacklo_epi16(a[r], a[r + 8]), b[2 * r + 1] = _mm512_unpackhi_epi16(a[r], a[r + 8]);
#pragma GCC unroll 8
  for (std::size_t r = 0; r < 8; ++r)
    a[2 * r] = _mm512_unpacklo_epi16(b[r], b[r + 8]), a[2 * r + 1] = _mm512_unpackhi_epi16(b[r], b[r + 8]);
#pragma GCC unroll 8
  for (std::size_t r = 0; r < 8; ++r)
    b[2 * r] = _mm512_unpacklo_epi16(a[r], a[r + 8]), b[2 * r + 1] = _mm512_unpackhi_epi16(a[r], a[r + 8]);
#pragma GCC unroll 8
  for (std::size_t r = 0; r < 8; ++r)
    a[2 * r] = _mm512_unpacklo_epi16(b[r], b[r + 8]), a[2 * r + 1] = _mm512_unpackhi_epi16(b[r], b[r + 8]);
  // Rows 0 to 7 of columns e, 8 + e, 16 + e and 24 + e are the quarters of a[2 e], rows 8 to 15 those of a[2 e + 1].
  const __m512i left = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), right = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
#pragma GCC unroll 8
  for (Index e = 0; e < 8; ++e) {
    const __m512i x = _mm512_permutex2var_epi64(a[2 * e], left, a[2 * e + 1]);
    const __m512i y = _mm512_permutex2var_epi64(a[2 * e], right, a[2 * e + 1]);
    const auto put = [&](Index c, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + c * stride), v); };
    put(e, _mm512_castsi512_si256(x)), put(8 + e, _mm512_extracti64x4_epi64(x, 1));
    put(16 + e, _mm512_castsi512_si256(y)), put(24 + e, _mm512_extracti64x4_epi64(y, 1));
  }
}
#endif

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
