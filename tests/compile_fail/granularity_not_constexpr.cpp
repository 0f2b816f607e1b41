// EXPECT: anybit: all members of a granularity must be constexpr (see scheme/granularity.hpp)
#include <anybit/format/integer.hpp>
#include <anybit/scheme/scheme.hpp>

struct Mine : anybit::PerGroup<32> {
#ifndef ANYBIT_FIXED
  static anybit::Index group_cols(anybit::Index) { return 32; }
#endif
};

double bits = anybit::Scheme<anybit::SInt<4>, Mine>::bits_per_weight({64, 64});
