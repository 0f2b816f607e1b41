#pragma once
// A table of bytes in AVX-512 registers, for simd/byte_table.hpp.

#include <cstdint>

#include <immintrin.h>

#include <anybit/core/config.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

/// A table of 2^Bits bytes in registers; 256 bytes can be read.
template <int Bits>
class ByteLookupVbmi {
 public:
  explicit ANYBIT_INLINE ByteLookupVbmi(const std::uint8_t* table) {
#pragma GCC unroll 4
    for (int p = 0; p < parts; ++p) part_[p] = _mm512_loadu_si512(table + 64 * p);
  }
  ANYBIT_INLINE __m512i operator[](__m512i at) const {
    if constexpr (parts == 1) return _mm512_permutexvar_epi8(at, part_[0]);
    if constexpr (parts == 2) return _mm512_permutex2var_epi8(part_[0], at, part_[1]);
    if constexpr (parts == 4)
      return _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), _mm512_permutex2var_epi8(part_[0], at, part_[1]),
                                    _mm512_permutex2var_epi8(part_[2], at, part_[3]));
  }

 private:
  static constexpr int parts = Bits <= 6 ? 1 : 1 << (Bits - 6);
  __m512i part_[static_cast<std::size_t>(parts)];
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END
