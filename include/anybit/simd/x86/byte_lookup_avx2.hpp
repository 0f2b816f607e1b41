#pragma once
// A table of bytes in AVX2 registers, for simd/byte_table.hpp.

#include <cstdint>

#include <immintrin.h>

#include <anybit/core/config.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

/// A table of 2^Bits bytes in registers; 256 bytes can be read.
template <int Bits>
class ByteLookupAvx2 {
 public:
  explicit ANYBIT_INLINE ByteLookupAvx2(const std::uint8_t* table) {
#pragma GCC unroll 16
    for (int p = 0; p < parts; ++p)
      part_[p] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * p)));
  }
  ANYBIT_INLINE __m256i operator[](__m256i at) const { return find(at, _mm256_and_si256(at, _mm256_set1_epi8(15))); }

 private:
  static constexpr int parts = Bits <= 4 ? 1 : 1 << (Bits - 4);
  /// The entries that `Count` parts have, from part First on.
  template <int First = 0, int Count = parts>
  ANYBIT_INLINE __m256i find(__m256i at, __m256i in_part) const {
    if constexpr (Count == 1) {
      return _mm256_shuffle_epi8(part_[First], in_part);
    } else {  // the bit of the index that tells the halves apart, 4 to 7, goes to the sign
      constexpr int shift = Count == 2 ? 3 : Count == 4 ? 2 : Count == 8 ? 1 : 0;
      return _mm256_blendv_epi8(find<First, Count / 2>(at, in_part), find<First + Count / 2, Count / 2>(at, in_part),
                                _mm256_slli_epi16(at, shift));
    }
  }
  __m256i part_[static_cast<std::size_t>(parts)];
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END
