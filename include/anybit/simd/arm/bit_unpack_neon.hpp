#pragma once
// Unpacking with NEON, 16 codes at a time. A table look-up puts the two bytes that hold a code into a 16-bit lane, a shift by
// each lane's own count brings it to bit 0, and the low bytes of two vectors are the result.

#include <arm_neon.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include <anybit/core/types.hpp>

namespace anybit::simd::arm {
inline namespace ANYBIT_CODE {

namespace detail {

/// 64 codes of Bits < 8 bits from 8 * Bits bytes, exactly those being read.
template <int Bits>
struct Unpack64 {
  static_assert(1 <= Bits && Bits <= 7);

  struct Tables {
    alignas(16) std::array<std::uint8_t, 32> bytes;  // of codes 0-7, of codes 8-15
    alignas(16) std::array<std::int16_t, 16> shifts;
  };
  /// Where the 16 bytes are loaded that hold codes 16 * step .. 16 * step + 15.
  static constexpr int load_at(int step) {
    const int first = 2 * Bits * step, last = 8 * Bits - 16;
    return last < 0 ? 0 : first < last ? first : last;
  }
  static constexpr Tables tables(int step) {
    Tables t{};
    for (int i = 0; i < 16; ++i) {
      const int bit = Bits * (16 * step + i), byte = bit / 8 - load_at(step);
      t.bytes[static_cast<std::size_t>(2 * i)] = static_cast<std::uint8_t>(byte);
      t.bytes[static_cast<std::size_t>(2 * i + 1)] = static_cast<std::uint8_t>(byte + 1);  // past the 16: reads as 0
      t.shifts[static_cast<std::size_t>(i)] = static_cast<std::int16_t>(-(bit % 8));
    }
    return t;
  }

  ANYBIT_INLINE uint8x16x4_t operator()(const std::byte* p) const {
    const auto* in = reinterpret_cast<const std::uint8_t*>(p);
    return {{sixteen<0>(in), sixteen<1>(in), sixteen<2>(in), sixteen<3>(in)}};
  }

 private:
  template <int Step>
  static ANYBIT_INLINE uint8x16_t sixteen(const std::uint8_t* in) {
    static constexpr Tables t = tables(Step);
    uint8x16_t v;
    if constexpr (Bits == 1)
      v = vcombine_u8(vld1_u8(in), vdup_n_u8(0));
    else
      v = vld1q_u8(in + load_at(Step));
    const auto eight = [&](int half) __attribute__((always_inline)) {
      const uint16x8_t pairs = vreinterpretq_u16_u8(vqtbl1q_u8(v, vld1q_u8(t.bytes.data() + 16 * half)));
      return vreinterpretq_u8_u16(vshlq_u16(pairs, vld1q_s16(t.shifts.data() + 8 * half)));
    };
    return vandq_u8(vuzp1q_u8(eight(0), eight(1)), vdupq_n_u8((1 << Bits) - 1));
  }
};

}  // namespace detail

/// n codes of Bits < 8 bits; reads ceil(n * Bits / 8) bytes. Returns how many were unpacked: all but the last n % 64.
template <int Bits>
Index unpack_bits_neon(const std::byte* in, std::uint8_t* out, Index n) {
  Index i = 0;
  for (; i + 64 <= n; i += 64) vst1q_u8_x4(out + i, detail::Unpack64<Bits>()(in + i / 8 * Bits));
  return i;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd::arm
