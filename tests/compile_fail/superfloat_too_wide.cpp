// EXPECT: anybit: Superfloat<Bits> needs 1 to 16 bits
#include <anybit/format/formats.hpp>

#ifdef ANYBIT_FIXED
constexpr int width = 16;
#else
constexpr int width = 17;
#endif

anybit::Code code = anybit::Superfloat<width>::encode(0.5f);
