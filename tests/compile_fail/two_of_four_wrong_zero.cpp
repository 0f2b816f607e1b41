// EXPECT: anybit: this layout leaves out zeros, so its zero code must mean 0 in every group: a format without zero point, and TwoOfFourFor<Format> as the layout
#include <anybit/scheme/presets.hpp>
#include <anybit/scheme/two_of_four.hpp>

#ifdef ANYBIT_FIXED
using Layout = anybit::TwoOfFourFor<anybit::Nf4>;
#else
using Layout = anybit::TwoOfFour<>;
#endif

double bits = anybit::Scheme<anybit::Nf4, anybit::PerRow, anybit::ScaleF16, Layout>::bits_per_weight({64, 64});
