#pragma once
// Unpacking with AVX2, 32 codes at a time. A byte shuffle puts the two bytes that hold a code into a 16-bit lane, a
// multiplication by a power of two shifts each lane by its own count so that the code ends at bit 15, a common right shift
// brings it to bit 0 and clears its neighbours.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include <anybit/core/types.hpp>
#include <anybit/simd/vector_code.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

namespace detail {

/// Where the bytes of lane 0 (codes 0-15) and lane 1 (codes 16-31) start in the 4 * Bits bytes, as loaded by load32codes.
template <int Bits>
constexpr int lane_base(int lane) {
  if (lane == 0 || Bits == 1 || Bits == 2 || Bits == 4) return 0;
  return Bits == 3 ? 4 : 4 * Bits - 16;
}

/// Both lanes, reading exactly 4 * Bits bytes.
template <int Bits>
ANYBIT_INLINE __m256i load32codes(const std::byte* in) {
  const auto word = [&](int at) {
    std::int64_t w;
    std::memcpy(&w, in + at, 8);
    return w;
  };
  if constexpr (Bits == 1) {
    std::int32_t w;
    std::memcpy(&w, in, 4);
    return _mm256_set1_epi32(w);
  } else if constexpr (Bits == 2) {
    return _mm256_set1_epi64x(word(0));
  } else if constexpr (Bits == 3) {
    return _mm256_set_m128i(_mm_cvtsi64_si128(word(4)), _mm_cvtsi64_si128(word(0)));
  } else if constexpr (Bits == 4) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
  } else {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in))),
                                   _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 4 * Bits - 16)), 1);
  }
}

/// Part 0 holds codes 0-7 and 16-23, part 1 codes 8-15 and 24-31, so that packing the two gives codes 0-31 in order.
template <int Bits>
struct Windows {
  alignas(32) std::array<std::int8_t, 64> bytes{};
  alignas(32) std::array<std::uint16_t, 32> factors{};
};
template <int Bits>
inline constexpr Windows<Bits> windows = [] {
  Windows<Bits> w;
  for (int part = 0; part < 2; ++part)
    for (int lane = 0; lane < 2; ++lane)
      for (int i = 0; i < 8; ++i) {
        const int bit = (16 * lane + 8 * part + i) * Bits, at = bit / 8 - lane_base<Bits>(lane), offset = bit % 8;
        const auto slot = static_cast<std::size_t>(16 * part + 8 * lane + i);
        w.bytes[2 * slot] = static_cast<std::int8_t>(at);
        w.bytes[2 * slot + 1] = static_cast<std::int8_t>(offset + Bits > 8 ? at + 1 : -1);  // -1: zero
        w.factors[slot] = static_cast<std::uint16_t>(1 << (16 - Bits - offset));
      }
  return w;
}();

template <int Bits>
struct Unpack32 {
  const __m256i bytes0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(windows<Bits>.bytes.data()));
  const __m256i bytes1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(windows<Bits>.bytes.data() + 32));
  const __m256i factors0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(windows<Bits>.factors.data()));
  const __m256i factors1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(windows<Bits>.factors.data() + 16));

  ANYBIT_INLINE __m256i operator()(const std::byte* in) const {
    const __m256i x = load32codes<Bits>(in);
    const __m256i a = _mm256_srli_epi16(_mm256_mullo_epi16(_mm256_shuffle_epi8(x, bytes0), factors0), 16 - Bits);
    const __m256i b = _mm256_srli_epi16(_mm256_mullo_epi16(_mm256_shuffle_epi8(x, bytes1), factors1), 16 - Bits);
    return _mm256_packus_epi16(a, b);
  }
};

}  // namespace detail

