// EXPECT: anybit: a format with a zero point needs a scale store: its zero is found together with the scale
#include <anybit/scheme/presets.hpp>

#ifdef ANYBIT_FIXED
using Scales = anybit::ScaleF16;
#else
using Scales = anybit::NoScale;
#endif

double bits = anybit::Scheme<anybit::UInt<4>, anybit::PerGroup<64>, Scales>::bits_per_weight({64, 64});
