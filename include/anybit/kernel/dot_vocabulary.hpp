#pragma once
// Instruction sets of the integer kernels as types. Each gives the same small vocabulary over 16 rows:
//
//   Ints, Floats, Bytes       16 int32; 16 floats; 64 bytes: 4 consecutive columns of each of 16 rows
//   equal(i), widen(p)        16 times i; 16 bytes as ints
//   products(o, s)            the 16 ints o[i] * s, o in memory or in a register
//   load_bytes(p), store_bytes(p, b)   64 bytes
//   field<Shift, Mask>(b)     b >> Shift & Mask, or b << -Shift & Mask, byte by byte; Mask has no bits that come from a neighbour
//   add_field<Shift, Mask>(a, b)       the same, or-ed into a
//   Table<Bits>, load_table<Bits>(p), look_up<Bits>(t, b)   p[b] byte by byte; 256 bytes at p can be read, b < 2^Bits
//   load_f16(p)               16 f16 as floats
//   dot4<MaxByte>(a, b, x)    a[i] + sum over j < 4 of b[4 i + j] * x[j]; bytes unsigned and at most MaxByte, x signed,
//                             -127 .. 127; exact for every such operand
//   tile_dot4<MaxByte>(a, b, x)        the same with b - bias(MaxByte) for b, in tiled weights
//   short_sums(MaxByte)       so many of them fit sums of 16 bits; 0 where there are no such sums. Else also:
//   Shorts, no_shorts(), tile_dot4<MaxByte>(shorts, b, x), add(ints, shorts)
//   add(a, b)                 ints
//   divided<Shift>(a)         ints / 2^Shift, without remainder; times 2^-Shift if Shift < 0
//   TokenPair, no_pair()      only where instructions multiply small matrices: sums of two tokens that stand side by side, and
//   tile_dot8(pair, b, next, x, x_next)   the same plus tile_dot4 of both tokens at x with b and at x_next, the next four
//                             columns, with next
//   add_pair(one, other, p)   adds them to the ints of the one token and of the other
//   zero, load, store, scaled floats; scaled(a, s) = a * s
//   multiply_add(i, s, a)     float(i) * s + a, with one rounding where the hardware has it
//   interleave(rows, stride, n, out)   dwords k = 0 .. n - 1 of 16 byte rows, out[k * 64 + 4 * row]; n a multiple of 16,
//                             rows readable and out writable up to there
//   tile_tokens               tokens that a tile computes at once
//   row_tokens                up to so many tokens, rows are multiplied one by one (0: never), with
//   segment_dots<MaxByte>(b, x, n, count, out)   out[s] = sum over j < n of b[s * n + j] * x[s * n + j]; n a multiple of 32,
//                             count at most 8; all 8 of out may be written
//   token_group               of tiled weights: tokens that stand side by side, a power of two
//   direct_bits               codes of up to so many bits are decoded in registers, wider ones for up to
//   direct_tokens             tokens; then with
//   direct_sums, direct_tiles at most so many pairs of tile and token, and so many tiles, at once
//   blocked_tiles             tiles at once with more tokens
//   ahead                     bytes that memory is asked for ahead of time, 0: not
//   Fold                      only where it is faster than plain loops: fold_lines() of folded_tiles.hpp for a line
//   round_to_bf16, pair_bf16, spread, dot_bf16   only where instructions multiply bfloat16 (bf16_products.hpp)
//   Matrix                    only where instructions multiply whole blocks: their vocabulary (matrix_products.hpp)

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <anybit/core/half.hpp>
#include <anybit/core/types.hpp>
#include <anybit/kernel/arm/dot4.hpp>
#include <anybit/kernel/x86/dot4.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// Plain loops that compilers vectorize.
struct Generic {
  struct Ints {
    std::int32_t v[16];
  };
  struct Floats {
    float v[16];
  };
  struct Bytes {
    std::uint8_t p[64];
  };
  static constexpr int tile_tokens = 2, row_tokens = 0;
  static constexpr int token_group = 2, direct_tokens = 1, direct_bits = 0, direct_sums = 1, direct_tiles = 1, blocked_tiles = 1;
  static constexpr Index ahead = 0;