/// Reads ceil(n * Bits / 8) bytes, writes n codes, and nothing else.
template <int Bits>
void unpack_bits_avx2(const std::byte* in, std::uint8_t* out, Index n) {
  static_assert(Bits >= 1 && Bits <= 7);
  const detail::Unpack32<Bits> unpack32;
  Index i = 0;
  for (; i + 32 <= n; i += 32) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), unpack32(in + i / 8 * Bits));
  if (i < n) {
    std::byte bytes[static_cast<std::size_t>(4 * Bits)] = {};
    std::uint8_t codes[32];
    std::memcpy(bytes, in + i / 8 * Bits, static_cast<std::size_t>(ceil_div((n - i) * Bits, 8)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), unpack32(bytes));
    std::memcpy(out + i, codes, static_cast<std::size_t>(n - i));
  }
}

/// Five ternary digits a byte, the most significant first: 32 codes a step. Reads ceil(n / 5) bytes, writes n codes.
/// byte * 270 / 2^16 is byte / 243 with an error below 1 / 243, so multiplying the 16-bit fraction by 3^k and then by 3
/// pushes digit k out at the top; both factors of the first product are one constant.
namespace detail {
struct Base3Windows {
  alignas(32) std::array<std::int8_t, 64 * 5> bytes{};
  alignas(32) std::array<std::uint16_t, 32 * 5> factors{};
};
/// Step `s` of five (160 codes, 32 bytes): codes 32 s .. 32 s + 31. Lane 0 is loaded from byte 32 s / 5, lane 1 from byte
/// (32 s + 16) / 5; each needs 4 bytes.
inline constexpr Base3Windows base3_windows = [] {
  Base3Windows w;
  constexpr int power[5] = {1, 3, 9, 27, 81};
  for (int s = 0; s < 5; ++s)
    for (int part = 0; part < 2; ++part)
      for (int lane = 0; lane < 2; ++lane)
        for (int i = 0; i < 8; ++i) {
          const int code = 32 * s + 16 * lane + 8 * part + i, base = (32 * s + 16 * lane) / 5;
          const auto slot = static_cast<std::size_t>(32 * s + 16 * part + 8 * lane + i);
          w.bytes[2 * slot] = static_cast<std::int8_t>(code / 5 - base);
          w.bytes[2 * slot + 1] = -1;
          w.factors[slot] = static_cast<std::uint16_t>(270 * power[code % 5]);
        }
  return w;
}();

template <int Step>
ANYBIT_INLINE __m256i unpack32_base3(const std::byte* in) {
  const auto four = [&](int at) {
    std::int32_t w;
    std::memcpy(&w, in + at, 4);
    return _mm_cvtsi32_si128(w);
  };
  const auto constant = [](const auto* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); };
  const __m256i x = _mm256_set_m128i(four((32 * Step + 16) / 5), four(32 * Step / 5));
  const auto digits = [&](int part) {
    const __m256i bytes = _mm256_shuffle_epi8(x, constant(base3_windows.bytes.data() + 64 * Step + 32 * part));
    const __m256i fraction = _mm256_mullo_epi16(bytes, constant(base3_windows.factors.data() + 32 * Step + 16 * part));
    return _mm256_mulhi_epu16(fraction, _mm256_set1_epi16(3));
  };
  return _mm256_packus_epi16(digits(0), digits(1));
}
ANYBIT_INLINE void unpack160_base3(const std::byte* in, std::uint8_t* out) {
  const auto put = [&](int step, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * step), v); };
  put(0, unpack32_base3<0>(in));
  put(1, unpack32_base3<1>(in));
  put(2, unpack32_base3<2>(in));
  put(3, unpack32_base3<3>(in));
  put(4, unpack32_base3<4>(in));
}
}  // namespace detail

inline void unpack_base3_avx2(const std::byte* in, std::uint8_t* out, Index n) {
  Index i = 0;
  for (; i + 160 <= n; i += 160) detail::unpack160_base3(in + i / 5, out + i);
  if (i < n) {
    std::byte bytes[32] = {};
    std::uint8_t codes[160];
    std::memcpy(bytes, in + i / 5, static_cast<std::size_t>(ceil_div(n - i, 5)));
    detail::unpack160_base3(bytes, codes);
    std::memcpy(out + i, codes, static_cast<std::size_t>(n - i));
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END
