#pragma once
// Brackets for headers that use xsimd or intrinsics, inside namespace scope or around it.
// g++ (12 at least) takes the undefined pass-through operands inside its own AVX-512 intrinsics for a mistake (gcc bug 105593)
// and says so wherever they are inlined; without optimization some intrinsics are macros whose conversions it reports. Nothing
// else is silenced, and nothing outside the brackets.

#include <anybit/core/isa.hpp>

#if defined(__GNUC__) && !defined(__clang__) && ANYBIT_HAS_AVX512
#define ANYBIT_VECTOR_CODE_BEGIN                                                             \
  _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"") \
      _Pragma("GCC diagnostic ignored \"-Wuninitialized\"") _Pragma("GCC diagnostic ignored \"-Wsign-conversion\"")
#define ANYBIT_VECTOR_CODE_END _Pragma("GCC diagnostic pop")
#else
#define ANYBIT_VECTOR_CODE_BEGIN
#define ANYBIT_VECTOR_CODE_END
#endif
