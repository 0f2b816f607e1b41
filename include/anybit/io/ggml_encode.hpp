#pragma once
// Blocks of ggml's types by nearest rounding, the same bytes as ggml without an importance matrix: types with one scale that no
// search chooses. `x` is one block of finite values, `b` its bytes. Each function has its inverse in ggml_blocks.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <anybit/core/half.hpp>
#include <anybit/core/rounded.hpp>
#include <anybit/io/ggml_blocks.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {
namespace ggml {

inline void put_u8(std::byte* b, int value) { *b = static_cast<std::byte>(value & 255); }
inline void put_u16(std::byte* b, int value) { put_u8(b, value), put_u8(b + 1, value >> 8); }
inline void put_f16(std::byte* b, float value) { put_u16(b, f32_to_f16(value)); }

/// 0 where it would be infinite.
inline float inverse(float d) { return std::fabs(d) > 3e-39f ? 1 / d : 0.0f; }

/// The element of largest magnitude with its sign; the first of equals.
inline float largest(const float* x, int count) {
  float out = 0;
  for (int j = 0; j < count; ++j)
    if (std::fabs(x[j]) > std::fabs(out)) out = x[j];
  return out;
}

/// Nibbles of 32 codes: byte j has code j below code j + 16.
template <class CodeOf>
void put_nibbles(std::byte* b, CodeOf&& code) {
  for (int j = 0; j < 16; ++j) put_u8(b + j, (code(j) & 15) | (code(j + 16) & 15) << 4);
}
/// Bit j is the fifth bit of code j.
template <class CodeOf>
void put_fifth_bits(std::byte* b, CodeOf&& code) {
  std::uint32_t bits = 0;
  for (int j = 0; j < 32; ++j) bits |= static_cast<std::uint32_t>(code(j) >> 4 & 1) << j;
  std::memcpy(b, &bits, sizeof bits);
}

/// The element of largest magnitude gets the code of the lowest level, -8 or -16; codes come from the scale before it is rounded
/// to binary16.
template <int Half>
void encode_centred(const float* x, std::byte* b) {
  const float d = largest(x, 32) / -static_cast<float>(Half), id = inverse(d);
  const auto code = [&](int j) {
    return std::min(2 * Half - 1, static_cast<int>(rounded(x[j] * id) + (static_cast<float>(Half) + 0.5f)));
  };
  put_f16(b, d);
  if constexpr (Half == 16) put_fifth_bits(b + 2, code);
  put_nibbles(b + (Half == 16 ? 6 : 2), code);
}
inline void encode_q4_0(const float* x, std::byte* b) { encode_centred<8>(x, b); }
inline void encode_q5_0(const float* x, std::byte* b) { encode_centred<16>(x, b); }

/// From the smallest to the largest element.
template <int Top>
void encode_from_minimum(const float* x, std::byte* b) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float minimum = *low, d = (*high - minimum) / static_cast<float>(Top), id = inverse(d);
  const auto code = [&](int j) { return std::min(Top, static_cast<int>(rounded((x[j] - minimum) * id) + 0.5f)); };
  put_f16(b, d), put_f16(b + 2, minimum);
  if constexpr (Top == 31) put_fifth_bits(b + 4, code);
  put_nibbles(b + (Top == 31 ? 8 : 4), code);
}
inline void encode_q4_1(const float* x, std::byte* b) { encode_from_minimum<15>(x, b); }
inline void encode_q5_1(const float* x, std::byte* b) { encode_from_minimum<31>(x, b); }

inline void encode_q8_0(const float* x, std::byte* b) {
  const float d = std::fabs(largest(x, 32)) / 127, id = inverse(d);
  put_f16(b, d);
  for (int j = 0; j < 32; ++j) put_u8(b + 2 + j, static_cast<int>(std::round(x[j] * id)));
}

/// The nearest of the levels of E2M1 times a scale; of equals the first, so that zero is never negative.
inline int nearest_e2m1(float x, float half_scale) {
  int best = 0;
  float least = std::fabs(x);
  for (int i = 1; i < 16; ++i)
    if (const float error = std::fabs(rounded(static_cast<float>(doubled_e2m1[i]) * half_scale) - x); error < least)
      best = i, least = error;
  return best;
}

