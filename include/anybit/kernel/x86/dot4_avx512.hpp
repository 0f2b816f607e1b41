#pragma once
// The vocabulary of kernel/dot_vocabulary.hpp in AVX-512 intrinsics with VNNI, whose dot products cannot saturate.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>

#include <anybit/core/isa.hpp>
#include <anybit/kernel/x86/dot4_avx2.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// Of Avx512Vnni::Fold: in each quarter of a vector the bytes of rows 4 q, 4 q + 1 become words of the one, those of the next two
/// of the other.
struct alignas(64) RowsOfWords {
  std::int16_t low[32]{}, high[32]{};
  constexpr RowsOfWords() {
    for (int i = 0; i < 32; ++i) {
      low[i] = static_cast<std::int16_t>(i / 8 * 4 + i % 8 / 4);
      high[i] = static_cast<std::int16_t>(low[i] + 2);
    }
  }
};
inline constexpr RowsOfWords rows_of_words;

}  // namespace detail

struct Avx512Vnni {
  using Ints = __m512i;
  using Floats = __m512;
  using Bytes = __m512i;
  static constexpr int tile_tokens = 8, row_tokens = 2;
  static constexpr int token_group = 8, direct_tokens = 32, direct_bits = 4, direct_sums = 16, direct_tiles = 4,
                       blocked_tiles = 2;
  static constexpr Index ahead = 384;