  static ANYBIT_INLINE Ints products(const std::int32_t* o, std::int32_t s) {
    Ints r;
    for (int i = 0; i < 16; ++i) r.v[i] = o[i] * s;
    return r;
  }
  static ANYBIT_INLINE Ints products(Ints o, std::int32_t s) { return products(o.v, s); }
  static ANYBIT_INLINE Ints equal(std::int32_t i) {
    Ints r;
    for (auto& v : r.v) v = i;
    return r;
  }
  static ANYBIT_INLINE Ints widen(const std::uint8_t* p) {
    Ints r;
    for (int i = 0; i < 16; ++i) r.v[i] = p[i];
    return r;
  }
  template <int Shift, int Mask>
  static ANYBIT_INLINE Bytes field(Bytes b) {
    for (auto& v : b.p) v = static_cast<std::uint8_t>((Shift >= 0 ? v >> std::max(Shift, 0) : v << std::max(-Shift, 0)) & Mask);
    return b;
  }
  template <int Shift, int Mask>
  static ANYBIT_INLINE Bytes add_field(Bytes a, Bytes b) {
    b = field<Shift, Mask>(b);
    for (int i = 0; i < 64; ++i) a.p[i] = static_cast<std::uint8_t>(a.p[i] | b.p[i]);
    return a;
  }
  template <int Bits>
  using Table = const std::uint8_t*;
  template <int Bits>
  static ANYBIT_INLINE const std::uint8_t* load_table(const std::uint8_t* p) {
    return p;
  }
  template <int Bits>
  static ANYBIT_INLINE Bytes look_up(const std::uint8_t* table, Bytes b) {
    for (auto& v : b.p) v = table[v];
    return b;
  }
  static ANYBIT_INLINE Floats load_f16(const std::byte* p) {
    Floats r;
    for (int i = 0; i < 16; ++i) {
      std::uint16_t half;
      std::memcpy(&half, p + 2 * i, 2);
      r.v[i] = f16_to_f32(half);
    }
    return r;
  }
  static ANYBIT_INLINE Bytes load_bytes(const std::uint8_t* p) {
    Bytes b;
    std::memcpy(b.p, p, sizeof b.p);
    return b;
  }
  template <int MaxByte>
  static ANYBIT_INLINE Ints dot4(Ints a, Bytes b, const std::int8_t* x) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 4; ++j) a.v[i] += b.p[4 * i + j] * x[j];
    return a;
  }
  static ANYBIT_INLINE void store_bytes(std::uint8_t* p, Bytes b) { std::memcpy(p, b.p, sizeof b.p); }
  static constexpr std::int32_t bias(int) { return 0; }
  static constexpr int short_sums(int) { return 0; }
  template <int MaxByte>
  static ANYBIT_INLINE Ints tile_dot4(Ints a, Bytes b, const std::int8_t* x) {
    return dot4<MaxByte>(a, b, x);
  }
  static ANYBIT_INLINE Ints add(Ints a, Ints b) {
    for (int i = 0; i < 16; ++i) a.v[i] += b.v[i];
    return a;
  }
  template <int Shift>
  static ANYBIT_INLINE Ints divided(Ints a) {
    for (auto& v : a.v) v = Shift >= 0 ? v >> std::max(Shift, 0) : v << std::max(-Shift, 0);
    return a;
  }
  static ANYBIT_INLINE Floats zero() { return {}; }
  static ANYBIT_INLINE Floats load(const float* p) {
    Floats r;
    std::memcpy(r.v, p, sizeof r.v);
    return r;
  }
  static ANYBIT_INLINE void store(float* p, Floats f) { std::memcpy(p, f.v, sizeof f.v); }
  static ANYBIT_INLINE Floats scaled(Floats a, float s) {
    for (int i = 0; i < 16; ++i) a.v[i] *= s;
    return a;
  }
  static ANYBIT_INLINE Floats multiply_add(Ints a, Floats s, Floats c) {
    for (int i = 0; i < 16; ++i) c.v[i] += static_cast<float>(a.v[i]) * s.v[i];
    return c;
  }
  static ANYBIT_INLINE void interleave(const std::uint8_t* rows, Index stride, Index n, std::uint8_t* out) {
    for (Index r = 0; r < 16; ++r)
      for (Index k = 0; k < n; ++k) std::memcpy(out + k * 64 + 4 * r, rows + r * stride + 4 * k, 4);
  }
};

#if defined(ANYBIT_KERNEL_X86_AMX)
using native_arch = Amx;
#elif defined(ANYBIT_KERNEL_X86_AVX512_VNNI)
using native_arch = Avx512Vnni;
#elif defined(ANYBIT_KERNEL_X86_AVX_VNNI)
using native_arch = AvxVnni;
#elif defined(ANYBIT_KERNEL_X86_AVX2)
using native_arch = Avx2;
#elif defined(ANYBIT_KERNEL_ARM_NEON)
using native_arch = Neon;
#else
using native_arch = Generic;
#endif

namespace detail {

template <class Arch>
inline constexpr bool has_matrix = requires { typename Arch::Matrix; };
inline constexpr Index matrix_tokens = 16;  ///< rows of a tile register

/// The largest MaxByte for which Arch multiplies as it does for this one, so that kernels are compiled once for all of them.
template <class Arch>
constexpr int same_products(int max_byte) {
  int largest = max_byte;
  while (largest < 255 && Arch::bias(largest + 1) == Arch::bias(max_byte) &&
         Arch::short_sums(largest + 1) == Arch::short_sums(max_byte))
    ++largest;
  return largest;
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
