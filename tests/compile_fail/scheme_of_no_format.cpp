// EXPECT: anybit: the first argument of Scheme must be a Format (see format/format.hpp): bits, name, encode, decode, fit
#include <anybit/scheme/presets.hpp>

#ifdef ANYBIT_FIXED
using Mine = anybit::Nf4;
#else
struct Mine {
  static constexpr int bits = 4;
  static constexpr auto name = anybit::FixedString("mine");
};
#endif

double bits = anybit::Scheme<Mine>::bits_per_weight({64, 64});
