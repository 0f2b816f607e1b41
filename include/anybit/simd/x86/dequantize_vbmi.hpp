#pragma once
// Packed codes of a bit stream straight to floats with AVX-512 VBMI. Tables hold the values of codes, so that a format
// needs no code of its own; every body is scale * (level - zero), rounded once. Groups are multiples of 16, or reach past the
// end.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>
#include <cstring>

#include <anybit/simd/groups.hpp>
#include <anybit/simd/x86/bit_unpack_vbmi.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd::x86 {
inline namespace ANYBIT_CODE {

namespace detail {

/// Dword i of 16 takes code i of the 64 bits that every quadword holds.
template <int Bits>
struct LookupShifts {
  alignas(64) std::array<std::uint8_t, 64> shifts{};
};
template <int Bits>
inline constexpr LookupShifts<Bits> lookup_shifts = [] {
  LookupShifts<Bits> s;
  for (int i = 0; i < 16; ++i) s.shifts[static_cast<std::size_t>(4 * i)] = static_cast<std::uint8_t>(i * Bits);
  return s;
}();

/// 2^Bits floats, again and again.
template <int Bits>
ANYBIT_INLINE __m512 repeated(const float* p) {
  if constexpr (Bits == 4) return _mm512_loadu_ps(p);
  if constexpr (Bits == 3) return _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_loadu_pd(reinterpret_cast<const double*>(p))));
  if constexpr (Bits == 2) return _mm512_broadcast_f32x4(_mm_loadu_ps(p));
  if constexpr (Bits == 1) return _mm512_castpd_ps(_mm512_broadcastsd_pd(_mm_castps_pd(_mm_setr_ps(p[0], p[1], p[0], p[1]))));
}

/// Byte lists that spread bytes 16 p .. 16 p + 15 of the first operand over dwords. Entries of 64 and more take bytes of the
/// second.
struct SpreadBytes {
  alignas(64) std::array<std::uint8_t, 256> low{};   // byte 0 of each dword; the others from the second operand's same place
  alignas(64) std::array<std::uint8_t, 256> high{};  // byte 3 from the first operand, byte 2 from the second; the others unused
};
inline constexpr SpreadBytes spread_bytes = [] {
  SpreadBytes s;
  for (int i = 0; i < 64; ++i)
    for (int b = 0; b < 4; ++b) {
      const auto at = static_cast<std::size_t>(4 * i + b);
      s.low[at] = static_cast<std::uint8_t>(b == 0 ? i : 64 + (4 * i + b) % 64);
      s.high[at] = static_cast<std::uint8_t>(b == 3 ? i : 64 + i);
    }
  return s;
}();

/// A table of 2^Bits bytes, 5 to 7 bits; bits of the index above the table are ignored.
template <int Bits>
class ByteTable {
 public:
  explicit ANYBIT_INLINE ByteTable(const std::uint8_t* values) {
    if constexpr (Bits == 5)
      low_ = high_ = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
    else
      low_ = _mm512_loadu_si512(values), high_ = _mm512_loadu_si512(values + (Bits == 7 ? 64 : 0));
  }
  ANYBIT_INLINE __m512i operator[](__m512i index) const {
    if constexpr (Bits <= 6)
      return _mm512_permutexvar_epi8(index, low_);
    else
      return _mm512_permutex2var_epi8(low_, index, high_);
  }

 private:
  __m512i low_, high_;
};

/// Calls block(codes, i, count) for every 64 codes, which stand in bytes whose upper bits are anything.
template <int Bits, class Block>
ANYBIT_INLINE void for_each_64(const std::byte* in, Index n, Block block) {
  if constexpr (Bits == 8) {
    for (Index i = 0; i < n; i += 64) block(_mm512_maskz_loadu_epi8(first_bytes(n - i), in + i), i);
  } else {
    const __m512i bytes = _mm512_load_si512(windows64<Bits>.bytes.data()),
                  shifts = _mm512_load_si512(windows64<Bits>.shifts.data());
    const Index all = ceil_div(n * Bits, 8);
    for (Index i = 0; i < n; i += 64) {
      const std::byte* const from = in + i / 8 * Bits;
      const Index rest = all - i / 8 * Bits;
      const __m512i packed = _mm512_maskz_loadu_epi8(first_bytes(rest), from);
      block(_mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(bytes, packed)), i);
    }
  }
}

