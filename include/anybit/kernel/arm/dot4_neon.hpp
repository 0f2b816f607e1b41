#pragma once
// The vocabulary of kernel/dot_vocabulary.hpp in NEON intrinsics: usmmla and usdot where 8-bit matrix products are, sdot where
// dot products are, else products of 8 bits added in pairs.

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include <anybit/core/isa.hpp>
#include <anybit/core/types.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

struct Neon {
  struct Ints {
    int32x4_t v[4];
  };
  struct Floats {
    float32x4_t v[4];
  };
  struct Bytes {
    uint8x16_t v[4];
  };
  static constexpr int tile_tokens = 4, row_tokens = 2;
  static constexpr int token_group = 4, direct_tokens = 8, direct_bits = 4, direct_sums = 4, direct_tiles = 4, blocked_tiles = 1;
  static constexpr Index ahead = 384;

  static ANYBIT_INLINE Ints products(const std::int32_t* o, std::int32_t s) {
    return products(Ints{{vld1q_s32(o), vld1q_s32(o + 4), vld1q_s32(o + 8), vld1q_s32(o + 12)}}, s);
  }
  static ANYBIT_INLINE Ints products(Ints o, std::int32_t s) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) o.v[i] = vmulq_n_s32(o.v[i], s);
    return o;
  }
  static ANYBIT_INLINE Ints equal(std::int32_t i) {
    const int32x4_t v = vdupq_n_s32(i);
    return {{v, v, v, v}};
  }
  static ANYBIT_INLINE Ints widen(const std::uint8_t* p) {
    const uint8x16_t b = vld1q_u8(p);
    const uint16x8_t low = vmovl_u8(vget_low_u8(b)), high = vmovl_high_u8(b);
    return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
             vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_high_u16(high))}};
  }
  template <int Shift, int Mask>
  static ANYBIT_INLINE Bytes field(Bytes b) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) b.v[i] = vandq_u8(shifted<Shift>(b.v[i]), vdupq_n_u8(Mask));
    return b;
  }
  template <int Shift, int Mask>
  static ANYBIT_INLINE Bytes add_field(Bytes a, Bytes b) {
    b = field<Shift, Mask>(b);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) a.v[i] = vorrq_u8(a.v[i], b.v[i]);
    return a;
  }
  template <int Bits>
  struct Table {
    static constexpr int parts = Bits <= 4 ? 1 : 1 << (Bits - 4);  // of 16 bytes
    uint8x16_t v[static_cast<std::size_t>(parts)];
  };
  template <int Bits>
  static ANYBIT_INLINE Table<Bits> load_table(const std::uint8_t* p) {
    Table<Bits> t;
    for (auto& v : t.v) v = vld1q_u8(p), p += 16;
    return t;
  }
  template <int Bits>
  static ANYBIT_INLINE Bytes look_up(const Table<Bits>& t, Bytes b) {
#pragma GCC unroll 4
    for (auto& v : b.v) {
      if constexpr (Bits <= 4) {
        v = vqtbl1q_u8(t.v[0], v);
      } else if constexpr (Bits == 5) {
        v = vqtbl2q_u8({{t.v[0], t.v[1]}}, v);
      } else {
        // Indices past a table leave what is there.
        const uint8x16_t code = v;
        v = vqtbl4q_u8({{t.v[0], t.v[1], t.v[2], t.v[3]}}, code);
#pragma GCC unroll 4
        for (int i = 4; i < Table<Bits>::parts; i += 4)
          v = vqtbx4q_u8(v, {{t.v[i], t.v[i + 1], t.v[i + 2], t.v[i + 3]}},
                         vsubq_u8(code, vdupq_n_u8(static_cast<std::uint8_t>(16 * i))));
      }
    }
    return b;
  }
  static ANYBIT_INLINE Floats load_f16(const std::byte* p) {
    Floats f;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      f.v[i] = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(reinterpret_cast<const std::uint8_t*>(p) + 8 * i)));
    return f;
  }
  static ANYBIT_INLINE Bytes load_bytes(const std::uint8_t* p) {
    return {{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
  }
  static ANYBIT_INLINE void store_bytes(std::uint8_t* p, Bytes b) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) vst1q_u8(p + 16 * i, b.v[i]);
  }
  static constexpr std::int32_t bias(int max_byte) { return is_signed(max_byte) ? 0 : 128; }
  static constexpr int short_sums(int) { return 0; }
  template <int MaxByte>
  static ANYBIT_INLINE Ints tile_dot4(Ints a, Bytes b, const std::int8_t* x) {
    const int8x16_t v = four_columns(x);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) a.v[i] = uncorrected<MaxByte>(a.v[i], b.v[i], v);
    return a;
  }
  template <int MaxByte>
  static ANYBIT_INLINE Ints dot4(Ints a, Bytes b, const std::int8_t* x) {
    const int8x16_t v = four_columns(x);
    const int32x4_t c = correction<MaxByte>(v);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) a.v[i] = uncorrected<MaxByte>(corrected<MaxByte>(a.v[i], c), b.v[i], v);
    return a;
  }
  static ANYBIT_INLINE Ints add(Ints a, Ints b) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) a.v[i] = vaddq_s32(a.v[i], b.v[i]);
    return a;
  }
