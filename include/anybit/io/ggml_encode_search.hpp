#pragma once
// Blocks of ggml's types whose scales are searched (Q2_K to Q6_K, IQ4_NL, IQ4_XS), the same bytes as ggml without an importance
// matrix. The search weighs squared errors by the magnitude of the elements. Sums and products are rounded one by one, in ggml's
// order, so that the bytes are the same under any -ffp-contract.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <anybit/io/ggml_encode.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {
namespace ggml {

/// Groups whose elements are all smaller have the scale 0.
inline constexpr float smallest_group = 1e-15f;

/// Half to even.
inline int nearest_code(float x, int low, int high) {
  if (!(x > static_cast<float>(low))) return low;
  return x >= static_cast<float>(high) ? high : static_cast<int>(std::nearbyint(x));
}

/// Sums over elements x with weights w and codes q; their quotient xq / qq is the scale of least squares.
struct ScaleSums {
  float xq = 0, qq = 0;
  void add(float wxq, float wqq) { xq += rounded(wxq), qq += rounded(wqq); }
  /// Whether this explains more than `best` = scale * xq of another choice.
  bool beats(float best) const { return qq > 0 && rounded(xq * xq) > best * qq; }
};

/// Scale of `count` elements with codes of -nmax to nmax - 1 and the weights x^2, from 19 first guesses; `codes` get nmax more.
inline float symmetric_scale(const float* x, int count, int nmax, std::int8_t* codes) {
  const float top = largest(x, count);
  if (std::fabs(top) < smallest_group) return std::fill(codes, codes + count, std::int8_t{0}), 0.0f;
  const auto code = [&](float inverse_scale, int i) { return nearest_code(inverse_scale * x[i], -nmax, nmax - 1); };
  float scale = 0, best = 0;
  const auto attempt = [&](float inverse_scale, bool first) {
    ScaleSums sums;
    for (int i = 0; i < count; ++i) {
      const float w = x[i] * x[i], q = static_cast<float>(code(inverse_scale, i));
      sums.add(w * x[i] * q, w * q * q);
    }
    if (!first && !sums.beats(best)) return;
    for (int i = 0; i < count; ++i) codes[i] = static_cast<std::int8_t>(code(inverse_scale, i) + nmax);
    scale = sums.qq != 0 ? sums.xq / sums.qq : 0;
    best = scale * sums.xq;
  };
  attempt(-static_cast<float>(nmax) / top, true);
  for (int step = -9; step <= 9; ++step)
    if (step != 0) attempt(-(static_cast<float>(nmax) + rounded(0.1f * static_cast<float>(step))) / top, false);
  return scale;
}

/// Likewise by moving one code at a time, five rounds at most (Q3_K).
inline float coordinate_scale(const float* x, int count, int nmax, std::int8_t* codes) {
  const float top = largest(x, count);
  if (std::fabs(top) < smallest_group) return std::fill(codes, codes + count, std::int8_t{0}), 0.0f;
  const float inverse_scale = -static_cast<float>(nmax) / top;
  ScaleSums sums;
  for (int i = 0; i < count; ++i) {
    codes[i] = static_cast<std::int8_t>(nearest_code(inverse_scale * x[i], -nmax, nmax - 1));
    const float w = x[i] * x[i], q = codes[i];
    sums.add(w * x[i] * q, w * q * q);
  }
  for (int round = 0; round < 5; ++round) {
    bool changed = false;
    for (int i = 0; i < count; ++i) {
      const float w = x[i] * x[i], old = codes[i];
      ScaleSums moved = sums;
      moved.add(-(w * x[i] * old), -(w * old * old));
      if (!(moved.xq > 0)) continue;
      const int code = nearest_code(x[i] * moved.qq / moved.xq, -nmax, nmax - 1);
      if (code == codes[i]) continue;
      const float q = static_cast<float>(code);
      moved.add(w * x[i] * q, w * q * q);
      if (!(moved.qq > 0) || !(moved.xq * moved.xq * sums.qq > sums.xq * sums.xq * moved.qq)) continue;
      codes[i] = static_cast<std::int8_t>(code), sums = moved, changed = true;
    }
    if (!changed) break;
  }
  for (int i = 0; i < count; ++i) codes[i] = static_cast<std::int8_t>(codes[i] + nmax);
  return sums.qq > 0 ? sums.xq / sums.qq : 0;
}

/// How many codes a search for scale and minimum has, and its first guesses: `steps` + 1 of them, `start` + i * 0.1 codes more
/// than fit.
struct MinimumSearch {
  int count, nmax;
  float start;
  int steps;
  bool absolute;  ///< errors count by magnitude, not squared
};

/// x is about scale * code - low, and low is not negative.
struct ScaleAndLow {
  float scale, low;
};

inline ScaleAndLow scale_and_minimum(const MinimumSearch& s, const float* x, const float* weights, std::int8_t* codes) {
  float low = x[0], high = x[0], sum_w = weights[0], sum_x = sum_w * x[0];
  for (int i = 1; i < s.count; ++i) {
    low = std::min(low, x[i]), high = std::max(high, x[i]);
    sum_w += weights[i];
    sum_x += rounded(weights[i] * x[i]);
  }
  low = std::min(low, 0.0f);
  if (high == low) return std::fill(codes, codes + s.count, std::int8_t{0}), ScaleAndLow{0, -low};
  std::array<std::int8_t, 32> attempt{};
  const auto round_all = [&](float inverse_scale) {
    for (int i = 0; i < s.count; ++i)
      attempt[static_cast<std::size_t>(i)] = static_cast<std::int8_t>(nearest_code(inverse_scale * (x[i] - low), 0, s.nmax));
  };
  const auto error = [&](float scale, float minimum) {
    float sum = 0;
    for (int i = 0; i < s.count; ++i) {
      const float diff = rounded(scale * static_cast<float>(attempt[static_cast<std::size_t>(i)])) + minimum - x[i];
      sum += rounded(weights[i] * (s.absolute ? std::fabs(diff) : rounded(diff * diff)));
    }
    return sum;
  };
  const float inverse_scale = static_cast<float>(s.nmax) / (high - low);
  float scale = 1 / inverse_scale;
  round_all(inverse_scale);
  float least = error(scale, low);
  std::copy_n(attempt.begin(), s.count, codes);
  for (int step = 0; step <= s.steps; ++step) {
    // From the best minimum so far, as ggml does.
    round_all((s.start + rounded(0.1f * static_cast<float>(step)) + static_cast<float>(s.nmax)) / (high - low));
    float sum_l = 0, sum_l2 = 0, sum_xl = 0;
    for (int i = 0; i < s.count; ++i) {
      const float l = attempt[static_cast<std::size_t>(i)];
      sum_l += rounded(weights[i] * l);
      sum_l2 += rounded(weights[i] * l * l);
      sum_xl += rounded(weights[i] * l * x[i]);
    }
    const float determinant = rounded(sum_w * sum_l2) - rounded(sum_l * sum_l);
    if (!(determinant > 0)) continue;
    float this_scale = (rounded(sum_w * sum_xl) - rounded(sum_x * sum_l)) / determinant;
    float minimum = (rounded(sum_l2 * sum_x) - rounded(sum_l * sum_xl)) / determinant;
    if (minimum > 0) minimum = 0, this_scale = sum_xl / sum_l2;
    if (const float e = error(this_scale, minimum); e < least) {
      least = e, scale = this_scale, low = minimum;
      std::copy_n(attempt.begin(), s.count, codes);
    }
  }
  return {scale, -low};
}

/// Two-bit codes of 256 elements: byte l of each run of 32 has elements l, l + 32, l + 64 and l + 96 of its 128.
inline void put_pairs(std::byte* b, const std::int8_t* codes) {
  for (int i = 0; i < 64; ++i) {
    const std::int8_t* const c = codes + i / 32 * 128 + i % 32;
    put_u8(b + i, c[0] | c[32] << 2 | c[64] << 4 | c[96] << 6);
  }
}

inline void encode_q2_k(const float* x, std::byte* b) {
  std::array<std::int8_t, 256> codes;
  std::array<ScaleAndLow, 16> groups;
  float max_scale = 0, max_low = 0;
  for (std::size_t j = 0; j < 16; ++j) {
    const float* const from = x + 16 * j;
    float weights[16];
    for (int i = 0; i < 16; ++i) weights[i] = std::fabs(from[i]);
    groups[j] = scale_and_minimum({16, 3, -0.5f, 15, true}, from, weights, codes.data() + 16 * j);
    max_scale = std::max(max_scale, groups[j].scale), max_low = std::max(max_low, groups[j].low);
  }
  const float to_scale = max_scale > 0 ? 15 / max_scale : 0, to_low = max_low > 0 ? 15 / max_low : 0;
  put_f16(b + 80, max_scale / 15), put_f16(b + 82, max_low / 15);
  const float d = f16(b + 80), dmin = f16(b + 82);
  for (std::size_t j = 0; j < 16; ++j) {
    const int scale = nearest_code(to_scale * groups[j].scale, 0, 15), low = nearest_code(to_low * groups[j].low, 0, 15);
    put_u8(b + j, scale | low << 4);
    const float sub = d * static_cast<float>(scale), minimum = dmin * static_cast<float>(low);
    if (sub == 0) continue;
    for (std::size_t i = 16 * j; i < 16 * j + 16; ++i)
      codes[i] = static_cast<std::int8_t>(nearest_code((x[i] + rounded(minimum)) / sub, 0, 3));
  }
  put_pairs(b + 16, codes.data());
}

/// d, scales of -32 to 31 and codes of 0 to 7, which stand for -4 to 3.
inline void put_q3_k(std::byte* b, float d, const std::array<int, 16>& scales, std::array<std::int8_t, 256> codes) {
  std::fill(b, b + 108, std::byte{0});
  put_f16(b + 108, d);
  for (std::size_t j = 0; j < 16; ++j) {
    const int stored = scales[j] + 32;
    b[96 + j % 8] |= static_cast<std::byte>((stored & 15) << (j < 8 ? 0 : 4));
    b[104 + j % 4] |= static_cast<std::byte>(stored >> 4 << (2 * (j / 4)));
  }
  for (std::size_t i = 0; i < 256; ++i)
    if (codes[i] > 3) {
      b[i % 32] |= static_cast<std::byte>(1 << (i / 32));
      codes[i] = static_cast<std::int8_t>(codes[i] - 4);
    }
  put_pairs(b + 32, codes.data());
}

inline void encode_q3_k(const float* x, std::byte* b) {
  std::array<std::int8_t, 256> codes;
  std::array<float, 16> scales;
  for (std::size_t j = 0; j < 16; ++j) scales[j] = coordinate_scale(x + 16 * j, 16, 4, codes.data() + 16 * j);
  const float top = largest(scales.data(), 16), to_scale = top != 0 ? -32 / top : 0, stored_d = top != 0 ? 1 / to_scale : 0;
  const float d = f16_to_f32(f32_to_f16(stored_d));
  std::array<int, 16> stored;
  for (std::size_t j = 0; j < 16; ++j) {
    stored[j] = top != 0 ? nearest_code(to_scale * scales[j], -32, 31) : -32;
    const float sub = d * static_cast<float>(stored[j]);
    if (sub == 0) continue;
    for (std::size_t i = 16 * j; i < 16 * j + 16; ++i) codes[i] = static_cast<std::int8_t>(nearest_code(x[i] / sub, -4, 3) + 4);
  }
  put_q3_k(b, stored_d, stored, codes);
}

/// The twelve bytes that sub_scale() reads, from eight scales and minima of 6 bits.
inline void put_sub_scales(std::byte* b, const std::array<SubScale, 8>& s) {
  for (std::size_t j = 0; j < 4; ++j) {
    const SubScale &first = s[j], &second = s[j + 4];
    put_u8(b + j, first.scale | second.scale >> 4 << 6);
    put_u8(b + j + 4, first.low | second.low >> 4 << 6);
    put_u8(b + j + 8, (second.scale & 15) | (second.low & 15) << 4);
  }
}

/// Scales and minima of 6 bits, codes of 4 or 5.
template <bool FiveBits>
void put_q45_k(std::byte* b, float d, float dmin, const std::array<SubScale, 8>& stored,
               const std::array<std::int8_t, 256>& codes) {
  put_f16(b, d), put_f16(b + 2, dmin);
  put_sub_scales(b + 4, stored);
  std::byte* const nibbles = b + (FiveBits ? 48 : 16);
  for (std::size_t i = 0; i < 128; ++i) {
    const std::int8_t* const c = codes.data() + i / 32 * 64 + i % 32;
    put_u8(nibbles + i, (c[0] & 15) | (c[32] & 15) << 4);
  }
  if constexpr (FiveBits)
    for (std::size_t l = 0; l < 32; ++l) {
      int bits = 0;
      for (std::size_t j = 0; j < 8; ++j) bits |= codes[32 * j + l] >> 4 << j;
      put_u8(b + 16 + l, bits);
    }
}

template <bool FiveBits>
void encode_q45_k(const float* x, std::byte* b) {
  constexpr MinimumSearch search = FiveBits ? MinimumSearch{32, 31, -0.5f, 15, false} : MinimumSearch{32, 15, -1.0f, 20, false};
  std::array<std::int8_t, 256> codes;
  std::array<ScaleAndLow, 8> groups;
  float max_scale = 0, max_low = 0;
  for (std::size_t j = 0; j < 8; ++j) {
    const float* const from = x + 32 * j;
    float squares = 0, weights[32];
    for (int i = 0; i < 32; ++i) squares += rounded(from[i] * from[i]);
    const float mean = std::sqrt(squares / 32);
    for (int i = 0; i < 32; ++i) weights[i] = mean + std::fabs(from[i]);
    groups[j] = scale_and_minimum(search, from, weights, codes.data() + 32 * j);
    max_scale = std::max(max_scale, groups[j].scale), max_low = std::max(max_low, groups[j].low);
  }
  const float to_scale = max_scale > 0 ? 63 / max_scale : 0, to_low = max_low > 0 ? 63 / max_low : 0;
  const float d = f16_to_f32(f32_to_f16(max_scale / 63)), dmin = f16_to_f32(f32_to_f16(max_low / 63));
  std::array<SubScale, 8> stored;
  for (std::size_t j = 0; j < 8; ++j) {
    stored[j] = {nearest_code(to_scale * groups[j].scale, 0, 63), nearest_code(to_low * groups[j].low, 0, 63)};
    const float sub = d * static_cast<float>(stored[j].scale), minimum = dmin * static_cast<float>(stored[j].low);
    if (sub == 0) continue;
    for (std::size_t i = 32 * j; i < 32 * j + 32; ++i)
      codes[i] = static_cast<std::int8_t>(nearest_code((x[i] + rounded(minimum)) / sub, 0, search.nmax));
  }
  put_q45_k<FiveBits>(b, max_scale / 63, max_low / 63, stored, codes);
}

/// d, scales of 8 bits, codes of 0 to 63, which stand for -32 to 31.
inline void put_q6_k(std::byte* b, float d, const std::array<int, 16>& scales, const std::array<std::int8_t, 256>& codes) {
  put_f16(b + 208, d);
  for (std::size_t j = 0; j < 16; ++j) put_u8(b + 192 + j, scales[j]);
  for (std::size_t half = 0; half < 2; ++half)
    for (std::size_t l = 0; l < 32; ++l) {
      const std::int8_t* const c = codes.data() + 128 * half + l;
      put_u8(b + 64 * half + l, (c[0] & 15) | (c[64] & 15) << 4);
      put_u8(b + 64 * half + l + 32, (c[32] & 15) | (c[96] & 15) << 4);
      put_u8(b + 128 + 32 * half + l, c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
    }
}

inline void encode_q6_k(const float* x, std::byte* b) {
  std::array<std::int8_t, 256> codes;
  std::array<float, 16> scales;
  for (std::size_t j = 0; j < 16; ++j) scales[j] = symmetric_scale(x + 16 * j, 16, 32, codes.data() + 16 * j);
  const float top = largest(scales.data(), 16);
  if (std::fabs(top) < smallest_group) return std::fill(b, b + 210, std::byte{0}), void();
  const float to_scale = -128 / top, d = f16_to_f32(f32_to_f16(1 / to_scale));
  std::array<int, 16> stored;
  for (std::size_t j = 0; j < 16; ++j) {
    stored[j] = nearest_code(to_scale * scales[j], -128, 127);
    const float sub = d * static_cast<float>(stored[j]);
    if (sub == 0) continue;
    for (std::size_t i = 16 * j; i < 16 * j + 16; ++i)
      codes[i] = static_cast<std::int8_t>(nearest_code(x[i] / sub, -32, 31) + 32);
  }
  put_q6_k(b, 1 / to_scale, stored, codes);
}

/// The nearest level of iq4_nl; of two at the same distance the upper.
inline int nearest_iq4(float x) {
  if (x <= static_cast<float>(iq4_levels[0])) return 0;
  for (int i = 1; i < 16; ++i)
    if (const float level = iq4_levels[i]; x < level) return x - static_cast<float>(iq4_levels[i - 1]) < level - x ? i - 1 : i;
  return 15;
}

/// Scale of 32 elements with the weights x^2, from 16 first guesses.
inline float iq4_scale(const float* x) {
  const float top = largest(x, 32);
  if (std::fabs(top) < smallest_group) return 0;
  constexpr float lowest = iq4_levels[0];
  const auto sums_of = [&](float inverse_scale) {
    ScaleSums sums;
    for (int j = 0; j < 32; ++j) {
      const float q = iq4_levels[nearest_iq4(inverse_scale * x[j])], w = x[j] * x[j];
      sums.add(w * q * x[j], w * q * q);
    }
    return sums;
  };
  ScaleSums sums = sums_of(1 / (-top / lowest));
  float d = sums.xq / sums.qq, best = d * sums.xq;
  for (int step = -7; step <= 7; ++step) {
    sums = sums_of((static_cast<float>(step) + lowest) / top);
    if (sums.beats(best)) d = sums.xq / sums.qq, best = d * sums.xq;
  }
  return d;
}

inline void encode_iq4_nl(const float* x, std::byte* b) {
  const float d = iq4_scale(x), id = inverse(d);
  put_f16(b, d);
  put_nibbles(b + 2, [&](int j) { return nearest_iq4(id * x[j]); });
}

/// Scales of -32 to 31; `code(i)` of element i.
template <class CodeOf>
void put_iq4_xs(std::byte* b, float d, const std::array<int, 8>& scales, CodeOf&& code) {
  std::fill(b, b + 8, std::byte{0});
  put_f16(b, d);
  int high = 0;
  for (std::size_t s = 0; s < 8; ++s) {
    b[4 + s / 2] |= static_cast<std::byte>(((scales[s] + 32) & 15) << (4 * (s % 2)));
    high |= (scales[s] + 32) >> 4 << (2 * s);
    put_nibbles(b + 8 + 16 * s, [&](int j) { return code(static_cast<int>(32 * s) + j); });
  }
  put_u16(b + 2, high);
}

inline void encode_iq4_xs(const float* x, std::byte* b) {
  std::array<float, 8> scales, inverses;
  for (std::size_t s = 0; s < 8; ++s) scales[s] = iq4_scale(x + 32 * s);
  const float d = -largest(scales.data(), 8) / 32, to_scale = inverse(d);
  std::array<int, 8> stored;
  for (std::size_t s = 0; s < 8; ++s) {
    stored[s] = nearest_code(to_scale * scales[s], -32, 31);
    inverses[s] = inverse(d * static_cast<float>(stored[s]));  // of the scale before it is rounded to binary16
  }
  put_iq4_xs(b, d, stored, [&](int i) { return nearest_iq4(inverses[static_cast<std::size_t>(i / 32)] * x[i]); });
}

}  // namespace ggml
}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
