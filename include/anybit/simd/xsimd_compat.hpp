#pragma once
// The only header that names xsimd: a small vocabulary over versions 8.1 to 14. Vectors have the native width; + - * & | ^
// are operators on them, everything else is a plain function here. What xsimd lacks in some version (widening loads, partial
// loads, table lookups) has an intrinsic where that pays and a portable body elsewhere.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <xsimd/xsimd.hpp>

#include <anybit/core/half.hpp>
#include <anybit/core/isa.hpp>
#include <anybit/core/types.hpp>
#include <anybit/simd/vector_code.hpp>

#if ANYBIT_HAS_AVX2
#include <immintrin.h>
#endif

#if XSIMD_VERSION_MAJOR < 8 || XSIMD_VERSION_MAJOR > 14 || (XSIMD_VERSION_MAJOR == 8 && XSIMD_VERSION_MINOR < 1)
#error "anybit: needs xsimd 8.1 to 14"
#endif
#if defined(XSIMD_NO_SUPPORTED_ARCHITECTURE)
#error "anybit: xsimd knows no vector instructions for this target; enable some (on x86 -msse2, on arm neon)"
#endif

ANYBIT_VECTOR_CODE_BEGIN

namespace anybit::simd {
inline namespace ANYBIT_CODE {

// The level of core/isa.hpp and not xsimd's own choice, which also goes by half a level.
#if ANYBIT_HAS_AVX512
using Arch = xsimd::avx512bw;
#elif ANYBIT_HAS_AVX2
using Arch = xsimd::fma3<xsimd::avx2>;
#elif ANYBIT_HAS_SSE4
using Arch = xsimd::sse4_2;
#elif ANYBIT_HAS_SSE2
using Arch = xsimd::sse2;
#else
using Arch = xsimd::default_arch;
#endif
template <class T>
using Vector = xsimd::batch<T, Arch>;

using f32 = Vector<float>;
using i32 = Vector<std::int32_t>;
using u32 = Vector<std::uint32_t>;
using u64 = Vector<std::uint64_t>;

/// The vector of any type that has one; of one lane where the hardware has none (doubles on 32-bit Arm).
template <class T>
struct VectorOf {
  using type = Vector<T>;
};
#if defined(__arm__)
template <>
struct VectorOf<double> {
  struct type {
    static constexpr std::size_t size = 1;
    double value = 0;
    type() = default;
    explicit type(double v) : value(v) {}
    static type load_unaligned(const double* p) { return type(*p); }
    void store_unaligned(double* p) const { *p = value; }
    friend type operator+(type a, type b) { return type(a.value + b.value); }
  };
};
ANYBIT_INLINE VectorOf<double>::type fma(VectorOf<double>::type a, VectorOf<double>::type b, VectorOf<double>::type c) {
  return VectorOf<double>::type(a.value * b.value + c.value);
}
#endif
/// Vectors that registers hold at a time.
#if ANYBIT_HAS_AVX512 || defined(__aarch64__)
inline constexpr int registers = 32;
#else
inline constexpr int registers = 16;
#endif

/// Lanes of f32, i32 and u32: 4, 8 or 16 on the machines in use; and of u64.
inline constexpr Index width = static_cast<Index>(f32::size);
inline constexpr Index width64 = static_cast<Index>(u64::size);

// Full loads and stores; no alignment is asked for.
ANYBIT_INLINE f32 load(const float* p) { return f32::load_unaligned(p); }
ANYBIT_INLINE i32 load(const std::int32_t* p) { return i32::load_unaligned(p); }
ANYBIT_INLINE u32 load(const std::uint32_t* p) { return u32::load_unaligned(p); }
ANYBIT_INLINE void store(float* p, f32 v) { v.store_unaligned(p); }
ANYBIT_INLINE void store(std::int32_t* p, i32 v) { v.store_unaligned(p); }
ANYBIT_INLINE void store(std::uint32_t* p, u32 v) { v.store_unaligned(p); }

ANYBIT_INLINE u64 load(const std::uint64_t* p) { return u64::load_unaligned(p); }
ANYBIT_INLINE void store(std::uint64_t* p, u64 v) { v.store_unaligned(p); }
/// The same vectors from and to bytes, 8 * width64 of them.
ANYBIT_INLINE u64 load_bytes_u64(const void* p) { return u64::load_unaligned(static_cast<const std::uint64_t*>(p)); }
ANYBIT_INLINE void store_bytes(void* p, u64 v) { v.store_unaligned(static_cast<std::uint64_t*>(p)); }

ANYBIT_INLINE f32 broadcast(float x) { return f32(x); }
ANYBIT_INLINE i32 broadcast(std::int32_t x) { return i32(x); }
ANYBIT_INLINE u32 broadcast(std::uint32_t x) { return u32(x); }
ANYBIT_INLINE f32 zero() { return f32(0.0f); }

/// a * b + c, rounded once where the hardware can, twice elsewhere.
template <class T>
ANYBIT_INLINE xsimd::batch<T, Arch> fma(xsimd::batch<T, Arch> a, xsimd::batch<T, Arch> b, xsimd::batch<T, Arch> c) {
#if ANYBIT_HAS_AVX512  // which version 8 has no fma for, and compilers need not contract
  if constexpr (std::is_same_v<T, float>)
    return _mm512_fmadd_ps(a, b, c);
  else if constexpr (std::is_same_v<T, double>)
    return _mm512_fmadd_pd(a, b, c);
  else
#endif
    return xsimd::fma(a, b, c);
}
/// a / b, rounded as the scalar division is. (On NEON xsimd's own operator, up to version 8 at least, estimates.)
template <class = void>
ANYBIT_INLINE f32 divide(f32 a, f32 b) {
#if defined(__aarch64__)
  return f32(vdivq_f32(a, b));
#elif defined(__arm__)
  float x[static_cast<std::size_t>(width)], y[static_cast<std::size_t>(width)];
  a.store_unaligned(x);
  b.store_unaligned(y);
  for (std::size_t i = 0; i < static_cast<std::size_t>(width); ++i) x[i] /= y[i];
  return f32::load_unaligned(x);
#else
  return a / b;
#endif
}
/// The same for a finite a if `reciprocal` is 1 / b, b is within 2^-60 and 2^60, and the quotient is neither over- nor
/// underflowing, in a third of the time where fma() rounds once: each step mends the quotient by its remainder, and from a
/// quotient that is one of the two floats around the exact one the nearest follows (Markstein 1990). With b and `reciprocal` 0 it
/// is 0.
template <class = void>
ANYBIT_INLINE f32 divide(f32 a, f32 b, f32 reciprocal) {
#if ANYBIT_HAS_AVX2 || ANYBIT_HAS_NEON
  const f32 minus_b = zero() - b;
  f32 quotient = a * reciprocal;
  quotient = fma(fma(quotient, minus_b, a), reciprocal, quotient);
  return fma(fma(quotient, minus_b, a), reciprocal, quotient);
#else
  return xsimd::select(reciprocal == f32(0.0f), f32(0.0f) * a, divide(a, b));
#endif
}
template <class = void>
ANYBIT_INLINE f32 max(f32 a, f32 b) {
  return xsimd::max(a, b);
}
template <class = void>
ANYBIT_INLINE f32 min(f32 a, f32 b) {
  return xsimd::min(a, b);
}
template <class = void>
ANYBIT_INLINE i32 max(i32 a, i32 b) {
  return xsimd::max(a, b);
}
template <class = void>
ANYBIT_INLINE i32 min(i32 a, i32 b) {
  return xsimd::min(a, b);
}
template <class = void>
ANYBIT_INLINE f32 abs(f32 a) {
  return xsimd::abs(a);
}
/// Lanes of a where a > b, of `otherwise` elsewhere.
template <class = void>
ANYBIT_INLINE f32 select_greater(f32 a, f32 b, f32 then, f32 otherwise) {
  return xsimd::select(a > b, then, otherwise);
}

/// 2 n + 1 in lanes where x > y, 2 n elsewhere. Of x and y at most one is infinite, and neither is NaN.
template <class = void>
ANYBIT_INLINE i32 append_greater(i32 n, f32 x, f32 y) {
#if ANYBIT_HAS_AVX512_VBMI2  // the sign of y - x follows the bits of n
  return i32(_mm512_shldi_epi32(n, _mm512_castps_si512(_mm512_sub_ps(y, x)), 1));
#elif ANYBIT_HAS_AVX512
  const __m512i twice = _mm512_add_epi32(n, n);
  return i32(_mm512_mask_add_epi32(twice, _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ), twice, _mm512_set1_epi32(1)));
#elif ANYBIT_HAS_AVX2
  return i32(_mm256_sub_epi32(_mm256_add_epi32(n, n), _mm256_castps_si256(_mm256_cmp_ps(x, y, _CMP_GT_OQ))));
#else
  return n + n + xsimd::to_int(xsimd::select(x > y, f32(1.0f), f32(0.0f)));
#endif
}

/// Whether low < lane <= high in all lanes.
template <class = void>
ANYBIT_INLINE bool all_within(f32 v, float low, float high) {
  return xsimd::all((v > f32(low)) & (v <= f32(high)));
}

/// NaN becomes 0.
template <class = void>
ANYBIT_INLINE f32 nan_to_zero(f32 a) {
  return xsimd::select(a == a, a, f32(0.0f));
}

/// The sum of all lanes, in an order that depends on the width.
template <class = void>
ANYBIT_INLINE float reduce_add(f32 v) {
#if XSIMD_VERSION_MAJOR >= 9
  return xsimd::reduce_add(v);
#else
  return xsimd::hadd(v);
#endif
}
template <class = void>
ANYBIT_INLINE std::int32_t reduce_add(i32 v) {
#if XSIMD_VERSION_MAJOR >= 9
  return xsimd::reduce_add(v);
#else
  return xsimd::hadd(v);
#endif
}
ANYBIT_INLINE float reduce_max(f32 v) {
  float lanes[static_cast<std::size_t>(width)];
  store(lanes, v);
  float m = lanes[0];
  for (Index i = 1; i < width; ++i) m = lanes[i] > m ? lanes[i] : m;
  return m;
}

/// e^x with a relative error below 1e-7 where it is a normal number; 0 far below, infinity far above, NaN for NaN.
template <class = void>
ANYBIT_INLINE f32 exp(f32 x) {
  return xsimd::exp(x);
}

/// tanh x with a relative error below 1e-6; NaN for NaN.
template <class = void>
ANYBIT_INLINE f32 tanh(f32 x) {
  return xsimd::tanh(x);
}

/// Exact for |v| <= 2^24.
template <class = void>
ANYBIT_INLINE f32 to_f32(i32 v) {
  return xsimd::to_float(v);
}
/// Nearest integer, ties to even, for |v| < 2^31.
template <class = void>
ANYBIT_INLINE i32 round_to_i32(f32 v) {
  return xsimd::nearbyint_as_int(v);
}
template <class = void>
ANYBIT_INLINE f32 round(f32 v) {
  return xsimd::nearbyint(v);
}

// The same bits under another type.
#if XSIMD_VERSION_MAJOR >= 11
ANYBIT_INLINE f32 as_f32(u32 v) { return xsimd::bitwise_cast<float>(v); }
ANYBIT_INLINE u32 as_u32(f32 v) { return xsimd::bitwise_cast<std::uint32_t>(v); }
ANYBIT_INLINE u32 as_u32(i32 v) { return xsimd::bitwise_cast<std::uint32_t>(v); }
ANYBIT_INLINE i32 as_i32(u32 v) { return xsimd::bitwise_cast<std::int32_t>(v); }
#else
ANYBIT_INLINE f32 as_f32(u32 v) { return xsimd::bitwise_cast<f32>(v); }
ANYBIT_INLINE u32 as_u32(f32 v) { return xsimd::bitwise_cast<u32>(v); }
ANYBIT_INLINE u32 as_u32(i32 v) { return xsimd::bitwise_cast<u32>(v); }
ANYBIT_INLINE i32 as_i32(u32 v) { return xsimd::bitwise_cast<i32>(v); }
#endif

// Shifts of unsigned lanes: by one count for all, or by a count of its own for each. Counts are 0 to 31.
ANYBIT_INLINE u32 shift_left(u32 v, int count) { return v << count; }
ANYBIT_INLINE u32 shift_right(u32 v, int count) { return v >> count; }
ANYBIT_INLINE u32 shift_left(u32 v, u32 counts) {
#if ANYBIT_HAS_AVX512
  return u32(_mm512_sllv_epi32(v, counts));
#elif ANYBIT_HAS_AVX2
  return u32(_mm256_sllv_epi32(v, counts));
#else
  std::uint32_t a[static_cast<std::size_t>(width)], n[static_cast<std::size_t>(width)];
  store(a, v);
  store(n, counts);
  for (Index i = 0; i < width; ++i) a[i] <<= n[i];
  return load(a);
#endif
}
ANYBIT_INLINE u32 shift_right(u32 v, u32 counts) {
#if ANYBIT_HAS_AVX512
  return u32(_mm512_srlv_epi32(v, counts));
#elif ANYBIT_HAS_AVX2
  return u32(_mm256_srlv_epi32(v, counts));
#else
  std::uint32_t a[static_cast<std::size_t>(width)], n[static_cast<std::size_t>(width)];
  store(a, v);
  store(n, counts);
  for (Index i = 0; i < width; ++i) a[i] >>= n[i];
  return load(a);
#endif
}

// Partial forms touch exactly the first n elements, 0 <= n <= width; lanes from n on are loaded as 0.
#if ANYBIT_HAS_AVX2 && !ANYBIT_HAS_AVX512
namespace detail {
ANYBIT_INLINE __m256i first_lanes(Index n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
}  // namespace detail
#endif
ANYBIT_INLINE f32 load_partial(const float* p, Index n) {
#if ANYBIT_HAS_AVX512
  return f32(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p));
#elif ANYBIT_HAS_AVX2
  return f32(_mm256_maskload_ps(p, detail::first_lanes(n)));
#else
  float lanes[static_cast<std::size_t>(width)] = {};
  for (Index i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
#endif
}
ANYBIT_INLINE void store_partial(float* p, f32 v, Index n) {
#if ANYBIT_HAS_AVX512
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#elif ANYBIT_HAS_AVX2
  _mm256_maskstore_ps(p, detail::first_lanes(n), v);
#else
  float lanes[static_cast<std::size_t>(width)];
  store(lanes, v);
  for (Index i = 0; i < n; ++i) p[i] = lanes[i];
#endif
}

// Widening loads of `width` elements.
ANYBIT_INLINE i32 load_i32(const std::uint8_t* p) {
#if ANYBIT_HAS_AVX512
  return i32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif ANYBIT_HAS_AVX2
  return i32(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  std::int32_t lanes[static_cast<std::size_t>(width)];
  for (Index i = 0; i < width; ++i) lanes[i] = p[i];
  return load(lanes);
#endif
}
ANYBIT_INLINE i32 load_i32(const std::int8_t* p) {
#if ANYBIT_HAS_AVX512
  return i32(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif ANYBIT_HAS_AVX2
  return i32(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  std::int32_t lanes[static_cast<std::size_t>(width)];
  for (Index i = 0; i < width; ++i) lanes[i] = p[i];
  return load(lanes);
#endif
}
ANYBIT_INLINE i32 load_i32(const std::uint16_t* p) {
#if ANYBIT_HAS_AVX512
  return i32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif ANYBIT_HAS_AVX2
  return i32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
  std::int32_t lanes[static_cast<std::size_t>(width)];
  for (Index i = 0; i < width; ++i) lanes[i] = p[i];
  return load(lanes);
#endif
}
/// Any of the above element types, converted to float; exact.
template <class T>
ANYBIT_INLINE f32 load_f32(const T* p) {
  return to_f32(load_i32(p));
}
/// The first n <= width elements only; the other lanes are 0.
template <class T>
ANYBIT_INLINE i32 load_i32_partial(const T* p, Index n) {
  T buffer[static_cast<std::size_t>(width)] = {};
  std::memcpy(buffer, p, static_cast<std::size_t>(n) * sizeof(T));
  return load_i32(buffer);
}
template <class T>
ANYBIT_INLINE f32 load_f32_partial(const T* p, Index n) {
  return to_f32(load_i32_partial(p, n));
}

/// Writes `width` bytes; every lane is 0 to 255.
ANYBIT_INLINE void store_u8(std::uint8_t* p, i32 v) {
#if ANYBIT_HAS_AVX512
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
#elif ANYBIT_HAS_AVX2
  const __m256i words = _mm256_packus_epi32(v, v);  // 0-3 0-3 | 4-7 4-7
  const __m256i bytes = _mm256_packus_epi16(words, words);
  const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), both);
#else
  std::int32_t lanes[static_cast<std::size_t>(width)];
  store(lanes, v);
  for (Index i = 0; i < width; ++i) p[i] = static_cast<std::uint8_t>(lanes[i]);
#endif
}

/// Writes `width` bytes; every lane is -128 to 127.
ANYBIT_INLINE void store_i8(std::int8_t* p, i32 v) {
  store_u8(reinterpret_cast<std::uint8_t*>(p), v & broadcast(std::int32_t{255}));
}

/// `width` binary16 patterns, at any address, as floats, exact.
ANYBIT_INLINE f32 load_f16(const void* p) {
#if ANYBIT_HAS_AVX512
  return f32(_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p))));
#elif ANYBIT_HAS_AVX2
  return f32(_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))));
