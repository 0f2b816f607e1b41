// EXPECT: or one of your own (see scheme/layout.hpp): name, granule, packed_bytes, pack, unpack
#include <anybit/format/integer.hpp>
#include <anybit/scheme/scheme.hpp>

#ifdef ANYBIT_FIXED
using Mine = anybit::BitStream;
#else
struct Mine {
  static constexpr std::string_view name = "mine";
};
#endif

double bits = anybit::Scheme<anybit::SInt<4>, anybit::PerRow, anybit::ScaleF16, Mine>::bits_per_weight({64, 64});
