#pragma once
// The required C++ version, the two namespace tags, and the check macro.

#include <cstddef>
#include <cstdint>

#include <anybit/core/isa.hpp>

#if defined(_MSVC_LANG) ? _MSVC_LANG < 202002L : __cplusplus < 202002L
#error "anybit needs C++20: compile with -std=c++20 or newer"
#endif

// Two namespace tags keep translation units with different -m flags linkable into one program:
//   data types (formats, schemes, packed tensors)  live in `inline namespace ANYBIT_ABI`,
//   code that the compiler may translate differently under other flags, in `inline namespace ANYBIT_CODE` (core/isa.hpp).
// Use them as `namespace anybit {` and `inline namespace ANYBIT_ABI {` on two lines, which ctags and editors read, unlike the
// joined form. Users never spell either.
#define ANYBIT_ABI v0

#define ANYBIT_CONCAT_(a, b) a##b
#define ANYBIT_CONCAT(a, b) ANYBIT_CONCAT_(a, b)

// Leaves no shared symbol behind, so that formats and small helpers may be used from any translation unit.
#if defined(_MSC_VER)
#define ANYBIT_INLINE __forceinline
#else
#define ANYBIT_INLINE inline __attribute__((always_inline))
#endif

// Programmer errors (shape mismatch, index out of range). Define it before the first include to redirect, for
// example to your engine's own assertion. Errors in data never come here: they are a Result.
#ifndef ANYBIT_CHECK
#include <cstdio>
#include <cstdlib>
#define ANYBIT_CHECK(condition, message) \
  ((condition) ? static_cast<void>(0)    \
               : (std::fprintf(stderr, "%s:%d: anybit: %s [%s]\n", __FILE__, __LINE__, message, #condition), std::abort()))
#endif

namespace anybit {
inline namespace ANYBIT_CODE {

/// The default argument of those members of data types that the compiler may translate differently under other flags
/// (`template <class = UnderTheseFlags>`): the data keeps one name under all flags, its code does not.
struct UnderTheseFlags {};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "anybit reads and writes little-endian bytes in place: big-endian machines are not supported yet"
#endif