  static ANYBIT_INLINE Ints products(const std::int32_t* o, std::int32_t s) {
    return _mm512_mullo_epi32(_mm512_loadu_si512(o), _mm512_set1_epi32(s));
  }
  static ANYBIT_INLINE Ints products(Ints o, std::int32_t s) { return _mm512_mullo_epi32(o, _mm512_set1_epi32(s)); }
  static ANYBIT_INLINE Ints equal(std::int32_t i) { return _mm512_set1_epi32(i); }
  static ANYBIT_INLINE Ints widen(const std::uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  template <int Shift, int Mask>
  static ANYBIT_INLINE Bytes field(Bytes b) {
    return Mask == 255 ? b : _mm512_and_si512(shifted<Shift>(b), _mm512_set1_epi8(static_cast<char>(Mask)));
  }
  template <int Shift, int Mask>
  static ANYBIT_INLINE Bytes add_field(Bytes a, Bytes b) {
    constexpr int a_or_b_and_c = 0xF8;
    return _mm512_ternarylogic_epi32(a, shifted<Shift>(b), _mm512_set1_epi8(static_cast<char>(Mask)), a_or_b_and_c);
  }
  template <int Bits>
  struct Table {
    static constexpr int parts = Bits <= 4 ? 1 : 1 << (Bits - 4);  // of 16 bytes
#if ANYBIT_HAS_AVX512_VBMI
    static constexpr bool whole = Bits > 4;
#else
    static constexpr bool whole = false;
#endif
    __m512i v[static_cast<std::size_t>(whole ? std::max(parts / 4, 1) : parts)];
  };
  template <int Bits>
  static ANYBIT_INLINE Table<Bits> load_table(const std::uint8_t* p) {
    Table<Bits> t;
    if constexpr (Table<Bits>::whole)
      for (auto& v : t.v) v = load_bytes(p), p += 64;
    else
      for (auto& v : t.v) v = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), p += 16;
    return t;
  }
  template <int Bits>
  static ANYBIT_INLINE Bytes look_up(const Table<Bits>& t, Bytes b) {
    if constexpr (Bits <= 4) {
      return _mm512_shuffle_epi8(t.v[0], b);
    } else if constexpr (!Table<Bits>::whole) {
      const Bytes low = _mm512_and_si512(b, _mm512_set1_epi8(15)), high = _mm512_and_si512(b, _mm512_set1_epi8(-16));
      Bytes found = _mm512_shuffle_epi8(t.v[0], low);
#pragma GCC unroll 16
      for (int i = 1; i < Table<Bits>::parts; ++i)
        found = _mm512_mask_shuffle_epi8(found, _mm512_cmpeq_epi8_mask(high, _mm512_set1_epi8(static_cast<char>(16 * i))), t.v[i],
                                         low);
      return found;
    } else {
#if ANYBIT_HAS_AVX512_VBMI
      if constexpr (Bits <= 6) return _mm512_permutexvar_epi8(b, t.v[0]);
      if constexpr (Bits == 7) return _mm512_permutex2var_epi8(t.v[0], b, t.v[1]);
      if constexpr (Bits == 8)
        return _mm512_mask_blend_epi8(_mm512_movepi8_mask(b), _mm512_permutex2var_epi8(t.v[0], b, t.v[1]),
                                      _mm512_permutex2var_epi8(t.v[2], b, t.v[3]));
#endif
    }
  }
  static ANYBIT_INLINE Floats load_f16(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static ANYBIT_INLINE Bytes load_bytes(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
  static ANYBIT_INLINE void store_bytes(std::uint8_t* p, Bytes b) { _mm512_storeu_si512(p, b); }
  template <int MaxByte>
  static ANYBIT_INLINE Ints dot4(Ints a, Bytes b, const std::int8_t* x) {
    static_assert(MaxByte <= 255);  // vpdpbusd does not saturate
    std::int32_t four;
    std::memcpy(&four, x, 4);
    const __m512i v = _mm512_set1_epi32(four);
#if defined(__GNUC__) && !defined(ANYBIT_TEST_SIMDE)
    // Through the intrinsic g++ 12 copies the sum before and after every dot product.
    asm("vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+v"(a) : "v"(b), "v"(v));
    return a;
#else
    return _mm512_dpbusd_epi32(a, b, v);
#endif
  }
  static constexpr std::int32_t bias(int) { return 0; }
  static constexpr int short_sums(int) { return 0; }
  template <int MaxByte>
  static ANYBIT_INLINE Ints tile_dot4(Ints a, Bytes b, const std::int8_t* x) {
    return dot4<MaxByte>(a, b, x);
  }
  static ANYBIT_INLINE Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  template <int Shift>
  static ANYBIT_INLINE Ints divided(Ints a) {
    if constexpr (Shift > 0) return _mm512_srai_epi32(a, Shift);
    if constexpr (Shift < 0) return _mm512_slli_epi32(a, -Shift);
    return a;
  }
  static ANYBIT_INLINE Floats zero() { return _mm512_setzero_ps(); }
  static ANYBIT_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
  static ANYBIT_INLINE void store(float* p, Floats f) { _mm512_storeu_ps(p, f); }
  static ANYBIT_INLINE Floats scaled(Floats a, float s) { return _mm512_mul_ps(a, _mm512_set1_ps(s)); }
  static ANYBIT_INLINE Floats multiply_add(Ints a, Floats s, Floats c) { return _mm512_fmadd_ps(_mm512_cvtepi32_ps(a), s, c); }
#if ANYBIT_HAS_AVX512
  /// fold_lines() (folded_tiles.hpp) of one line.
  class Fold {
   public:
    ANYBIT_INLINE Fold(const std::int16_t* factors, const std::int32_t* zeros, int bias)
        : bias_(_mm512_set1_epi8(static_cast<char>(bias))) {
      const auto words = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(factors)));
      low_ = _mm512_permutexvar_epi16(_mm512_load_si512(detail::rows_of_words.low), words);
      high_ = _mm512_permutexvar_epi16(_mm512_load_si512(detail::rows_of_words.high), words);
      const Bytes lowest_of_dword = _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0);
      zeros_ = _mm512_shuffle_epi8(_mm512_loadu_si512(zeros), lowest_of_dword);
    }
    ANYBIT_INLINE Bytes operator()(Bytes u) const {
      const Bytes level = _mm512_sub_epi8(u, zeros_), none = _mm512_setzero_si512();
      // Levels times 2^8: the product loses 15 bits, so that 7 of the factor's are left of its point.
      const Bytes low = _mm512_mulhrs_epi16(_mm512_unpacklo_epi8(none, level), low_),
                  high = _mm512_mulhrs_epi16(_mm512_unpackhi_epi8(none, level), high_);
      return _mm512_xor_si512(_mm512_packs_epi16(low, high), bias_);
    }

   private:
    Bytes low_, high_, zeros_, bias_;
  };
