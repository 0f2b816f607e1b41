#pragma once
// The tile registers of AMX: eight of 16 rows of 64 bytes, and dot products of two of them into a third (Intel's Instruction Set
// Extensions reference, chapter on AMX). Instructions are spelled here: g++ 12 reads too little of the configuration and orders
// plain stores after a tile's load, and clang spells its macros otherwise. So these compile without any -m flag, at every -O.

#include <anybit/core/types.hpp>

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <anybit/kernel/x86/processor.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// Asks the system to save this process's tiles (docs.kernel.org/arch/x86/xstate.html). Threads and children inherit the
/// permission; a system that refuses, as emulators of kernels do, leaves the process as it was.
inline bool request_tiles() {
  constexpr std::uint32_t needed = amx_tile | amx_int8 | amx_bf16;
  if ((processor_features() & needed) != needed) return false;
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

/// The operand of ldtilecfg.
struct alignas(64) TileConfiguration {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfiguration) == 64);

}  // namespace detail

/// The vocabulary of matrix instructions (kernel/matrix_products.hpp) on tile registers. State belongs to the thread: between
/// configure() and release() no other user of tiles may run on it, and no function may be called that could be one.
struct AmxTiles {
  /// Of a product in 8 bits. An estimate from the costs of single instructions (at 8 tokens a pair of tiles takes about as long
  /// as the dot products, decoding and storing included); to be measured, per width.
  static constexpr Index least_tokens = 12;

  /// Whether this process may use tiles. Asks once, at the first call.
  static bool available() {
    static const bool permitted = detail::request_tiles();
    return permitted;
  }
  /// All registers become zeros: 0 to 5, sums and activations, of `tokens` rows, 6 and 7 of 16.
  static ANYBIT_INLINE void configure(int tokens) {
    detail::TileConfiguration c;
    for (int i = 0; i < 8; ++i) {
      c.row_bytes[i] = 64;
      c.rows[i] = static_cast<std::uint8_t>(i < 6 ? tokens : 16);
    }
    asm volatile("ldtilecfg %0" : : "m"(c));
  }
  /// Back to the state in which threads switch without saving tiles.
  static ANYBIT_INLINE void release() { asm volatile("tilerelease"); }

  template <int T>
  static ANYBIT_INLINE void zero() {
    asm volatile("tilezero {%%tmm%c0|tmm%c0}" : : "i"(T));
  }
  /// Rows `stride` bytes apart.
  template <int T>
  static ANYBIT_INLINE void load(const void* p, Index stride) {
    asm volatile("tileloadd {(%0,%1,1), %%tmm%c2|tmm%c2, [%0+%1*1]}" : : "r"(p), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  static ANYBIT_INLINE void store(void* p, Index stride) {
    asm volatile("tilestored {%%tmm%c2, (%0,%1,1)|[%0+%1*1], tmm%c2}" : : "r"(p), "r"(stride), "i"(T) : "memory");
  }
  /// C[m][n] += sum over k of A[m][k] * B[k / 4][4 n + k % 4] in int32: A signed, B signed.
  template <int C, int A, int B>
  static ANYBIT_INLINE void dpbssd() {
    asm volatile("tdpbssd {%%tmm%c2, %%tmm%c1, %%tmm%c0|tmm%c0, tmm%c1, tmm%c2}" : : "i"(C), "i"(A), "i"(B));
  }
  /// The same with B unsigned.
  template <int C, int A, int B>
  static ANYBIT_INLINE void dpbsud() {
    asm volatile("tdpbsud {%%tmm%c2, %%tmm%c1, %%tmm%c0|tmm%c0, tmm%c1, tmm%c2}" : : "i"(C), "i"(A), "i"(B));
  }
  /// C[m][n] += sum over k of A[m][k] * B[k / 2][2 n + k % 2] in f32, of bfloat16.
  template <int C, int A, int B>
  static ANYBIT_INLINE void dpbf16ps() {
    asm volatile("tdpbf16ps {%%tmm%c2, %%tmm%c1, %%tmm%c0|tmm%c0, tmm%c1, tmm%c2}" : : "i"(C), "i"(A), "i"(B));
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
#endif
