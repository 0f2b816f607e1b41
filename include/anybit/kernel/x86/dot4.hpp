#pragma once
// The vocabularies of kernel/dot_vocabulary.hpp that this translation unit's flags allow on x86.

#include <anybit/core/isa.hpp>

#if ANYBIT_HAS_AVX2
#define ANYBIT_KERNEL_X86_AVX2 1
#include <anybit/kernel/x86/dot4_avx2.hpp>
#if ANYBIT_HAS_AVX512_VNNI
#define ANYBIT_KERNEL_X86_AVX512_VNNI 1
#include <anybit/kernel/x86/dot4_avx512.hpp>
#if ANYBIT_HAS_AMX_INT8
#define ANYBIT_KERNEL_X86_AMX 1
#include <anybit/kernel/x86/amx/dot4_amx.hpp>
#endif
#elif ANYBIT_HAS_AVX_VNNI
#define ANYBIT_KERNEL_X86_AVX_VNNI 1
#include <anybit/kernel/x86/dot4_avxvnni.hpp>
#endif
#endif
