// EXPECT: anybit: a recipe has one algorithm and it stands last: transforms go before it, and a second algorithm would undo the first
#include <anybit/anybit.hpp>
using namespace anybit;

#ifdef ANYBIT_FIXED
auto recipe = SmoothQuant{} | Awq{} | Gptq<UInt<4>>{};
#else
auto recipe = SmoothQuant{} | Gptq<UInt<4>>{} | Awq{};
#endif
