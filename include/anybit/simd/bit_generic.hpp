#pragma once
// Packing and unpacking of a bit stream for any instruction set that xsimd supports: 8 codes per 64-bit lane.

#include <utility>

#include <anybit/simd/bit_swar.hpp>
#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

namespace detail {
template <int Bits, std::size_t... Lane>
ANYBIT_INLINE u64 load_words(const std::byte* in, std::index_sequence<Lane...>) {
  return u64{load_bytes(in + Lane * Bits, 8)...};
}
}  // namespace detail

template <int Bits>
void unpack_bits_generic(const std::byte* in, std::uint8_t* out, Index n) {
  constexpr Index step = 8 * width64;
  const Index bytes = ceil_div(n * Bits, 8);
  Index i = 0;
  // The last lane's load ends 8 - Bits bytes after its codes.
  for (; i + step <= n && (i + step) / 8 * Bits + 8 - Bits <= bytes; i += step)
    store_bytes(out + i, spread8<Bits>(detail::load_words<Bits>(in + i / 8 * Bits,
                                                                std::make_index_sequence<static_cast<std::size_t>(width64)>())));
  unpack_bits_swar<Bits>(in + i / 8 * Bits, out + i, n - i);
}

template <int Bits>
void pack_bits_generic(const std::uint8_t* codes, std::byte* out, Index n) {
  constexpr Index step = 8 * width64;
  const Index bytes = ceil_div(n * Bits, 8);
  Index i = 0;
  // Each lane stores 8 bytes, of which the next lane overwrites the upper 8 - Bits.
  for (; i + step <= n && (i + step) / 8 * Bits + 8 - Bits <= bytes; i += step) {
    std::uint64_t words[static_cast<std::size_t>(width64)];
    store(words, gather8<Bits>(load_bytes_u64(codes + i)));
    for (Index lane = 0; lane < width64; ++lane) std::memcpy(out + (i / 8 + lane) * Bits, &words[lane], 8);
  }
  pack_bits_swar<Bits>(codes + i, out + i / 8 * Bits, n - i);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