/// Stores up to 64 floats, vector(part) for 16 of them; before(i) is called ahead of each.
template <class Before, class Vector>
ANYBIT_INLINE void store_64(float* out, Index i, Index n, Before before, Vector vector) {
  if (n - i >= 64) {
#pragma GCC unroll 4
    for (Index p = 0; p < 4; ++p) {
      before(i + 16 * p);
      _mm512_storeu_ps(out + i + 16 * p, vector(p));
    }
  } else {
    for (Index p = 0; i + 16 * p < n; ++p) {
      before(i + 16 * p);
      _mm512_mask_storeu_ps(out + i + 16 * p, static_cast<__mmask16>(first_bytes(std::min<Index>(n - i - 16 * p, 16))),
                            vector(p));
    }
  }
}

}  // namespace detail

/// Up to 4 bits: a table of the 2^Bits levels, scaled for each group. 16 codes are within 64 bits; vpermps reads the low four
/// bits of its indices, and the table repeats, so codes need not be cut out.
template <int Bits>
void dequantize_lookup_vbmi(const std::byte* in, Index n, const float* levels, Groups groups, float* out) {
  static_assert(Bits >= 1 && Bits <= 4);
  const __m512i shifts = _mm512_load_si512(detail::lookup_shifts<Bits>.shifts.data());
  const __m512 table = detail::repeated<Bits>(levels);
  const Index bytes = ceil_div(n * Bits, 8), whole = bytes < 8 ? 0 : std::min(n / 16 * 16, (bytes - 8) / (2 * Bits) * 16 + 16);
  Index i = 0, end = groups.first;
  for (Index g = 0; i < n; ++g, end += groups.size) {
    __m512 scaled = table;
    if (groups.zeros) scaled = _mm512_sub_ps(scaled, _mm512_set1_ps(groups.zeros[g]));
    scaled = _mm512_mul_ps(scaled, _mm512_set1_ps(groups.scales[g]));
    const auto floats = [&](__m512i codes) { return _mm512_permutexvar_ps(_mm512_multishift_epi64_epi8(shifts, codes), scaled); };
    for (const Index stop = std::min(end, whole); i < stop; i += 16) {
      std::int64_t codes;
      std::memcpy(&codes, in + i / 8 * Bits, 8);
      _mm512_storeu_ps(out + i, floats(_mm512_set1_epi64(codes)));
    }
    for (const Index stop = std::min(end, n); i < stop; i += 16) {
      const __m512i codes =
          _mm512_maskz_loadu_epi8(detail::first_bytes(std::min<Index>(bytes - i / 8 * Bits, 8)), in + i / 8 * Bits);
      const __m512 weights = floats(_mm512_broadcastq_epi64(_mm512_castsi512_si128(codes)));
      if (n - i >= 16)
        _mm512_storeu_ps(out + i, weights);
      else
        _mm512_mask_storeu_ps(out + i, static_cast<__mmask16>(detail::first_bytes(n - i)), weights);
    }
  }
}

