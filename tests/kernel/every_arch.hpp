#pragma once
// Every vocabulary of kernel/dot_vocabulary.hpp that this compiler can produce: what the flags lack is emulated where that can be
// done. Include it first.

// Emulated vectors are passed by value, and loops over them need not become vectors; both are said where the kernels inline
// them, so it is silenced before they are included.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpsabi"
#pragma clang diagnostic ignored "-Wpass-failed"
#elif defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#include <anybit/kernel/repack.hpp>

#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>  // before the emulation, which renames what it declares
#if !defined(ANYBIT_KERNEL_X86_AVX512_VNNI)
#include "support/simde_avx512.hpp"
#if ANYBIT_TEST_HAS_AVX512
#include <anybit/kernel/x86/dot4_avx512.hpp>
#endif
#endif
#if defined(ANYBIT_KERNEL_X86_AVX512_VNNI) || ANYBIT_TEST_HAS_AVX512
#define EVERY_ARCH_HAS_AVX512 1
#endif
#if !defined(ANYBIT_KERNEL_X86_AVX_VNNI) && (defined(ANYBIT_KERNEL_X86_AVX2) || defined(EVERY_ARCH_HAS_AVX512))
#if !ANYBIT_HAS_AVX_VNNI
namespace every_arch {
inline __m256i dpbusd(__m256i a, __m256i b, __m256i x) {
  std::int32_t sums[8];
  std::uint8_t u[32];
  std::int8_t s[32];
  std::memcpy(sums, &a, 32);
  std::memcpy(u, &b, 32);
  std::memcpy(s, &x, 32);
  for (int i = 0; i < 32; ++i) sums[i / 4] += u[i] * s[i];
  std::memcpy(&a, sums, 32);
  return a;
}
}  // namespace every_arch
#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32(a, b, x) ::every_arch::dpbusd(a, b, x)
#endif
#include <anybit/kernel/x86/dot4_avxvnni.hpp>
#define EVERY_ARCH_HAS_AVX_VNNI 1
#elif defined(ANYBIT_KERNEL_X86_AVX_VNNI)
#define EVERY_ARCH_HAS_AVX_VNNI 1
#endif
#endif

namespace every_arch {

/// check(std::type_identity<Arch>(), name) with each.
template <class Check>
void for_each(Check check) {
  check(std::type_identity<anybit::kernel::Generic>(), "generic");
#if defined(EVERY_ARCH_HAS_AVX_VNNI)
  check(std::type_identity<anybit::kernel::Avx2>(), "avx2");
  check(std::type_identity<anybit::kernel::AvxVnni>(), "avx vnni");
#endif
#if defined(ANYBIT_KERNEL_ARM_NEON)
  check(std::type_identity<anybit::kernel::Neon>(), "neon");
#endif
#if defined(EVERY_ARCH_HAS_AVX512)
  check(std::type_identity<anybit::kernel::Avx512Vnni>(), "avx512 vnni");
#endif
}

/// What is left out, and why; empty if nothing is.
inline const char* left_out() {
#if defined(__x86_64__) && !defined(EVERY_ARCH_HAS_AVX512)
  return "no AVX-512 here and no SIMDe to emulate it (Debian: libsimde-dev)";
#else
  return "";
#endif
}

}  // namespace every_arch