#else
  std::uint16_t halves[static_cast<std::size_t>(width)];
  float lanes[static_cast<std::size_t>(width)];
  std::memcpy(halves, p, sizeof halves);
  for (Index i = 0; i < width; ++i) lanes[i] = f16_to_f32(halves[i]);
  return load(lanes);
#endif
}

/// `width` bfloat16 patterns as floats, exact.
ANYBIT_INLINE f32 load_bf16(const std::uint16_t* p) { return as_f32(shift_left(as_u32(load_i32(p)), 16)); }

/// `width` floats as binary16 patterns, nearest, ties to even.
ANYBIT_INLINE void store_f16(std::uint16_t* p, f32 v) {
#if ANYBIT_HAS_AVX512
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif ANYBIT_HAS_AVX2
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  float lanes[static_cast<std::size_t>(width)];
  store(lanes, v);
  for (Index i = 0; i < width; ++i) p[i] = f32_to_f16(lanes[i]);
#endif
}

/// table[index] for every lane; every index must be inside the table.
ANYBIT_INLINE f32 gather(const float* table, i32 index) {
#if ANYBIT_HAS_AVX512
  return f32(_mm512_i32gather_ps(index, table, 4));
#elif ANYBIT_HAS_AVX2
  return f32(_mm256_i32gather_ps(table, index, 4));
#else
  std::int32_t at[static_cast<std::size_t>(width)];
  float lanes[static_cast<std::size_t>(width)];
  store(at, index);
  for (Index i = 0; i < width; ++i) lanes[i] = table[at[i]];
  return load(lanes);
#endif
}

