// EXPECT: anybit: the Base3 layout holds three codes: use it with Ternary, and BitStream with other formats
#include <anybit/scheme/presets.hpp>

#ifdef ANYBIT_FIXED
using Format = anybit::Ternary;
#else
using Format = anybit::SInt<2>;
#endif

double bits = anybit::Scheme<Format, anybit::PerRow, anybit::ScaleF16, anybit::Base3>::bits_per_weight({64, 64});
