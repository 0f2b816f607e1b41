#pragma once
// The vocabulary of kernel/dot_vocabulary.hpp for processors with AVX2 and the VNNI that needs no AVX-512 (Alder Lake and later).

#include <anybit/core/isa.hpp>
#include <anybit/kernel/x86/dot4_avx2.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::kernel {
inline namespace ANYBIT_CODE {

struct AvxVnni : Avx2 {
  template <int MaxByte>
  static ANYBIT_INLINE Ints dot4(Ints a, Bytes b, const std::int8_t* x) {
    static_assert(MaxByte <= 255);  // vpdpbusd does not saturate
    const __m256i v = four_columns(x);
    return {dpbusd(a.low, b.low, v), dpbusd(a.high, b.high, v)};
  }
  static constexpr std::int32_t bias(int) { return 0; }
  static constexpr int short_sums(int) { return 0; }
  template <int MaxByte>
  static ANYBIT_INLINE Ints tile_dot4(Ints a, Bytes b, const std::int8_t* x) {
    return dot4<MaxByte>(a, b, x);
  }
  template <int MaxByte>
  static ANYBIT_INLINE void segment_dots(const std::uint8_t* b, const std::int8_t* x, Index n, Index count, std::int32_t* out) {
    detail::segment_dots(b, x, n, count, out, [](__m256i a, __m256i u, __m256i v) { return dpbusd(a, u, v); });
  }

 private:
  static ANYBIT_INLINE __m256i dpbusd(__m256i a, __m256i b, __m256i x) {
#if defined(__GNUC__) && ANYBIT_HAS_AVX_VNNI
    // Through the intrinsic g++ 12 copies the sum before and after every dot product.
    asm("%{vex%} vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+x"(a) : "x"(b), "x"(x));
    return a;
#else
    return _mm256_dpbusd_avx_epi32(a, b, x);
#endif
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
ANYBIT_VECTOR_CODE_END
