// EXPECT: anybit: Nearest needs a scheme: Nearest<Scheme> or Nearest<Format, Granularity, ScaleStore, Layout>
#include <anybit/anybit.hpp>
using namespace anybit;

#ifdef ANYBIT_FIXED
Nearest<UInt<4>> method;
#else
Nearest<> method;
#endif
