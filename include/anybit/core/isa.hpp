#pragma once
// Instruction sets: which of them this translation unit's flags allow, and the namespace tag of code that depends on them. No
// other header reads the macros by which compilers describe a processor's features or the meaning of floating-point operations.

// Levels, 1 or 0. A body in intrinsics is chosen by one of these and by nothing else. Levels are whole, as processors have them:
// flags that allow half of one (AVX2 without FMA) choose the bodies of the level below.
#if defined(__SSE2__) || defined(_M_X64)
#define ANYBIT_HAS_SSE2 1
#else
#define ANYBIT_HAS_SSE2 0
#endif
#if defined(__SSE3__) && defined(__SSSE3__) && defined(__SSE4_1__) && defined(__SSE4_2__) && defined(__POPCNT__)
#define ANYBIT_HAS_SSE4 1
#else
#define ANYBIT_HAS_SSE4 0
#endif
#if ANYBIT_HAS_SSE4 && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define ANYBIT_HAS_AVX2 1
#else
#define ANYBIT_HAS_AVX2 0
#endif
#if ANYBIT_HAS_AVX2 && defined(__AVXVNNI__)
#define ANYBIT_HAS_AVX_VNNI 1
#else
#define ANYBIT_HAS_AVX_VNNI 0
#endif
#if ANYBIT_HAS_AVX2 && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define ANYBIT_HAS_AVX512 1
#else
#define ANYBIT_HAS_AVX512 0
#endif
#if ANYBIT_HAS_AVX512 && defined(__AVX512VNNI__)
#define ANYBIT_HAS_AVX512_VNNI 1
#else
#define ANYBIT_HAS_AVX512_VNNI 0
#endif
#if ANYBIT_HAS_AVX512 && defined(__AVX512VBMI__)
#define ANYBIT_HAS_AVX512_VBMI 1
#else
#define ANYBIT_HAS_AVX512_VBMI 0
#endif
#if ANYBIT_HAS_AVX512_VBMI && defined(__AVX512VBMI2__)
#define ANYBIT_HAS_AVX512_VBMI2 1
#else
#define ANYBIT_HAS_AVX512_VBMI2 0
#endif
#if ANYBIT_HAS_AVX512_VBMI && defined(__GFNI__)
#define ANYBIT_HAS_GFNI 1
#else
#define ANYBIT_HAS_GFNI 0
#endif
#if ANYBIT_HAS_AVX512 && defined(__AVX512BF16__)
#define ANYBIT_HAS_AVX512_BF16 1
#else
#define ANYBIT_HAS_AVX512_BF16 0
#endif
// clang up to 18 spells the macros of AMX without the underscore. Every processor with AMX has the AVX-512 that its kernels use
// beside it.
#if ANYBIT_HAS_AVX512_VNNI && ANYBIT_HAS_AVX512_VBMI && (defined(__AMX_TILE__) || defined(__AMXTILE__))
#define ANYBIT_HAS_AMX_TILE 1
#else
#define ANYBIT_HAS_AMX_TILE 0
#endif
#if ANYBIT_HAS_AMX_TILE && (defined(__AMX_INT8__) || defined(__AMXINT8__))
#define ANYBIT_HAS_AMX_INT8 1
#else
#define ANYBIT_HAS_AMX_INT8 0
#endif
#if ANYBIT_HAS_AMX_TILE && ANYBIT_HAS_AVX512_BF16 && (defined(__AMX_BF16__) || defined(__AMXBF16__))
#define ANYBIT_HAS_AMX_BF16 1
#else
#define ANYBIT_HAS_AMX_BF16 0
#endif
#if defined(__aarch64__) && defined(__ARM_NEON)
#define ANYBIT_HAS_NEON 1
#else
#define ANYBIT_HAS_NEON 0
#endif
#if ANYBIT_HAS_NEON && defined(__ARM_FEATURE_DOTPROD)
#define ANYBIT_HAS_DOTPROD 1
#else
#define ANYBIT_HAS_DOTPROD 0
#endif
#if ANYBIT_HAS_DOTPROD && defined(__ARM_FEATURE_MATMUL_INT8)
#define ANYBIT_HAS_I8MM 1
#else
#define ANYBIT_HAS_I8MM 0
#endif

