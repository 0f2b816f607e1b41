#pragma once
// The architectures that this x86 processor can run, of those that code may be compiled for, and the one of this file.

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdint>
#include <initializer_list>

#include <anybit/core/config.hpp>
#include <anybit/core/isa.hpp>

#if defined(__x86_64__)
namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// Levels of core/isa.hpp.
enum Feature : std::uint32_t {
  v2 = 1,
  v3 = 2,
  v4 = 4,
  avx_vnni = 8,
  avx512_vnni = 16,
  avx512_vbmi = 32,
  avx512_bf16 = 64,
  amx_tile = 128,
  amx_int8 = 256,
  amx_bf16 = 512,
};

/// From the plainest to the best.
struct Architecture {
  const char* name;
  std::uint32_t needs;
};
inline constexpr Architecture architectures[] = {
    {"x86-64", 0},
    {"x86-64-v2", v2},
    {"x86-64-v3", v2 | v3},
    {"x86-64-v4", v2 | v3 | v4},
    {"avx-vnni", v2 | v3 | avx_vnni},
    {"avx512-vnni", v2 | v3 | v4 | avx512_vnni},
    {"avx512-vbmi", v2 | v3 | v4 | avx512_vnni | avx512_vbmi},
    {"avx512-bf16", v2 | v3 | v4 | avx512_vnni | avx512_vbmi | avx512_bf16},
    {"amx", v2 | v3 | v4 | avx512_vnni | avx512_vbmi | avx512_bf16 | amx_tile | amx_int8 | amx_bf16},
};

/// The features that this file's flags allow.
constexpr ANYBIT_INLINE std::uint32_t compiled_features() {
  std::uint32_t f = 0;
  if (ANYBIT_HAS_SSE4) f |= v2;
  if (ANYBIT_HAS_AVX2) f |= v3;
  if (ANYBIT_HAS_AVX512) f |= v4;
  if (ANYBIT_HAS_AVX_VNNI) f |= avx_vnni;
  if (ANYBIT_HAS_AVX512_VNNI) f |= avx512_vnni;
  if (ANYBIT_HAS_AVX512_VBMI) f |= avx512_vbmi;
  if (ANYBIT_HAS_AVX512_BF16) f |= avx512_bf16;
  if (ANYBIT_HAS_AMX_TILE) f |= amx_tile;
  if (ANYBIT_HAS_AMX_INT8) f |= amx_int8;
  if (ANYBIT_HAS_AMX_BF16) f |= amx_bf16;
  return f;
}

/// The features that the processor has and the operating system saves (CPUID, XGETBV).
inline std::uint32_t processor_features() {
  std::uint32_t a, b, c, d, leaf1_c;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  leaf1_c = c;
  const auto all = [](std::uint32_t word, std::initializer_list<int> bits) {
    for (const int bit : bits)
      if ((word >> bit & 1) == 0) return false;
    return true;
  };
  std::uint32_t f = 0;
  // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT
  if (!all(leaf1_c, {0, 9, 13, 19, 20, 23})) return f;
  f |= v2;
  // FMA, MOVBE, OSXSAVE, AVX, F16C
  if (!all(leaf1_c, {12, 22, 27, 28, 29})) return f;
  std::uint32_t saved, saved_high;
  asm("xgetbv" : "=a"(saved), "=d"(saved_high) : "c"(0));
  if (!all(saved, {1, 2})) return f;  // xmm, ymm
  std::uint32_t extended_c = 0;
  if (__get_cpuid(0x80000001, &a, &b, &c, &d)) extended_c = c;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
  // BMI1, AVX2, BMI2; LZCNT
  if (!all(b, {3, 5, 8}) || !all(extended_c, {5})) return f;
  f |= v3;
  // AVX-512 F, DQ, CD, BW, VL; opmask, upper halves of zmm 0-15, zmm 16-31
  if (all(b, {16, 17, 28, 30, 31}) && all(saved, {5, 6, 7})) {
    f |= v4;
    if (all(c, {11})) f |= avx512_vnni;
    if (all(c, {1})) f |= avx512_vbmi;
    if (all(d, {24}) && all(saved, {17, 18})) {  // configuration and contents of tiles
      f |= amx_tile;
      if (all(d, {25})) f |= amx_int8;
      if (all(d, {22})) f |= amx_bf16;
    }
  }
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
    if (all(a, {4})) f |= avx_vnni;
    if (all(a, {5}) && (f & v4) != 0) f |= avx512_bf16;
  }
  return f;
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
#endif
