#pragma once
// Packed codes to bytes (above 8 bits two bytes per code) and back, vectorized: the choice among the bodies.
// Every function here reads and writes exactly the bytes it names, so that rows may end where memory ends.

#include <anybit/core/isa.hpp>
#include <anybit/simd/bit_swar.hpp>

#if ANYBIT_HAS_AVX512_VBMI
#define ANYBIT_UNPACK_VBMI
#include <anybit/simd/x86/bit_unpack_vbmi.hpp>
#elif ANYBIT_HAS_AVX2
#define ANYBIT_UNPACK_AVX2
#include <anybit/simd/x86/bit_unpack_avx2.hpp>
#elif ANYBIT_HAS_NEON
#define ANYBIT_UNPACK_NEON
#include <anybit/simd/arm/bit_unpack_neon.hpp>
#endif
#if ANYBIT_HAS_AVX2
#include <anybit/simd/x86/bit_pack.hpp>
#endif
#include <anybit/simd/bit_generic.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// n codes of Bits <= 8 bits, LSB first. Reads ceil(n * Bits / 8) bytes.
template <int Bits>
void unpack_bits(const std::byte* in, std::uint8_t* out, Index n) {
  if constexpr (Bits == 8) copy_bytes(out, in, n);
#if defined(ANYBIT_UNPACK_VBMI)
  else
    x86::unpack_bits_vbmi<Bits>(in, out, n);
#elif defined(ANYBIT_UNPACK_AVX2)
  else
    x86::unpack_bits_avx2<Bits>(in, out, n);
#elif defined(ANYBIT_UNPACK_NEON)
  else {
    const Index done = arm::unpack_bits_neon<Bits>(in, out, n);
    unpack_bits_generic<Bits>(in + done / 8 * Bits, out + done, n - done);
  }
#else
  else
    unpack_bits_generic<Bits>(in, out, n);
#endif
}

/// n codes of 9 to 16 bits, LSB first. Reads ceil(n * Bits / 8) bytes.
template <int Bits>
void unpack_wide_bits(const std::byte* in, std::uint16_t* out, Index n) {
  static_assert(Bits >= 9 && Bits <= 16);
  if constexpr (Bits == 16) {
    copy_bytes(out, in, 2 * n);
  } else {
    const auto eight = [](const std::byte* p, std::uint16_t* codes) {  // reads Bits + 2 bytes
      for (int i = 0; i < 8; ++i) {
        std::uint32_t window;
        std::memcpy(&window, p + i * Bits / 8 - (i == 7), 4);
        codes[i] = static_cast<std::uint16_t>((window >> (i * Bits % 8 + 8 * (i == 7))) & ((1u << Bits) - 1));
      }
    };
    const Index bytes = ceil_div(n * Bits, 8);
    Index i = 0;
    for (; i + 8 <= n && i / 8 * Bits + Bits + 2 <= bytes; i += 8) eight(in + i / 8 * Bits, out + i);
    for (; i < n; i += 8) {
      std::byte block[static_cast<std::size_t>(Bits + 2)] = {};
      std::uint16_t codes[8];
      const Index rest = bytes - i / 8 * Bits;
      std::memcpy(block, in + i / 8 * Bits, static_cast<std::size_t>(rest < Bits ? rest : Bits));
      eight(block, codes);
      std::memcpy(out + i, codes, static_cast<std::size_t>(2 * (n - i < 8 ? n - i : 8)));
    }
  }
}

/// n codes below 2^Bits, Bits <= 8. Writes ceil(n * Bits / 8) bytes; unused bits of the last are 0.
template <int Bits>
void pack_bits(const std::uint8_t* codes, std::byte* out, Index n) {
  if constexpr (Bits == 8)
    copy_bytes(out, codes, n);
  else
#if ANYBIT_HAS_AVX2
    x86::pack_bits_x86<Bits>(codes, out, n);
#else
    pack_bits_generic<Bits>(codes, out, n);
#endif
}

/// n codes below 2^Bits, 9 to 16 bits. Writes ceil(n * Bits / 8) bytes; unused bits of the last are 0.
template <int Bits>
void pack_wide_bits(const std::uint16_t* codes, std::byte* out, Index n) {
  static_assert(Bits >= 9 && Bits <= 16);
  if constexpr (Bits == 16) {
    copy_bytes(out, codes, 2 * n);
  } else {
    const auto eight = [](const std::uint16_t* c, std::byte* to, std::size_t bytes) {
      const auto four = [](const std::uint16_t* p) {
        return std::uint64_t{p[0]} | std::uint64_t{p[1]} << Bits | std::uint64_t{p[2]} << (2 * Bits) |
               std::uint64_t{p[3]} << (3 * Bits);
      };
      const std::uint64_t low = four(c), high = four(c + 4);
      const std::uint64_t words[2] = {low | high << (4 * Bits), high >> (64 - 4 * Bits)};
      std::memcpy(to, words, bytes);
    };
    Index i = 0;
    for (; i + 8 <= n; i += 8) eight(codes + i, out + i / 8 * Bits, static_cast<std::size_t>(Bits));
    if (i < n) {
      std::uint16_t last[8] = {};
      std::memcpy(last, codes + i, static_cast<std::size_t>(2 * (n - i)));
      eight(last, out + i / 8 * Bits, static_cast<std::size_t>(ceil_div((n - i) * Bits, 8)));
    }
  }
}

/// n codes 0, 1, 2 from bytes of five, the most significant digit first. Reads ceil(n / 5) bytes.
inline void unpack_base3(const std::byte* in, std::uint8_t* out, Index n) {
#if defined(ANYBIT_UNPACK_VBMI)
  x86::unpack_base3_vbmi(in, out, n);
#elif defined(ANYBIT_UNPACK_AVX2)
  x86::unpack_base3_avx2(in, out, n);
#else
  // byte * 270 / 2^16 is byte / 243 with an error below 1 / 243: each multiplication by 3 pushes a digit out at bit 16.
  const auto five = [](std::byte b, std::uint8_t* codes) {
    std::uint32_t fraction = (std::to_integer<std::uint32_t>(b) * 270) & 0xFFFF;
    for (int k = 0; k < 5; ++k, fraction &= 0xFFFF) codes[k] = static_cast<std::uint8_t>((fraction *= 3) >> 16);
  };
  Index i = 0;
  for (; i + 5 <= n; i += 5) five(*in++, out + i);
  if (i < n) {
    std::uint8_t codes[5];
    five(*in, codes);
    std::memcpy(out + i, codes, static_cast<std::size_t>(n - i));
  }
#endif
}

/// n codes 0, 1, 2. Writes ceil(n / 5) bytes; missing digits of the last are 0.
inline void pack_base3(const std::uint8_t* codes, std::byte* out, Index n) {
  // One multiplication adds up the five products: digit k meets 3^(4 - k) in byte 4, and no byte below it carries.
  constexpr std::uint64_t powers = 81ull << 32 | 27ull << 24 | 9ull << 16 | 3ull << 8 | 1;
  const auto byte = [](std::uint64_t digits) { return static_cast<std::byte>((digits * powers) >> 32); };
  Index i = 0;
  for (; i + 8 <= n; i += 5) *out++ = byte(load_bytes(reinterpret_cast<const std::byte*>(codes + i), 8) & 0xFFFFFFFFFF);
  for (; i < n; i += 5)
    *out++ = byte(load_bytes(reinterpret_cast<const std::byte*>(codes + i), static_cast<std::size_t>(n - i < 5 ? n - i : 5)));
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