/// Levels (u + lowest) * step with bytes u and a step that is a power of two, at most 1 where there are zeros. Up to 7 bits u is
/// steps[code]; of 8 bits u is code ^ flip, or with SignMagnitude 127 plus or minus the lower bits.
/// A byte becomes a float by standing at the end of one whose last place is worth a step.
template <int Bits, bool SignMagnitude = false>
void dequantize_steps_vbmi(const std::byte* in, Index n, const std::uint8_t* steps, std::uint8_t flip, int lowest, float step,
                           Groups groups, float* out) {
  const float base = 0x1p23f * step;
  const __m512i base_bits = _mm512_set1_epi32(std::bit_cast<std::int32_t>(base));
  const auto list = [](int part) { return _mm512_load_si512(detail::spread_bytes.low.data() + 64 * part); };
  const __m512i lists[4] = {list(0), list(1), list(2), list(3)};
  const __m512 from_base = _mm512_set1_ps(base - static_cast<float>(lowest) * step);
  const auto bytes_of = [&] {
    if constexpr (Bits < 8)
      return detail::ByteTable<Bits>(steps);
    else
      return _mm512_set1_epi8(static_cast<char>(flip));
  }();
  const auto bytes = [&](__m512i codes) {
    if constexpr (Bits < 8) {
      return bytes_of[codes];
    } else if constexpr (SignMagnitude) {
      const __m512i magnitude = _mm512_and_si512(codes, _mm512_set1_epi8(127));
      return _mm512_mask_sub_epi8(_mm512_add_epi8(magnitude, _mm512_set1_epi8(127)), _mm512_movepi8_mask(codes),
                                  _mm512_set1_epi8(127), magnitude);
    } else {
      return _mm512_xor_si512(codes, bytes_of);
    }
  };
  __m512 offset = from_base, scale = _mm512_setzero_ps();
  Index g = 0, end = 0;
  const auto next_group = [&](Index i) {
    if (i != end) return;
    scale = _mm512_set1_ps(groups.scales[g]);
    if (groups.zeros) offset = _mm512_add_ps(from_base, _mm512_set1_ps(groups.zeros[g]));
    end += g++ == 0 ? groups.first : groups.size;
  };
  detail::for_each_64<Bits>(in, n, [&](__m512i codes, Index i) __attribute__((always_inline)) {
    const __m512i u = bytes(codes);
    const auto floats = [&](Index part) {
      const __m512 with_base = _mm512_castsi512_ps(_mm512_permutex2var_epi8(u, lists[part], base_bits));
      return _mm512_mul_ps(_mm512_sub_ps(with_base, offset), scale);
    };
    detail::store_64(out, i, n, next_group, floats);
  });
}

/// Levels that are bfloat16 numbers: tables of their high and low bytes. Of 8 bits the tables hold the positive half, and bit 7
/// is the sign.
template <int Bits>
void dequantize_bf16_vbmi(const std::byte* in, Index n, const std::uint8_t* high, const std::uint8_t* low, Groups groups,
                          float* out) {
  static_assert(Bits >= 5 && Bits <= 8);
  constexpr int index_bits = Bits < 8 ? Bits : 7;
  const detail::ByteTable<index_bits> high_of(high), low_of(low);
  const auto list = [](int part) { return _mm512_load_si512(detail::spread_bytes.high.data() + 64 * part); };
  const __m512i lists[4] = {list(0), list(1), list(2), list(3)};
  __m512 scale = _mm512_setzero_ps();
  Index g = 0, end = 0;
  const auto next_group = [&](Index i) {
    if (i != end) return;
    scale = _mm512_set1_ps(groups.scales[g]);
    end += g++ == 0 ? groups.first : groups.size;
  };
  detail::for_each_64<Bits>(in, n, [&](__m512i codes, Index i) __attribute__((always_inline)) {
    __m512i h = high_of[codes];
    const __m512i l = low_of[codes];
    if constexpr (Bits == 8) h = _mm512_or_si512(h, _mm512_and_si512(codes, _mm512_set1_epi8(-128)));
    const auto floats = [&](Index part) {
      const __m512i level = _mm512_maskz_permutex2var_epi8(0xCCCCCCCCCCCCCCCCull, h, lists[part], l);
      return _mm512_mul_ps(_mm512_castsi512_ps(level), scale);
    };
    detail::store_64(out, i, n, next_group, floats);
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::x86
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
