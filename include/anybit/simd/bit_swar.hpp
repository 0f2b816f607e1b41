#pragma once
// Eight codes of Bits bits as the bytes of one 64-bit word, and back, in three halving steps of shifts and masks. W is
// std::uint64_t or a vector of them: every lane shifts by the same count, which the oldest instruction sets can do.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <anybit/core/types.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

namespace detail {

/// The low `bits` bits of every field of `field` bits.
constexpr std::uint64_t low_bits_of_fields(int bits, int field) {
  std::uint64_t mask = 0;
  for (int at = 0; at < 64; at += field) mask |= ((std::uint64_t{1} << bits) - 1) << at;
  return mask;
}

/// Each field of 2 * Half bits holds two halves of `Used` bits side by side; the upper moves to the upper half, and back.
template <int Used, int Half, class W>
ANYBIT_INLINE W spread_step(W x) {
  constexpr std::uint64_t low = low_bits_of_fields(Used, 2 * Half);
  return (x & W(low)) | ((x << (Half - Used)) & W(low << Half));
}
template <int Used, int Half, class W>
ANYBIT_INLINE W gather_step(W x) {
  constexpr std::uint64_t low = low_bits_of_fields(Used, 2 * Half);
  return (x & W(low)) | ((x >> (Half - Used)) & W(low << Used));
}

}  // namespace detail

/// Codes 0 to 7, LSB first in the low 8 * Bits bits of w (others are ignored), become the bytes of the result.
template <int Bits, class W>
ANYBIT_INLINE W spread8(W w) {
  static_assert(Bits >= 1 && Bits <= 7);
  return detail::spread_step<Bits, 8>(detail::spread_step<2 * Bits, 16>(detail::spread_step<4 * Bits, 32>(w)));
}

/// The inverse of spread8; every byte is below 2^Bits.
template <int Bits, class W>
ANYBIT_INLINE W gather8(W bytes) {
  static_assert(Bits >= 1 && Bits <= 7);
  return detail::gather_step<4 * Bits, 32>(detail::gather_step<2 * Bits, 16>(detail::gather_step<Bits, 8>(bytes)));
}

/// `n` bytes, 0 <= n <= 8, as the low bytes of a word.
ANYBIT_INLINE std::uint64_t load_bytes(const std::byte* p, std::size_t n) {
  std::uint64_t w = 0;
  std::memcpy(&w, p, n);
  return w;
}

/// memcpy that allows null for no bytes.
ANYBIT_INLINE void copy_bytes(void* to, const void* from, Index n) {
  if (n > 0) std::memcpy(to, from, static_cast<std::size_t>(n));
}

/// Reads ceil(n * Bits / 8) bytes, writes n codes, and nothing else: 8 codes at a time with ordinary registers.
template <int Bits>
ANYBIT_INLINE void unpack_bits_swar(const std::byte* in, std::uint8_t* out, Index n) {
  const Index bytes = ceil_div(n * Bits, 8);
  Index i = 0;
  for (; i + 8 <= n && (i / 8) * Bits + 8 <= bytes; i += 8) {
    const std::uint64_t codes = spread8<Bits>(load_bytes(in + (i / 8) * Bits, 8));
    std::memcpy(out + i, &codes, 8);
  }
  for (; i < n; i += 8) {  // the last words, which a load of 8 bytes would leave
    const Index rest = bytes - (i / 8) * Bits;
    const std::uint64_t codes =
        spread8<Bits>(load_bytes(in + (i / 8) * Bits, static_cast<std::size_t>(rest < Bits ? rest : Bits)));
    std::memcpy(out + i, &codes, static_cast<std::size_t>(n - i < 8 ? n - i : 8));
  }
}

/// Writes ceil(n * Bits / 8) bytes; unused bits of the last are 0.
template <int Bits>
ANYBIT_INLINE void pack_bits_swar(const std::uint8_t* codes, std::byte* out, Index n) {
  const Index bytes = ceil_div(n * Bits, 8);
  for (Index i = 0; i < n; i += 8) {
    std::uint64_t w = 0;
    std::memcpy(&w, codes + i, static_cast<std::size_t>(n - i < 8 ? n - i : 8));
    w = gather8<Bits>(w);
    const Index rest = bytes - (i / 8) * Bits;
    std::memcpy(out + (i / 8) * Bits, &w, static_cast<std::size_t>(rest < Bits ? rest : Bits));
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
