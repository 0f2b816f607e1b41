#include "kernel/check_arch.hpp"

#if defined(EVERY_ARCH_HAS_AVX_VNNI)
TEST_CASE("avx2: dot products are exact") { arch_checks::check_vocabulary<anybit::kernel::Avx2>(); }
TEST_CASE("avx2: whole products in tiles") { arch_checks::check_all_products<anybit::kernel::Avx2>(); }
#endif
