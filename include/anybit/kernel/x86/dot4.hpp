#pragma once
// The vocabularies of kernel/dot_vocabulary.hpp that this translation unit's flags allow on x86.

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define ANYBIT_KERNEL_X86_AVX2 1
#include <anybit/kernel/x86/dot4_avx2.hpp>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#define ANYBIT_KERNEL_X86_AVX512_VNNI 1
#include <anybit/kernel/x86/dot4_avx512.hpp>
#elif defined(__AVXVNNI__)
#define ANYBIT_KERNEL_X86_AVX_VNNI 1
#include <anybit/kernel/x86/dot4_avxvnni.hpp>
#endif
#endif