// Whether the compiler may change the order of sums, contract, and take NaN and infinity for impossible.
#if defined(__FAST_MATH__)
#define ANYBIT_HAS_FAST_MATH 1
#else
#define ANYBIT_HAS_FAST_MATH 0
#endif

// The best level by name, and the bytes of its vectors.
#if ANYBIT_HAS_AVX512
#define ANYBIT_VECTOR_BYTES 64
#if ANYBIT_HAS_AMX_INT8 && ANYBIT_HAS_AMX_BF16
#define ANYBIT_ISA amx
#elif ANYBIT_HAS_AVX512_VNNI && ANYBIT_HAS_AVX512_VBMI
#define ANYBIT_ISA avx512_vnni_vbmi
#elif ANYBIT_HAS_AVX512_VNNI
#define ANYBIT_ISA avx512_vnni
#elif ANYBIT_HAS_AVX512_VBMI
#define ANYBIT_ISA avx512_vbmi
#else
#define ANYBIT_ISA avx512
#endif
#elif ANYBIT_HAS_AVX2
#define ANYBIT_VECTOR_BYTES 32
#if ANYBIT_HAS_AVX_VNNI
#define ANYBIT_ISA avx2_vnni
#else
#define ANYBIT_ISA avx2
#endif
#else
#define ANYBIT_VECTOR_BYTES 16
#if ANYBIT_HAS_SSE4
#define ANYBIT_ISA sse4
#elif ANYBIT_HAS_SSE2
#define ANYBIT_ISA sse2
#elif ANYBIT_HAS_I8MM
#define ANYBIT_ISA neon_i8mm
#elif ANYBIT_HAS_DOTPROD
#define ANYBIT_ISA neon_dotprod
#elif ANYBIT_HAS_NEON
#define ANYBIT_ISA neon
#else
#define ANYBIT_ISA generic
#endif
#endif

// The namespace tag. Translation units with different flags may be linked into one program, in any order: of functions of one
// name the linker keeps one, so functions that flags change get their flags into their names.
// ANYBIT_CODE is v0_<level>_<features>_<floating point>_<major version of xsimd>, such as v0_avx2_FFF000200_00_8. Digits are
// hexadecimal, each of four macros that are 1 or not.

// The instructions that compilers make of plain C++: those that the levels are of, and more.
#if defined(__aarch64__) || defined(__arm__)
#define ANYBIT_FEATURES                                                                                   \
  ANYBIT_BITS(__ARM_NEON, __ARM_FEATURE_FMA, __ARM_FEATURE_ATOMICS, __ARM_FEATURE_QRDMX),                 \
      ANYBIT_BITS(__ARM_FEATURE_DOTPROD, __ARM_FEATURE_MATMUL_INT8, __ARM_FEATURE_FP16_VECTOR_ARITHMETIC, \
                  __ARM_FEATURE_BF16_VECTOR_ARITHMETIC),                                                  \
      ANYBIT_BITS(__ARM_FEATURE_SVE, __ARM_FEATURE_SVE2, __ARM_FEATURE_SVE_MATMUL_INT8, __ARM_FEATURE_SME), 0, 0, 0, 0, 0, 0
#else
#define ANYBIT_FEATURES                                                                                                      \
  ANYBIT_BITS(__SSE3__, __SSSE3__, __SSE4_1__, __SSE4_2__), ANYBIT_BITS(__POPCNT__, __LZCNT__, __BMI__, __BMI2__),           \
      ANYBIT_BITS(__AVX__, __AVX2__, __FMA__, __F16C__), ANYBIT_BITS(__AVX512F__, __AVX512CD__, __AVX512BW__, __AVX512DQ__), \
      ANYBIT_BITS(__AVX512VL__, __AVX512VNNI__, __AVX512VBMI__, __AVX512VBMI2__),                                            \
      ANYBIT_BITS(__AVX512BITALG__, __AVX512VPOPCNTDQ__, __AVX512BF16__, __AVX512FP16__),                                    \
      ANYBIT_BITS(__AVXVNNI__, __AVXVNNIINT8__, __GFNI__, __MOVBE__),                                                        \
      ANYBIT_BITS(ANYBIT_HAS_AMX_TILE, ANYBIT_HAS_AMX_INT8, ANYBIT_HAS_AMX_BF16, __APX_F__),                                 \
      ANYBIT_BITS(__SSE4A__, __FMA4__, __XOP__, __TBM__)
