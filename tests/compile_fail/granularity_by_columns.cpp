// EXPECT: anybit: a granularity must give every row groups of its own, one after the other
#include <anybit/format/integer.hpp>
#include <anybit/scheme/scheme.hpp>

struct Mine : anybit::PerGroup<32> {
#ifndef ANYBIT_FIXED
  static constexpr anybit::Index index(anybit::Extents e, anybit::Index row, anybit::Index g) { return g * e.rows + row; }
#endif
};

double bits = anybit::Scheme<anybit::SInt<4>, Mine>::bits_per_weight({64, 64});
