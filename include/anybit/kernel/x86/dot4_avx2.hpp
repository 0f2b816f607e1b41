#pragma once
// The vocabulary of kernel/dot_vocabulary.hpp in AVX2 intrinsics. For translation units that have AVX2 and FMA.

#include <cstdint>
#include <cstring>

#if !defined(ANYBIT_TEST_SIMDE)  // a test supplies emulated intrinsics
#include <immintrin.h>
#endif

#include <anybit/core/isa.hpp>
#include <anybit/core/types.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {
/// The sums of the lanes of 8 vectors.
ANYBIT_INLINE void sum_lanes(const __m256i (&v)[8], std::int32_t* out) {
  const __m256i a = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
  const __m256i b = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                      _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31)));
}
/// dot(a, b, x) adds 32 products to the lanes of a.
template <class Dot>
ANYBIT_INLINE void segment_dots(const std::uint8_t* b, const std::int8_t* x, Index n, Index count, std::int32_t* out, Dot dot) {
  const auto load = [](const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); };
  __m256i sum[8];
#pragma GCC unroll 8
  for (Index s = 0; s < 8; ++s) {
    sum[s] = _mm256_setzero_si256();
    if (s < count)
      for (Index k = s * n; k < (s + 1) * n; k += 32) sum[s] = dot(sum[s], load(b + k), load(x + k));
  }
  sum_lanes(sum, out);
}
}  // namespace detail

struct Avx2 {
  struct Ints {
    __m256i low, high;
  };
  struct Floats {
    __m256 low, high;
  };
  struct Bytes {
    __m256i low, high;
  };
  struct Shorts {
    __m256i low, high;
  };
  static constexpr int tile_tokens = 4, row_tokens = 2;
  static constexpr int token_group = 4, direct_tokens = 8, direct_bits = 4, direct_sums = 4, direct_tiles = 4, blocked_tiles = 1;
  static constexpr Index ahead = 384;