/// The exponent puts the largest element between 4 and 8, of which the levels reach 6.
inline void encode_mxfp4(const float* x, std::byte* b) {
  const float most = std::fabs(largest(x, 32));
  const int e = most > 0 ? std::clamp(static_cast<int>(std::floor(std::log2(most))) - 2 + 127, 0, 254) : 0;
  const float half_scale = half_e8m0(static_cast<std::uint32_t>(e));
  put_u8(b, e);
  put_nibbles(b + 1, [&](int j) { return nearest_e2m1(x[j], half_scale); });
}

/// Unsigned E4M3, halves of the last bit upwards. From 248 on it is 448, the largest, as in ggml.
inline int ue4m3(float x) {
  if (!(x > 0)) return 0;
  if (x >= 248) return 0x7E;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const int exponent = static_cast<int>(bits >> 23) - 127 + 7;
  if (exponent <= 0) return std::min(7, static_cast<int>(rounded(x * 512) + 0.5f));
  return (exponent << 3 | static_cast<int>(bits >> 20 & 7)) + static_cast<int>(bits >> 19 & 1);
}

inline void encode_nvfp4(const float* x, std::byte* b) {
  for (int s = 0; s < 4; ++s, x += 16) {
    const int scale = ue4m3(std::fabs(largest(x, 16)) / 6);
    const float half_scale = half_ue4m3(scale);
    put_u8(b + s, scale);
    for (int j = 0; j < 8; ++j)
      put_u8(b + 4 + 8 * s + j, nearest_e2m1(x[j], half_scale) | nearest_e2m1(x[j + 8], half_scale) << 4);
  }
}

/// 0, 1 or 2 for -d, 0 and d: right only for weights that are ternary already.
inline int trit(float x, float id) { return static_cast<int>(std::lround(x * id)) + 1; }

inline void encode_tq1_0(const float* x, std::byte* b) {
  const float d = std::fabs(largest(x, 256)), id = inverse(d);
  const auto run = [&](const float* from, int bytes, int digits, std::byte* to) {
    for (int m = 0; m < bytes; ++m) {
      int number = 0;
      for (int n = 0; n < 5; ++n) number = number * 3 + (n < digits ? trit(from[n * bytes + m], id) : 0);
      put_u8(to + m, (number * 256 + 242) / 243);  // a fraction of 256, rounded up
    }
  };
  run(x, 32, 5, b);
  run(x + 160, 16, 5, b + 32);
  run(x + 240, 4, 4, b + 48);
  put_f16(b + 52, d);
}

inline void encode_tq2_0(const float* x, std::byte* b) {
  const float d = std::fabs(largest(x, 256)), id = inverse(d);
  for (int m = 0; m < 64; ++m) {
    int codes = 0;
    for (int n = 0; n < 4; ++n) codes |= (trit(x[m / 32 * 128 + n * 32 + m % 32], id) & 3) << (2 * n);
    put_u8(b + m, codes);
  }
  put_f16(b + 64, d);
}

/// The sign of each element times the mean magnitude.
inline void encode_q1_0(const float* x, std::byte* b) {
  float sum = 0;
  for (int j = 0; j < 128; ++j) sum += std::fabs(x[j]);
  put_f16(b, sum / 128);
  for (int m = 0; m < 16; ++m) {
    int bits = 0;
    for (int n = 0; n < 8; ++n) bits |= (x[8 * m + n] >= 0 ? 1 : 0) << n;
    put_u8(b + 2 + m, bits);
  }
}

inline void encode_q2_0(const float* x, std::byte* b) {
  const float d = std::fabs(largest(x, 64)), id = inverse(d);
  put_f16(b, d);
  for (int m = 0; m < 16; ++m) {
    int codes = 0;
    for (int n = 0; n < 4; ++n) codes |= std::clamp(static_cast<int>(std::round(x[4 * m + n] * id)) + 1, 0, 3) << (2 * n);
    put_u8(b + 2 + m, codes);
  }
}

}  // namespace ggml
}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
