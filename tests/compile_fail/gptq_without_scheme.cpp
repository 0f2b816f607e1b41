// EXPECT: anybit: Gptq needs a scheme: Gptq<Scheme> or Gptq<Format, Granularity, ScaleStore, Layout>
#include <anybit/anybit.hpp>
using namespace anybit;

#ifdef ANYBIT_FIXED
Gptq<UInt<4>> method;
#else
Gptq<> method;
#endif