  static ANYBIT_INLINE Ints products(const std::int32_t* o, std::int32_t s) {
    const __m256i m = _mm256_set1_epi32(s);
    return {_mm256_mullo_epi32(m, load_ints(o)), _mm256_mullo_epi32(m, load_ints(o + 8))};
  }
  static ANYBIT_INLINE Ints products(Ints o, std::int32_t s) {
    const __m256i m = _mm256_set1_epi32(s);
    return {_mm256_mullo_epi32(m, o.low), _mm256_mullo_epi32(m, o.high)};
  }
  static ANYBIT_INLINE Ints equal(std::int32_t i) { return {_mm256_set1_epi32(i), _mm256_set1_epi32(i)}; }
  static ANYBIT_INLINE Ints widen(const std::uint8_t* p) {
    const auto half = [](const std::uint8_t* q) {
      return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q)));
    };
    return {half(p), half(p + 8)};
  }
  template <int Shift, int Mask>
  static ANYBIT_INLINE Bytes field(Bytes b) {
    if constexpr (Mask == 255) return b;
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(Mask));
    return {_mm256_and_si256(shifted<Shift>(b.low), mask), _mm256_and_si256(shifted<Shift>(b.high), mask)};
  }
  template <int Shift, int Mask>
  static ANYBIT_INLINE Bytes add_field(Bytes a, Bytes b) {
    b = field<Shift, Mask>(b);
    return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)};
  }
  template <int Bits>
  struct Table {
    static constexpr int parts = Bits <= 4 ? 1 : 1 << (Bits - 4);  // of 16 bytes
    __m256i v[static_cast<std::size_t>(parts)];
  };
  template <int Bits>
  static ANYBIT_INLINE Table<Bits> load_table(const std::uint8_t* p) {
    Table<Bits> t;
    for (auto& v : t.v) v = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), p += 16;
    return t;
  }
  template <int Bits>
  static ANYBIT_INLINE Bytes look_up(const Table<Bits>& t, Bytes b) {
    return {look_up<Bits>(t, b.low), look_up<Bits>(t, b.high)};
  }
  static ANYBIT_INLINE Floats load_f16(const std::byte* p) {
    const auto half = [](const std::byte* q) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q))); };
    return {half(p), half(p + 16)};
  }
  static ANYBIT_INLINE Bytes load_bytes(const std::uint8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
  template <int MaxByte>
  static ANYBIT_INLINE Ints dot4(Ints a, Bytes b, const std::int8_t* x) {
    const __m256i v = four_columns(x);
    return {dot4<MaxByte>(a.low, b.low, v), dot4<MaxByte>(a.high, b.high, v)};
  }
  static ANYBIT_INLINE void store_bytes(std::uint8_t* p, Bytes b) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), b.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), b.high);
  }
  /// Bytes above 128 would saturate vpmaddubsw: there it multiplies |b - 128| by x with the sign of b - 128.
  static constexpr std::int32_t bias(int max_byte) { return max_byte > 128 ? 128 : 0; }
  static constexpr int short_sums(int max_byte) {
    const int sums = 32767 / (2 * 127 * max_byte);
    return sums > 1 ? sums : 0;
  }
  template <int MaxByte>
  static ANYBIT_INLINE Ints tile_dot4(Ints a, Bytes b, const std::int8_t* x) {
    if constexpr (bias(MaxByte) == 0) return dot4<MaxByte>(a, b, x);
    const __m256i v = four_columns(x), ones = _mm256_set1_epi16(1);
    const auto half = [&](__m256i sum, __m256i u) __attribute__((always_inline)) {
      static_assert(2 * 127 * 128 <= 32767);
      const __m256i centred = _mm256_xor_si256(u, _mm256_set1_epi8(-128));
      const __m256i two = _mm256_maddubs_epi16(_mm256_abs_epi8(centred), _mm256_sign_epi8(v, centred));
      return _mm256_add_epi32(sum, _mm256_madd_epi16(two, ones));
    };
    return {half(a.low, b.low), half(a.high, b.high)};
  }
  template <int MaxByte>
  static ANYBIT_INLINE Shorts tile_dot4(Shorts a, Bytes b, const std::int8_t* x) {
    static_assert(short_sums(MaxByte) > 1);
    const __m256i v = four_columns(x);
    a.low = _mm256_add_epi16(a.low, _mm256_maddubs_epi16(b.low, v));
    a.high = _mm256_add_epi16(a.high, _mm256_maddubs_epi16(b.high, v));
#if defined(__GNUC__) && !defined(__clang__) && ANYBIT_HAS_AVX2
    // Else g++ gathers the additions of several steps at their end and spills the products until then.
    asm("" : "+x"(a.low), "+x"(a.high));
#endif
    return a;
  }
  static ANYBIT_INLINE Shorts no_shorts() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static ANYBIT_INLINE Ints add(Ints a, Shorts b) {
    const __m256i ones = _mm256_set1_epi16(1);
    return {_mm256_add_epi32(a.low, _mm256_madd_epi16(b.low, ones)), _mm256_add_epi32(a.high, _mm256_madd_epi16(b.high, ones))};
  }
  static ANYBIT_INLINE Ints add(Ints a, Ints b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
  template <int Shift>
  static ANYBIT_INLINE Ints divided(Ints a) {
    if constexpr (Shift > 0) return {_mm256_srai_epi32(a.low, Shift), _mm256_srai_epi32(a.high, Shift)};
    if constexpr (Shift < 0) return {_mm256_slli_epi32(a.low, -Shift), _mm256_slli_epi32(a.high, -Shift)};
    return a;
  }
  static ANYBIT_INLINE Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static ANYBIT_INLINE Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static ANYBIT_INLINE void store(float* p, Floats f) {
    _mm256_storeu_ps(p, f.low);
    _mm256_storeu_ps(p + 8, f.high);
  }
  static ANYBIT_INLINE Floats scaled(Floats a, float s) {
    const __m256 m = _mm256_set1_ps(s);
    return {_mm256_mul_ps(a.low, m), _mm256_mul_ps(a.high, m)};
  }
  static ANYBIT_INLINE Floats multiply_add(Ints a, Floats s, Floats c) {
    return {_mm256_fmadd_ps(_mm256_cvtepi32_ps(a.low), s.low, c.low),
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(a.high), s.high, c.high)};
  }
  template <int MaxByte>
  static ANYBIT_INLINE void segment_dots(const std::uint8_t* b, const std::int8_t* x, Index n, Index count, std::int32_t* out) {
    detail::segment_dots(b, x, n, count, out, [](__m256i a, __m256i u, __m256i v) { return dot4<MaxByte>(a, u, v); });
  }
  static ANYBIT_INLINE void interleave(const std::uint8_t* rows, Index stride, Index n, std::uint8_t* out) {
    for (Index half = 0; half < 2; ++half)
      for (Index k = 0; k < n; k += 8) transpose8(rows + half * 8 * stride + 4 * k, stride, out + k * 64 + half * 32);
  }

 protected:
  static ANYBIT_INLINE __m256i four_columns(const std::int8_t* x) {
    std::int32_t four;
    std::memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
  }

 private:
  template <int Bits>
  static ANYBIT_INLINE __m256i look_up(const Table<Bits>& t, __m256i b) {
    if constexpr (Bits <= 4) return _mm256_shuffle_epi8(t.v[0], b);
    const __m256i low = _mm256_and_si256(b, _mm256_set1_epi8(15)), high = _mm256_and_si256(b, _mm256_set1_epi8(-16));
    __m256i found = _mm256_shuffle_epi8(t.v[0], low);
#pragma GCC unroll 16
    for (int i = 1; i < Table<Bits>::parts; ++i)
      found = _mm256_blendv_epi8(found, _mm256_shuffle_epi8(t.v[i], low),
                                 _mm256_cmpeq_epi8(high, _mm256_set1_epi8(static_cast<char>(16 * i))));
    return found;
  }
  /// Of 16-bit lanes: what comes over from a neighbouring byte is for a mask to remove.
  template <int Shift>
  static ANYBIT_INLINE __m256i shifted(__m256i b) {
    if constexpr (Shift > 0)
      return _mm256_srli_epi16(b, Shift);
    else if constexpr (Shift < 0)
      return _mm256_slli_epi16(b, -Shift);
    else
      return b;
  }
  static ANYBIT_INLINE __m256i load_ints(const std::int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }

  template <int MaxByte>
  static ANYBIT_INLINE __m256i dot4(__m256i a, __m256i b, __m256i x) {
    const __m256i ones = _mm256_set1_epi16(1);
    if constexpr (MaxByte <= 128) {
      // vpmaddubsw saturates sums of two products: here they stay within 16 bits.
      static_assert(2 * 127 * 128 <= 32767);
      return _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(b, x), ones));
    } else {
      // The low 7 bits and bit 7 apart: b = low + 128 * top, each safe on its own.
      static_assert(MaxByte <= 255 && 2 * 127 * 127 <= 32767);
      const __m256i low = _mm256_and_si256(b, _mm256_set1_epi8(127));
      const __m256i top = _mm256_and_si256(_mm256_srli_epi16(b, 7), _mm256_set1_epi8(1));
      a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(low, x), ones));
      return _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(top, x), _mm256_set1_epi16(128)));
    }
  }

  /// 8 rows of 8 dwords to 8 columns, 64 bytes apart.
  static ANYBIT_INLINE void transpose8(const std::uint8_t* in, Index stride, std::uint8_t* out) {
    __m256i r[8], s[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i * stride));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      s[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
      s[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      r[4 * i] = _mm256_unpacklo_epi64(s[4 * i], s[4 * i + 2]);
      r[4 * i + 1] = _mm256_unpackhi_epi64(s[4 * i], s[4 * i + 2]);
      r[4 * i + 2] = _mm256_unpacklo_epi64(s[4 * i + 1], s[4 * i + 3]);
      r[4 * i + 3] = _mm256_unpackhi_epi64(s[4 * i + 1], s[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * 64), _mm256_permute2x128_si256(r[i], r[i + 4], 0x20));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + (i + 4) * 64), _mm256_permute2x128_si256(r[i], r[i + 4], 0x31));
    }
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
ANYBIT_VECTOR_CODE_END