#endif
#if ANYBIT_HAS_AVX512_BF16
  static ANYBIT_INLINE void round_to_bf16(const float* in, std::uint16_t* out) {
    const __m512bh v = _mm512_cvtne2ps_pbh(load(in + 16), load(in));
    std::memcpy(out, &v, sizeof v);
  }
  static ANYBIT_INLINE void pair_bf16(const float* a, const float* b, void* out) {
    const auto wide = [](const float* p) { return _mm512_cvtepu16_epi32(std::bit_cast<__m256i>(_mm512_cvtneps_pbh(load(p)))); };
    _mm512_storeu_si512(out, _mm512_or_si512(wide(a), _mm512_slli_epi32(wide(b), 16)));
  }
  static ANYBIT_INLINE Bytes spread(const void* p) {
    std::int32_t four;
    std::memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
  }
  static ANYBIT_INLINE Floats dot_bf16(Floats a, Bytes b, Bytes x) {
#if defined(__GNUC__)
    asm("vdpbf16ps {%2, %1, %0|%0, %1, %2}" : "+v"(a) : "v"(b), "v"(x));
    return a;
#else
    return _mm512_dpbf16_ps(a, std::bit_cast<__m512bh>(b), std::bit_cast<__m512bh>(x));
#endif
  }
#endif
  template <int MaxByte>
  static ANYBIT_INLINE void segment_dots(const std::uint8_t* b, const std::int8_t* x, Index n, Index count, std::int32_t* out) {
    detail::segment_dots(b, x, n, count, out, [](__m256i a, __m256i u, __m256i v) { return _mm256_dpbusd_epi32(a, u, v); });
  }
  static ANYBIT_INLINE void interleave(const std::uint8_t* rows, Index stride, Index n, std::uint8_t* out) {
    for (Index k = 0; k < n; k += 16) transpose16(rows + 4 * k, stride, out + k * 64);
  }

 private:
  /// Of 16-bit lanes: what comes over from a neighbouring byte is for a mask to remove.
  template <int Shift>
  static ANYBIT_INLINE Bytes shifted(Bytes b) {
    if constexpr (Shift > 0)
      return _mm512_srli_epi16(b, Shift);
    else if constexpr (Shift < 0)
      return _mm512_slli_epi16(b, -Shift);
    else
      return b;
  }

  /// 16 rows of 16 dwords to 16 columns, 64 bytes apart.
  static ANYBIT_INLINE void transpose16(const std::uint8_t* in, Index stride, std::uint8_t* out) {
    __m512i r[16], s[16];
    // Rows i, i + 4, i + 8, i + 12 share a register a quarter at a time, so that two rounds of 32- and 64-bit unpacks finish it.
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const auto quarter = [&](int row) __attribute__((always_inline)) {
          return _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + row * stride + 16 * q));
        };
        __m512i v = _mm512_castsi128_si512(quarter(i));
        v = _mm512_inserti32x4(v, quarter(i + 4), 1);
        v = _mm512_inserti32x4(v, quarter(i + 8), 2);
        r[4 * q + i] = _mm512_inserti32x4(v, quarter(i + 12), 3);
      }
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      s[4 * q] = _mm512_unpacklo_epi32(r[4 * q], r[4 * q + 1]);
      s[4 * q + 1] = _mm512_unpackhi_epi32(r[4 * q], r[4 * q + 1]);
      s[4 * q + 2] = _mm512_unpacklo_epi32(r[4 * q + 2], r[4 * q + 3]);
      s[4 * q + 3] = _mm512_unpackhi_epi32(r[4 * q + 2], r[4 * q + 3]);
      _mm512_storeu_si512(out + (4 * q) * 64, _mm512_unpacklo_epi64(s[4 * q], s[4 * q + 2]));
      _mm512_storeu_si512(out + (4 * q + 1) * 64, _mm512_unpackhi_epi64(s[4 * q], s[4 * q + 2]));
      _mm512_storeu_si512(out + (4 * q + 2) * 64, _mm512_unpacklo_epi64(s[4 * q + 1], s[4 * q + 3]));
      _mm512_storeu_si512(out + (4 * q + 3) * 64, _mm512_unpackhi_epi64(s[4 * q + 1], s[4 * q + 3]));
    }
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