#if ANYBIT_HAS_I8MM
  struct TokenPair {
    int32x4_t v[8];  // rows 2 i and 2 i + 1: row by row, of the one token and of the other
  };
  static ANYBIT_INLINE TokenPair no_pair() {
    const int32x4_t z = vdupq_n_s32(0);
    return {{z, z, z, z, z, z, z, z}};
  }
  static ANYBIT_INLINE TokenPair tile_dot8(TokenPair a, Bytes b, Bytes next, const std::int8_t* x, const std::int8_t* x_next) {
    // 8 columns side by side, which the two operands of usmmla have of two rows and of two tokens.
    const int8x16_t v = vreinterpretq_s8_s32(vzip1q_s32(two_tokens(x), two_tokens(x_next)));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const uint32x4_t left = vreinterpretq_u32_u8(b.v[i]), right = vreinterpretq_u32_u8(next.v[i]);
      a.v[2 * i] = vusmmlaq_s32(a.v[2 * i], vreinterpretq_u8_u32(vzip1q_u32(left, right)), v);
      a.v[2 * i + 1] = vusmmlaq_s32(a.v[2 * i + 1], vreinterpretq_u8_u32(vzip2q_u32(left, right)), v);
    }
    return a;
  }
  static ANYBIT_INLINE void add_pair(Ints& one, Ints& other, TokenPair sums) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      one.v[i] = vaddq_s32(one.v[i], vuzp1q_s32(sums.v[2 * i], sums.v[2 * i + 1]));
      other.v[i] = vaddq_s32(other.v[i], vuzp2q_s32(sums.v[2 * i], sums.v[2 * i + 1]));
    }
  }
