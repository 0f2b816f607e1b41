// EXPECT: or one of your own (see scheme/scale_store.hpp): name, joint, largest, bytes, round_trip, store, load
#include <anybit/format/integer.hpp>
#include <anybit/scheme/scheme.hpp>

#ifdef ANYBIT_FIXED
using Mine = anybit::ScaleF16;
#else
struct Mine {
  static constexpr std::string_view name = "mine";
};
#endif

double bits = anybit::Scheme<anybit::SInt<4>, anybit::PerRow, Mine>::bits_per_weight({64, 64});
