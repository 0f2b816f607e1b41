#include "kernel/check_arch.hpp"

TEST_CASE("generic: dot products are exact") { arch_checks::check_vocabulary<anybit::kernel::Generic>(); }
TEST_CASE("generic: whole products in tiles") { arch_checks::check_all_products<anybit::kernel::Generic>(); }
