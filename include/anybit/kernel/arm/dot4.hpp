#pragma once
// The vocabulary of kernel/dot_vocabulary.hpp that this translation unit's flags allow on Arm.

#include <anybit/core/isa.hpp>

#if ANYBIT_HAS_NEON
#define ANYBIT_KERNEL_ARM_NEON 1
#include <anybit/kernel/arm/dot4_neon.hpp>
#endif
