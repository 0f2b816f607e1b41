#include "kernel/check_arch.hpp"

#if defined(ANYBIT_KERNEL_ARM_NEON)
TEST_CASE("neon: dot products are exact") { arch_checks::check_vocabulary<anybit::kernel::Neon>(); }
TEST_CASE("neon: whole products in tiles") { arch_checks::check_all_products<anybit::kernel::Neon>(); }
#endif
