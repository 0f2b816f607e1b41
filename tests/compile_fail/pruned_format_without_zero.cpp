// EXPECT: anybit: pruned weights must stay 0, and this format has no level 0; choose another
#include <anybit/format/superfloat.hpp>
#include <anybit/prune/magnitude.hpp>
#include <anybit/prune/pruned_nearest.hpp>

#ifdef ANYBIT_FIXED
using Format = anybit::Superfloat<2>;
#else
using Format = anybit::Superfloat<1>;
#endif

anybit::PrunedNearest<anybit::Magnitude, Format> method;
