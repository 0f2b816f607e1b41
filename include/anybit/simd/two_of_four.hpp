#pragma once
// Codes of the layout TwoOfFour, vectorized. scheme/two_of_four.hpp defines the bytes.

#include <array>

#include <anybit/core/isa.hpp>
#include <anybit/simd/bit_swar.hpp>

#if ANYBIT_HAS_AVX512_VBMI
#define ANYBIT_TWO_OF_FOUR_VBMI
#include <anybit/simd/x86/two_of_four_vbmi.hpp>
#endif

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// The columns (0 to 3) of the two codes that each of eight patterns keeps.
using Patterns = std::array<std::array<std::uint8_t, 2>, 8>;

/// n codes of Bits <= 8 bits from fields of 2 Bits + 3: both codes xor `zero`, then the pattern. Reads the bytes of ceil(n / 4)
/// fields, writes n codes, and nothing else.
template <int Bits>
void unpack_two_of_four(const std::byte* in, std::uint8_t* out, Index n, std::uint8_t zero, const Patterns& patterns) {
  constexpr int field = 2 * Bits + 3;
  constexpr std::uint32_t mask = (1u << Bits) - 1;
#if defined(ANYBIT_TWO_OF_FOUR_VBMI)
  const Index whole = n / 64 * 64;
  x86::unpack_two_of_four_vbmi<Bits>(in, out, whole, zero, patterns);
  in += whole / 32 * field;
  out += whole;
  n -= whole;
#endif
  std::uint8_t shift[2][8];
  for (std::size_t p = 0; p < 8; ++p)
    for (std::size_t k = 0; k < 2; ++k) shift[k][p] = static_cast<std::uint8_t>(8 * patterns[p][k]);
  const std::uint32_t zeros = zero * 0x01010101u;
  const auto four = [&](std::uint64_t window) {
    const std::size_t p = window >> (2 * Bits) & 7;
    return ((static_cast<std::uint32_t>(window) & mask) << shift[0][p] | (static_cast<std::uint32_t>(window >> Bits) & mask)
                                                                             << shift[1][p]) ^
           zeros;
  };
  const Index bytes = ceil_div(ceil_div(n, 4) * field, 8);
  Index i = 0;
  for (; i + 4 <= n && i / 4 * field / 8 + 8 <= bytes; i += 4) {
    const Index bit = i / 4 * field;
    const std::uint32_t codes = four(load_bytes(in + bit / 8, 8) >> (bit % 8));
    std::memcpy(out + i, &codes, 4);
  }
  for (; i < n; i += 4) {
    const Index bit = i / 4 * field, rest = bytes - bit / 8;
    const std::uint32_t codes = four(load_bytes(in + bit / 8, static_cast<std::size_t>(rest < 8 ? rest : 8)) >> (bit % 8));
    std::memcpy(out + i, &codes, static_cast<std::size_t>(n - i < 4 ? n - i : 4));
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
