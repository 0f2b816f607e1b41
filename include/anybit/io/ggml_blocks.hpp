#pragma once
// Values of ggml's block-quantized types, the same bits as ggml's own dequantize_row_*.
//
// A block of `values` consecutive weights of one row has its own scales, as binary16. All products below are exact in
// binary32: 11 significant bits of the scale, up to 7 of a sub-scale and up to 5 of a code (with a factor of -128 or
// -32 being a power of two) stay below 24. So a fused multiply-add rounds exactly where product and sum do, and the
// bits are the same under any -ffp-contract and on any instruction set.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include <anybit/io/ggml_bytes.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {
namespace ggml {

// Each function writes one block to `y`; `b` is the block's first byte, at any alignment.

inline void q4_0(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((u8(b + 2 + j) & 15) - 8) * d;
    y[j + 16] = static_cast<float>((u8(b + 2 + j) >> 4) - 8) * d;
  }
}

inline void q4_1(const std::byte* b, float* y) {
  const float d = f16(b), m = f16(b + 2);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(u8(b + 4 + j) & 15) * d + m;
    y[j + 16] = static_cast<float>(u8(b + 4 + j) >> 4) * d + m;
  }
}

/// Fifth bits: bit j of the 32-bit word belongs to element j.
inline int high_bit(std::uint32_t word, int j) { return static_cast<int>(word >> j & 1u) << 4; }

inline void q5_0(const std::byte* b, float* y) {
  const float d = f16(b);
  const std::uint32_t high = u32(b + 2);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(((u8(b + 6 + j) & 15) | high_bit(high, j)) - 16) * d;
    y[j + 16] = static_cast<float>(((u8(b + 6 + j) >> 4) | high_bit(high, j + 16)) - 16) * d;
  }
}

inline void q5_1(const std::byte* b, float* y) {
  const float d = f16(b), m = f16(b + 2);
  const std::uint32_t high = u32(b + 4);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((u8(b + 8 + j) & 15) | high_bit(high, j)) * d + m;
    y[j + 16] = static_cast<float>((u8(b + 8 + j) >> 4) | high_bit(high, j + 16)) * d + m;
  }
}

inline void q8_0(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(i8(b + 2 + j)) * d;
}

/// d, the scale times the sum of the codes, codes[32]: activations of a product, which no model file holds.
inline void q8_1(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(i8(b + 4 + j)) * d;
}

/// d (binary32), codes[256], 16 sums of 16 codes: likewise. The only product here that rounds.
inline void q8_k(const std::byte* b, float* y) {
  const float d = std::bit_cast<float>(u32(b));
  for (int j = 0; j < 256; ++j) y[j] = d * static_cast<float>(i8(b + 4 + j));
}

/// scales[16] (low nibble: scale, high: minimum), qs[64], d, dmin. Two bits a code; the four codes of byte l of each
/// 32-byte run belong to elements l, l+32, l+64, l+96 of its 128. Sub-blocks of 16.
inline void q2_k(const std::byte* b, float* y) {
  const float d = f16(b + 80), dmin = f16(b + 82);
  for (int i = 0; i < 256; ++i) {
    const int in_run = i % 128, sub_block = i / 16;
    const int code = u8(b + 16 + i / 128 * 32 + in_run % 32) >> (2 * (in_run / 32)) & 3;
    const float scale = d * static_cast<float>(u8(b + sub_block) & 15), low = dmin * static_cast<float>(u8(b + sub_block) >> 4);
    y[i] = scale * static_cast<float>(code) - low;
  }
}

/// hmask[32], qs[64], scales[12], d. Codes as in q2_k, with a third bit: bit k of hmask[l] for element 32k + l.
inline void q3_k(const std::byte* b, float* y) {
  const float d = f16(b + 108);
  const std::byte* const scales = b + 96;
  for (int i = 0; i < 256; ++i) {
    const int in_run = i % 128, sub_block = i / 16;
    const int low_bits = u8(b + 32 + i / 128 * 32 + in_run % 32) >> (2 * (in_run / 32)) & 3;
    const int code = low_bits - ((u8(b + i % 32) >> (i / 32) & 1) ? 0 : 4);
    const int nibble = u8(scales + sub_block % 8) >> (4 * (sub_block / 8)) & 15;
    const int top = u8(scales + 8 + sub_block % 4) >> (2 * (sub_block / 4)) & 3;
    y[i] = d * static_cast<float>((nibble | top << 4) - 32) * static_cast<float>(code);
  }
}

/// Scale and minimum of sub-block j (of 32) from the twelve bytes that q4_k and q5_k share, 6 bits each.
struct SubScale {
  int scale, low;
};
inline SubScale sub_scale(const std::byte* s, int j) {
  if (j < 4) return {u8(s + j) & 63, u8(s + j + 4) & 63};
  return {(u8(s + j + 4) & 15) | (u8(s + j - 4) >> 6) << 4, (u8(s + j + 4) >> 4) | (u8(s + j) >> 6) << 4};
}

/// d, dmin, scales[12], (q5_k: qh[32],) qs[128]. Each 32-byte run of qs: low nibbles are one sub-block, high the next.
template <bool FiveBits>
void q45_k(const std::byte* b, float* y) {
  const float d = f16(b), dmin = f16(b + 2);
  const std::byte* const codes = b + (FiveBits ? 48 : 16);
  for (int j = 0; j < 8; ++j) {
    const SubScale s = sub_scale(b + 4, j);
    const float scale = d * static_cast<float>(s.scale), low = dmin * static_cast<float>(s.low);
    for (int l = 0; l < 32; ++l) {
      int code = u8(codes + j / 2 * 32 + l) >> (4 * (j % 2)) & 15;
      if constexpr (FiveBits) code |= (u8(b + 16 + l) >> j & 1) << 4;
      y[32 * j + l] = scale * static_cast<float>(code) - low;
    }
  }
}