/// A table of N = 2^k floats, held in registers while permutes are cheaper than gather (with AVX-512 always, N <= 256; with AVX2
/// N
/// <= 32), read by gather otherwise. It refers to `values`, which must outlive it. Indices are 0 to N - 1; in registers only
/// their lowest k bits count.
template <int N>
class Table {
 public:
  static_assert(N >= 2 && N <= 256 && (N & (N - 1)) == 0, "anybit: a lookup table needs a power of two up to 256 as its size");

#if ANYBIT_HAS_AVX512
  static constexpr bool in_registers = true;

  explicit ANYBIT_INLINE Table(const float* values) {
    if constexpr (N < 16)
      part_[0] = load_partial(values, N);
    else
#pragma GCC unroll 16
      for (int i = 0; i < parts; ++i) part_[i] = load(values + 16 * i);
  }
  ANYBIT_INLINE f32 operator[](i32 index) const {
    if constexpr (parts == 1)
      return f32(_mm512_permutexvar_ps(index, part_[0]));
    else
      return f32(find<0, parts>(index));
  }

 private:
  static constexpr int parts = N < 16 ? 1 : N / 16;
  /// In `Count` parts, a power of two from 2 on.
  template <int First, int Count>
  ANYBIT_INLINE __m512 find(__m512i index) const {
    if constexpr (Count == 2)
      return _mm512_permutex2var_ps(part_[First], index, part_[First + 1]);
    else
      return _mm512_mask_blend_ps(_mm512_test_epi32_mask(index, _mm512_set1_epi32(8 * Count)), find<First, Count / 2>(index),
                                  find<First + Count / 2, Count / 2>(index));
  }
  f32 part_[static_cast<std::size_t>(parts)];
#elif ANYBIT_HAS_AVX2
  static constexpr bool in_registers = N <= 32;