#endif

// Flags that change what floating-point operations mean, as far as compilers tell. g++ tells of all of these, clang only of
// -ffast-math and -ffinite-math-only, and neither of -ffp-contract: give that one to all files or to none. (NaN and infinity in
// data are found by their bits, core/finite.hpp, whatever the flags.)
#define ANYBIT_FLOATING_POINT                                                                  \
  ANYBIT_BITS(__FAST_MATH__, __FINITE_MATH_ONLY__, __ASSOCIATIVE_MATH__, __RECIPROCAL_MATH__), \
      ANYBIT_BITS(__NO_SIGNED_ZEROS__, __ROUNDING_MATH__, __SUPPORT_SNAN__, )

// The alignment of Eigen's objects follows from the features, unless EIGEN_MAX_ALIGN_BYTES is set. It is not in the tag: what it
// changes is Eigen's own allocation, which has no tag. So the rule of core/eigen_view.hpp stands: no Eigen object is handed over.
#if __has_include(<xsimd/config/xsimd_config.hpp>)
#include <xsimd/config/xsimd_config.hpp>
#define ANYBIT_XSIMD XSIMD_VERSION_MAJOR
#else  // only headers without vectors compile
#define ANYBIT_XSIMD 0
#endif

#define ANYBIT_CODE ANYBIT_TAG(ANYBIT_ISA, ANYBIT_FEATURES, ANYBIT_FLOATING_POINT, ANYBIT_XSIMD)
#define ANYBIT_TAG(...) ANYBIT_TAG_(__VA_ARGS__)
#define ANYBIT_TAG_(isa, a, b, c, d, e, f, g, h, i, p, q, xsimd) v0_##isa##_##a##b##c##d##e##f##g##h##i##_##p##q##_##xsimd

#define ANYBIT_BITS(a, b, c, d) ANYBIT_HEX(ANYBIT_BIT(a), ANYBIT_BIT(b), ANYBIT_BIT(c), ANYBIT_BIT(d))
// A macro that is defined as 1 puts a comma before the 1, which thereby becomes the second argument; else the 0 is it.
#define ANYBIT_BIT(macro) ANYBIT_BIT_OF(macro)
#define ANYBIT_BIT_OF(value) ANYBIT_BIT_SECOND(ANYBIT_BIT_IS_##value 1, 0, )
#define ANYBIT_BIT_IS_1 0,
#define ANYBIT_BIT_SECOND(...) ANYBIT_BIT_SECOND_(__VA_ARGS__)
#define ANYBIT_BIT_SECOND_(first, second, ...) second
#define ANYBIT_HEX(a, b, c, d) ANYBIT_HEX_(a, b, c, d)
#define ANYBIT_HEX_(a, b, c, d) ANYBIT_HEX_##a##b##c##d
#define ANYBIT_HEX_0000 0
#define ANYBIT_HEX_0001 1
#define ANYBIT_HEX_0010 2
#define ANYBIT_HEX_0011 3
#define ANYBIT_HEX_0100 4
#define ANYBIT_HEX_0101 5
#define ANYBIT_HEX_0110 6
#define ANYBIT_HEX_0111 7
#define ANYBIT_HEX_1000 8
#define ANYBIT_HEX_1001 9
#define ANYBIT_HEX_1010 A
#define ANYBIT_HEX_1011 B
#define ANYBIT_HEX_1100 C
#define ANYBIT_HEX_1101 D
#define ANYBIT_HEX_1110 E
#define ANYBIT_HEX_1111 F