/// ql[128], qh[64], scales[16] (signed), d. Per 128 elements: ql byte l holds elements l and l+64, qh byte l the two
/// upper bits of elements l, l+32, l+64, l+96.
inline void q6_k(const std::byte* b, float* y) {
  const float d = f16(b + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, in_half = i % 128;
    const int low = u8(b + 64 * half + in_half % 64) >> (4 * (in_half / 64)) & 15;
    const int high = u8(b + 128 + 32 * half + in_half % 32) >> (2 * (in_half / 32)) & 3;
    y[i] = d * static_cast<float>(i8(b + 192 + i / 16)) * static_cast<float>((low | high << 4) - 32);
  }
}

// Types that llama.cpp falls back to where rows are no multiple of 256, and their relatives. No sums, so nothing to contract.

/// Levels of iq4_nl and iq4_xs.
inline constexpr std::int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

inline void iq4_nl(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>(iq4_levels[u8(b + 2 + j) & 15]);
    y[j + 16] = d * static_cast<float>(iq4_levels[u8(b + 2 + j) >> 4]);
  }
}

/// d, scales_h (u16), scales_l[4], qs[128]: eight sub-blocks of 32 with 6-bit scales, offset by 32.
inline void iq4_xs(const std::byte* b, float* y) {
  const float d = f16(b);
  const int high_scales = u8(b + 2) | u8(b + 3) << 8;
  for (int s = 0; s < 8; ++s) {
    const int scale = (u8(b + 4 + s / 2) >> (4 * (s % 2)) & 15) | (high_scales >> (2 * s) & 3) << 4;
    const float sub = d * static_cast<float>(scale - 32);
    for (int j = 0; j < 16; ++j) {
      const int codes = u8(b + 8 + 16 * s + j);
      y[32 * s + j] = sub * static_cast<float>(iq4_levels[codes & 15]);
      y[32 * s + j + 16] = sub * static_cast<float>(iq4_levels[codes >> 4]);
    }
  }
}

/// Twice the levels of E2M1.
inline constexpr std::int8_t doubled_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// 2^(e-128), half an E8M0 scale: e of 0 and 1 are subnormal.
inline float half_e8m0(std::uint32_t e) { return std::bit_cast<float>(e < 2 ? std::uint32_t{0x00200000} << e : (e - 1) << 23); }

/// e (E8M0), qs[16] (E2M1).
inline void mxfp4(const std::byte* b, float* y) {
  const float half_scale = half_e8m0(u8(b));
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(doubled_e2m1[u8(b + 1 + j) & 15]) * half_scale;
    y[j + 16] = static_cast<float>(doubled_e2m1[u8(b + 1 + j) >> 4]) * half_scale;
  }
}

/// Half an unsigned E4M3: 4 bits of exponent, 3 of fraction, subnormal where the exponent is 0. ggml takes 0x7F for 0.
inline float half_ue4m3(int code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  if (code == 0x7F) return 0;
  return exponent == 0 ? std::ldexp(static_cast<float>(fraction), -10)
                       : std::ldexp(static_cast<float>(8 + fraction), exponent - 11);
}

/// Scales of four 16 (UE4M3), qs[32] (E2M1): of each 16 values eight bytes.
inline void nvfp4(const std::byte* b, float* y) {
  for (int s = 0; s < 4; ++s) {
    const float half_scale = half_ue4m3(u8(b + s));
    for (int j = 0; j < 8; ++j) {
      const int codes = u8(b + 4 + 8 * s + j);
      y[16 * s + j] = static_cast<float>(doubled_e2m1[codes & 15]) * half_scale;
      y[16 * s + j + 8] = static_cast<float>(doubled_e2m1[codes >> 4]) * half_scale;
    }
  }
}

/// d, 128 bits: d or -d.
inline void q1_0(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int j = 0; j < 128; ++j) y[j] = u8(b + 2 + j / 8) >> (j % 8) & 1 ? d : -d;
}

/// d, 64 codes of two bits: -1, 0, 1 or 2 times d.
inline void q2_0(const std::byte* b, float* y) {
  const float d = f16(b);
  for (int j = 0; j < 64; ++j) y[j] = static_cast<float>((u8(b + 2 + j / 4) >> (2 * (j % 4)) & 3) - 1) * d;
}

/// qs[48], qh[4], d: five (in qh four) base-3 digits a byte, as a fraction of 256, so that multiplying by 3 moves the next
/// digit up. Elements of one byte lie 32, 16 and 4 apart in the three runs.
inline void tq1_0(const std::byte* b, float* y) {
  const float d = f16(b + 52);
  const auto run = [&](const std::byte* from, int bytes, int digits, float* to) {
    for (int m = 0; m < bytes; ++m) {
      std::uint32_t fraction = u8(from + m);
      for (int n = 0; n < digits; ++n, fraction = fraction * 3 & 255)
        to[n * bytes + m] = static_cast<float>(static_cast<int>(fraction * 3 >> 8) - 1) * d;
    }
  };
  run(b, 32, 5, y);
  run(b + 32, 16, 5, y + 160);
  run(b + 48, 4, 4, y + 240);
}

/// qs[64], d: two bits a code; byte m of each 32 holds elements m, m+32, m+64, m+96 of its 128.
inline void tq2_0(const std::byte* b, float* y) {
  const float d = f16(b + 64);
  for (int i = 0; i < 256; ++i) {
    const int code = u8(b + i / 128 * 32 + i % 32) >> (2 * (i % 128 / 32)) & 3;
    y[i] = static_cast<float>(code - 1) * d;
  }
}

}  // namespace ggml
}  // namespace ANYBIT_CODE
}  // namespace anybit::io
