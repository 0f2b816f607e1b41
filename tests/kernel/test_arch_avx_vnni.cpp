#include "kernel/check_arch.hpp"

#if defined(EVERY_ARCH_HAS_AVX_VNNI)
TEST_CASE("avx vnni: dot products are exact") { arch_checks::check_vocabulary<anybit::kernel::AvxVnni>(); }
TEST_CASE("avx vnni: whole products in tiles") { arch_checks::check_all_products<anybit::kernel::AvxVnni>(); }
#endif
