#pragma once
// Compiler and instruction set detection, the two namespace tags, and the check macro.

#include <cstddef>
#include <cstdint>

#if defined(_MSVC_LANG) ? _MSVC_LANG < 202002L : __cplusplus < 202002L
#error "anybit needs C++20: compile with -std=c++20 or newer"
#endif

// Two namespace tags keep translation units with different -m flags linkable into one program:
//   data types (formats, schemes, packed tensors)  live in `inline namespace ANYBIT_ABI`,
//   code that the compiler may translate differently under other flags, in `inline namespace ANYBIT_CODE`.
// Use them as `namespace anybit {` and `inline namespace ANYBIT_ABI {` on two lines, which ctags and editors read, unlike the
// joined form. Users never spell either.
#define ANYBIT_ABI v0

#define ANYBIT_CONCAT_(a, b) a##b
#define ANYBIT_CONCAT(a, b) ANYBIT_CONCAT_(a, b)

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__) && defined(__AVX512BW__)
#define ANYBIT_ISA avx512_vnni_vbmi
#elif defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define ANYBIT_ISA avx512_vnni
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define ANYBIT_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && defined(__AVXVNNI__)
#define ANYBIT_ISA avx2_vnni
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define ANYBIT_ISA avx2_fma
#elif defined(__AVX2__)
#define ANYBIT_ISA avx2
#elif defined(__AVX__)
#define ANYBIT_ISA avx
#elif defined(__SSE4_1__)
#define ANYBIT_ISA sse4
#elif defined(__x86_64__) || defined(_M_X64)
#define ANYBIT_ISA sse2
#elif defined(__aarch64__) && defined(__ARM_FEATURE_MATMUL_INT8)
#define ANYBIT_ISA neon64_i8mm
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#define ANYBIT_ISA neon64_dotprod
#elif defined(__aarch64__)
#define ANYBIT_ISA neon64
#else
#define ANYBIT_ISA generic
#endif

// Bytes of the widest vector registers.
#if defined(__AVX512F__)
#define ANYBIT_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define ANYBIT_VECTOR_BYTES 32
#else
#define ANYBIT_VECTOR_BYTES 16
#endif

#if defined(__FAST_MATH__)
#define ANYBIT_CODE ANYBIT_CONCAT(ANYBIT_CONCAT(v0_, ANYBIT_ISA), _fastmath)
#else
#define ANYBIT_CODE ANYBIT_CONCAT(v0_, ANYBIT_ISA)
#endif

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

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "anybit reads and writes little-endian bytes in place: big-endian machines are not supported yet"
#endif
