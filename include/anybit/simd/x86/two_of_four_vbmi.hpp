#pragma once
// 2:4 sparse codes with AVX-512 VBMI, 64 columns at a time. vpermb and vpmultishiftqb bring both codes and the pattern of a field
// into each byte of its four columns; two tables by pattern then keep each code in its own column.

#include <array>
#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include <anybit/core/types.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

namespace detail {
/// Quadword q of the result holds fields 2q and 2q + 1.
template <int Bits>
struct FieldWindows {
  alignas(64) std::array<std::uint8_t, 64> bytes{}, first{}, second{}, pattern{};
};
template <int Bits>
inline constexpr FieldWindows<Bits> field_windows = [] {
  constexpr int field = 2 * Bits + 3;
  FieldWindows<Bits> w;
  for (int i = 0; i < 64; ++i) {
    const int quad = i / 8, start = 2 * quad * field;
    const auto at = static_cast<std::size_t>(i);
    const int byte = start / 8 + i % 8;
    w.bytes[at] = static_cast<std::uint8_t>(byte < 2 * field ? byte : 0);
    const int shift = start % 8 + i % 8 / 4 * field;
    w.first[at] = static_cast<std::uint8_t>(shift);
    w.second[at] = static_cast<std::uint8_t>(shift + Bits);
    w.pattern[at] = static_cast<std::uint8_t>(shift + 2 * Bits);
  }
  return w;
}();
}  // namespace detail

/// n is a multiple of 64. Reads n / 32 * (2 Bits + 3) bytes.
template <int Bits>
void unpack_two_of_four_vbmi(const std::byte* in, std::uint8_t* out, Index n, std::uint8_t zero,
                             const std::array<std::array<std::uint8_t, 2>, 8>& patterns) {
  constexpr int step = 2 * (2 * Bits + 3);  // bytes of 64 columns
  const auto& windows = detail::field_windows<Bits>;
  const __m512i bytes = _mm512_load_si512(windows.bytes.data()), first = _mm512_load_si512(windows.first.data()),
                second = _mm512_load_si512(windows.second.data()), pattern = _mm512_load_si512(windows.pattern.data()),
                zeros = _mm512_set1_epi8(static_cast<char>(zero));
  // By pattern, twice over: the index is four bits, the highest of which belongs to the next field.
  alignas(64) std::uint8_t keep[2][64] = {};
  for (std::size_t p = 0; p < 16; ++p)
    for (std::size_t k = 0; k < 2; ++k) keep[k][4 * p + patterns[p % 8][k]] = static_cast<std::uint8_t>((1u << Bits) - 1);
  const __m512i keep_first = _mm512_load_si512(keep[0]), keep_second = _mm512_load_si512(keep[1]);
  constexpr __mmask64 all = ~__mmask64{0} >> (64 - step);
  for (Index i = 0; i < n; i += 64, in += step) {
    const __m512i fields = _mm512_permutexvar_epi8(bytes, _mm512_maskz_loadu_epi8(all, in));
    const __m512i which = _mm512_multishift_epi64_epi8(pattern, fields);
    const __m512i a = _mm512_and_si512(_mm512_multishift_epi64_epi8(first, fields), _mm512_permutexvar_epi32(which, keep_first)),
                  b = _mm512_and_si512(_mm512_multishift_epi64_epi8(second, fields),
                                       _mm512_permutexvar_epi32(which, keep_second));
    _mm512_storeu_si512(out + i, _mm512_xor_si512(_mm512_or_si512(a, b), zeros));
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END
