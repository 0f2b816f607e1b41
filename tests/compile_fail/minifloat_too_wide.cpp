// EXPECT: anybit: Minifloat<E, M> needs 1 to 8 exponent bits and 16 bits at most
#include <anybit/format/formats.hpp>

#ifdef ANYBIT_FIXED
using Float = anybit::Minifloat<8, 7>;
#else
using Float = anybit::Minifloat<9, 2>;
#endif

anybit::Code code = Float::encode(0.5f);
