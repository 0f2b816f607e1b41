// EXPECT: anybit: this layout leaves out zeros, so its zero code must mean 0 in every group: a format without zero point, and TwoOfFourFor<Format> as the layout
#include <anybit/scheme/presets.hpp>
#include <anybit/scheme/two_of_four.hpp>

#ifdef ANYBIT_FIXED
using Format = anybit::SInt<4>;
#else
using Format = anybit::UInt<4>;
#endif

double bits = anybit::Scheme<Format, anybit::PerRow, anybit::ScaleF16, anybit::TwoOfFour<>>::bits_per_weight({64, 64});
