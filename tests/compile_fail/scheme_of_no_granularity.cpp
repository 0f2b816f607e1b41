// EXPECT: or one of your own (see scheme/granularity.hpp): name, group_cols, groups_per_row, count, index
#include <anybit/format/integer.hpp>
#include <anybit/scheme/scheme.hpp>

#ifdef ANYBIT_FIXED
using Mine = anybit::PerGroup<32>;
#else
struct Mine {
  static constexpr std::string_view name = "mine";
};
#endif

double bits = anybit::Scheme<anybit::SInt<4>, Mine>::bits_per_weight({64, 64});