  explicit ANYBIT_INLINE Table(const float* values) {
    if constexpr (!in_registers)
      part_[0] = values;
    else if constexpr (N < 8)
      part_[0] = load_partial(values, N);
    else
#pragma GCC unroll 4
      for (int i = 0; i < parts; ++i) part_[i] = load(values + 8 * i);
  }
  ANYBIT_INLINE f32 operator[](i32 index) const {
    if constexpr (in_registers)
      return f32(find<0, parts>(index));
    else
      return gather(part_[0], index);
  }

 private:
  static constexpr int parts = N <= 8 || !in_registers ? 1 : N / 8;
  template <int First, int Count>
  ANYBIT_INLINE __m256 find(__m256i index) const {
    if constexpr (Count == 1)
      return _mm256_permutevar8x32_ps(part_[First], index);
    else  // the bit of the index that tells the halves apart, 3 or 4, goes to the sign
      return _mm256_blendv_ps(find<First, Count / 2>(index), find<First + Count / 2, Count / 2>(index),
                              _mm256_castsi256_ps(_mm256_slli_epi32(index, Count == 2 ? 28 : 27)));
  }
  using part = std::conditional_t<in_registers, f32, const float*>;
  part part_[static_cast<std::size_t>(parts)];
#else
  static constexpr bool in_registers = false;

  explicit ANYBIT_INLINE Table(const float* values) : values_(values) {}
  ANYBIT_INLINE f32 operator[](i32 index) const { return gather(values_, index); }

 private:
  const float* values_;
#endif
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd

ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
