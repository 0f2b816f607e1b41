#pragma once
// Unpacking with AVX-512 VBMI: 64 codes of any width in three instructions. vpermb gathers the bytes that hold eight codes
// into each quadword, vpmultishiftqb aligns the eight codes at their bit offsets, and a mask isolates them.

#include <array>
#include <cstddef>
#include <cstdint>

#if !defined(ANYBIT_TEST_SIMDE)  // a test supplies emulated intrinsics
#include <immintrin.h>
#endif

#include <anybit/core/types.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

namespace detail {

template <int Bits>
struct Windows64 {
  alignas(64) std::array<std::uint8_t, 64> bytes{}, shifts{};
};
template <int Bits>
inline constexpr Windows64<Bits> windows64 = [] {
  Windows64<Bits> w;
  for (int i = 0; i < 64; ++i) {
    w.bytes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>((i / 8) * Bits + (i % 8 < Bits ? i % 8 : 0));
    w.shifts[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>((i % 8) * Bits);
  }
  return w;
}();

/// The first n <= 64 bytes.
ANYBIT_INLINE __mmask64 first_bytes(Index n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }

template <int Bits>
struct Unpack64 {
  const __m512i bytes = _mm512_load_si512(windows64<Bits>.bytes.data());
  const __m512i shifts = _mm512_load_si512(windows64<Bits>.shifts.data());
  const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << Bits) - 1));

  /// Of the first `available` bytes at `in`; codes beyond them are 0.
  ANYBIT_INLINE __m512i operator()(const std::byte* in, __mmask64 available) const {
    const __m512i packed = _mm512_maskz_loadu_epi8(available, in);
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(bytes, packed)), mask);
  }
};

/// Windows of 64 base-3 codes (x86/bit_unpack_avx2.hpp has the arithmetic), even codes first, then odd ones, for each digit
/// that a run of 64 may start at.
struct Base3Windows64 {
  alignas(64) std::array<std::uint8_t, 64 * 10> bytes{};
  alignas(64) std::array<std::uint16_t, 32 * 10> factors{};
};
inline constexpr Base3Windows64 base3_windows64 = [] {
  Base3Windows64 w;
  constexpr int power[5] = {1, 3, 9, 27, 81};
  for (int digit = 0; digit < 5; ++digit)
    for (int parity = 0; parity < 2; ++parity)
      for (int i = 0; i < 32; ++i) {
        const int code = digit + 2 * i + parity;
        const auto slot = static_cast<std::size_t>(32 * (2 * digit + parity) + i);
        w.bytes[2 * slot] = static_cast<std::uint8_t>(code / 5);
        w.bytes[2 * slot + 1] = static_cast<std::uint8_t>(code / 5);
        w.factors[slot] = static_cast<std::uint16_t>(270 * power[code % 5]);
      }
  return w;
}();

}  // namespace detail

/// Reads ceil(n * Bits / 8) bytes, writes n codes, and nothing else.
template <int Bits>
void unpack_bits_vbmi(const std::byte* in, std::uint8_t* out, Index n) {
  static_assert(Bits >= 1 && Bits <= 7);
  const detail::Unpack64<Bits> unpack64;
  Index i = 0;
  for (; i + 64 <= n; i += 64) _mm512_storeu_si512(out + i, unpack64(in + i / 8 * Bits, detail::first_bytes(8 * Bits)));
  if (i < n)
    _mm512_mask_storeu_epi8(out + i, detail::first_bytes(n - i),
                            unpack64(in + i / 8 * Bits, detail::first_bytes(ceil_div((n - i) * Bits, 8))));
}

/// Five ternary digits a byte, the most significant first. Reads ceil(n / 5) bytes, writes n codes.
inline void unpack_base3_vbmi(const std::byte* in, std::uint8_t* out, Index n) {
  const __m512i low_byte = _mm512_set1_epi16(0xFF), three = _mm512_set1_epi16(3);
  for (Index i = 0; i < n; i += 64) {
    const Index digit = i % 5, codes = n - i < 64 ? n - i : 64;
    const __m512i packed = _mm512_maskz_loadu_epi8(detail::first_bytes(ceil_div(digit + codes, 5)), in + i / 5);
    const auto digits = [&](Index parity) {
      const Index list = 2 * digit + parity;
      const __m512i bytes = _mm512_permutexvar_epi8(_mm512_load_si512(detail::base3_windows64.bytes.data() + 64 * list), packed);
      const __m512i factors = _mm512_load_si512(detail::base3_windows64.factors.data() + 32 * list);
      return _mm512_mulhi_epu16(_mm512_mullo_epi16(_mm512_and_si512(bytes, low_byte), factors), three);
    };
    const __m512i both = _mm512_or_si512(digits(0), _mm512_slli_epi16(digits(1), 8));
    _mm512_mask_storeu_epi8(out + i, detail::first_bytes(codes), both);
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END
