#include "kernel/check_arch.hpp"

#if defined(EVERY_ARCH_HAS_AVX512)
TEST_CASE("avx512 vnni: dot products are exact") { arch_checks::check_vocabulary<anybit::kernel::Avx512Vnni>(); }
TEST_CASE("avx512 vnni: whole products in tiles") { arch_checks::check_all_products<anybit::kernel::Avx512Vnni>(); }
#endif
