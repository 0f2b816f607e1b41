#pragma once
// The architectures that this 64-bit Arm processor can run, of those that code may be compiled for, and the one that this file
// is compiled for.

#include <cstdint>

#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include <anybit/core/config.hpp>
#include <anybit/core/isa.hpp>

#if defined(__aarch64__)
namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

enum Feature : std::uint32_t { dotprod = 1, i8mm = 2 };

/// From the plainest to the best.
struct Architecture {
  const char* name;
  std::uint32_t needs;
};
inline constexpr Architecture architectures[] = {{"armv8-a", 0}, {"dotprod", dotprod}, {"i8mm", dotprod | i8mm}};

/// The features that this file's flags allow.
constexpr ANYBIT_INLINE std::uint32_t compiled_features() {
  return (ANYBIT_HAS_DOTPROD ? std::uint32_t{dotprod} : 0) | (ANYBIT_HAS_I8MM ? std::uint32_t{i8mm} : 0);
}

/// What the operating system says that the processor has. Elsewhere than on Linux: what this file is compiled for.
inline std::uint32_t processor_features() {
#if defined(__linux__)
  // CRC32, atomics, rounding multiply-add (all of Armv8.1-A), dot products; HWCAP2: 8-bit matrix products
  constexpr unsigned long v8_2 = 1ul << 7 | 1ul << 8 | 1ul << 12 | 1ul << 20;
  std::uint32_t f = 0;
  if ((getauxval(AT_HWCAP) & v8_2) == v8_2) f |= dotprod;
  if ((getauxval(AT_HWCAP2) >> 13 & 1) != 0) f |= i8mm;
  return f;
#else
  return compiled_features();
#endif
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
#endif
