#pragma once
// The vocabulary of kernel/dot_vocabulary.hpp for processors with AMX: that of AVX-512, and tiles for blocks of products.

#include <anybit/kernel/x86/amx/tiles.hpp>
#include <anybit/kernel/x86/dot4_avx512.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

struct Amx : Avx512Vnni {
  using Matrix = AmxTiles;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