#endif
  template <int Shift>
  static ANYBIT_INLINE Ints divided(Ints a) {
#pragma GCC unroll 4
    for (auto& v : a.v)
      if constexpr (Shift != 0) v = vshlq_s32(v, vdupq_n_s32(-Shift));
    return a;
  }
  static ANYBIT_INLINE Floats zero() {
    const float32x4_t z = vdupq_n_f32(0);
    return {{z, z, z, z}};
  }
  static ANYBIT_INLINE Floats load(const float* p) {
    return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
  }
  static ANYBIT_INLINE void store(float* p, Floats f) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, f.v[i]);
  }
  static ANYBIT_INLINE Floats scaled(Floats a, float s) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) a.v[i] = vmulq_n_f32(a.v[i], s);
    return a;
  }
  static ANYBIT_INLINE Floats multiply_add(Ints a, Floats s, Floats c) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) c.v[i] = vfmaq_f32(c.v[i], vcvtq_f32_s32(a.v[i]), s.v[i]);
    return c;
  }
  template <int MaxByte>
  static ANYBIT_INLINE void segment_dots(const std::uint8_t* b, const std::int8_t* x, Index n, Index count, std::int32_t* out) {
    for (Index s = 0; s < count; ++s) {
      int32x4_t sum[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
      for (Index k = s * n; k < (s + 1) * n; k += 32)
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
          const int8x16_t v = vld1q_s8(x + k + 16 * i);
          sum[i] = uncorrected<MaxByte>(corrected<MaxByte>(sum[i], correction<MaxByte>(v)), vld1q_u8(b + k + 16 * i), v);
        }
      out[s] = vaddvq_s32(vaddq_s32(sum[0], sum[1]));
    }
  }
  static ANYBIT_INLINE void interleave(const std::uint8_t* rows, Index stride, Index n, std::uint8_t* out) {
    for (Index r = 0; r < 16; r += 4)
      for (Index k = 0; k < n; k += 4) transpose4(rows + r * stride + 4 * k, stride, out + k * 64 + 4 * r);
  }

 private:
  static ANYBIT_INLINE int8x16_t four_columns(const std::int8_t* x) {
    std::int32_t four;
    std::memcpy(&four, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
  }
  static ANYBIT_INLINE int32x4_t two_tokens(const std::int8_t* x) {
    std::int64_t eight;
    std::memcpy(&eight, x, 8);
    return vreinterpretq_s32_s64(vdupq_n_s64(eight));
  }
  template <int Shift>
  static ANYBIT_INLINE uint8x16_t shifted(uint8x16_t b) {
    if constexpr (Shift > 0)
      return vshrq_n_u8(b, Shift);
    else if constexpr (Shift < 0)
      return vshlq_n_u8(b, -Shift);
    else
      return b;
  }

  // A byte b as a signed one: itself up to 127, else b - 128, and 128 times the sum of the activations is added.
#if ANYBIT_HAS_I8MM
  static constexpr bool is_signed(int) { return true; }  // usdot takes b as it is
#else
  static constexpr bool is_signed(int max_byte) { return max_byte <= 127; }
#endif

  /// 128 times the sums of four neighbours of x.
  template <int MaxByte>
  static ANYBIT_INLINE int32x4_t correction([[maybe_unused]] int8x16_t x) {
    if constexpr (is_signed(MaxByte)) {
      return vdupq_n_s32(0);
    } else {
#if ANYBIT_HAS_DOTPROD
      return vshlq_n_s32(vdotq_s32(vdupq_n_s32(0), x, vdupq_n_s8(1)), 7);
#else
      return vshlq_n_s32(vpaddlq_s16(vpaddlq_s8(x)), 7);
#endif
    }
  }
  template <int MaxByte>
  static ANYBIT_INLINE int32x4_t corrected(int32x4_t a, [[maybe_unused]] int32x4_t c) {
    if constexpr (is_signed(MaxByte))
      return a;
    else
      return vaddq_s32(a, c);
  }
  /// a plus the sums of four neighbours of the products of x and b made signed.
  template <int MaxByte>
  static ANYBIT_INLINE int32x4_t uncorrected(int32x4_t a, uint8x16_t b, int8x16_t x) {
#if ANYBIT_HAS_I8MM
    return vusdotq_s32(a, b, x);
#else
    int8x16_t s = vreinterpretq_s8_u8(b);
    if constexpr (!is_signed(MaxByte)) s = veorq_s8(s, vdupq_n_s8(-128));
#if ANYBIT_HAS_DOTPROD
    return vdotq_s32(a, s, x);
#else
    // Sums of two products stay within 16 bits.
    static_assert(2 * 127 * 128 <= 32767);
    return vpadalq_s16(a, vpaddq_s16(vmull_s8(vget_low_s8(s), vget_low_s8(x)), vmull_high_s8(s, x)));
#endif
#endif
  }

  /// 4 rows of 4 dwords to 4 columns, 64 bytes apart.
  static ANYBIT_INLINE void transpose4(const std::uint8_t* in, Index stride, std::uint8_t* out) {
    const auto row = [&](Index i) __attribute__((always_inline)) { return vreinterpretq_u32_u8(vld1q_u8(in + i * stride)); };
    const uint32x4_t a = row(0), b = row(1), c = row(2), d = row(3);
    const uint64x2_t ab0 = vreinterpretq_u64_u32(vtrn1q_u32(a, b)), ab1 = vreinterpretq_u64_u32(vtrn2q_u32(a, b)),
                     cd0 = vreinterpretq_u64_u32(vtrn1q_u32(c, d)), cd1 = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
    const auto put = [&](Index k, uint64x2_t v)
                         __attribute__((always_inline)) { vst1q_u8(out + 64 * k, vreinterpretq_u8_u64(v)); };
    put(0, vtrn1q_u64(ab0, cd0));
    put(1, vtrn1q_u64(ab1, cd1));
    put(2, vtrn2q_u64(ab0, cd0));
    put(3, vtrn2q_u64(ab1, cd1));
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
