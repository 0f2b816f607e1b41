// EXPECT: anybit: PerGroup<Size> needs a group size of at least 1
#include <anybit/scheme/granularity.hpp>

#ifdef ANYBIT_FIXED
using Groups = anybit::PerGroup<1>;
#else
using Groups = anybit::PerGroup<0>;
#endif

anybit::Index groups = Groups::groups_per_row(64);
