// EXPECT: anybit: a recipe applies each transform once; this one stands in it twice (combine their options in one)
#include <anybit/anybit.hpp>
using namespace anybit;

#ifdef ANYBIT_FIXED
auto recipe = SmoothQuant{} | Nearest<SInt<8>, PerRow>{};
#else
auto recipe = SmoothQuant{} | SmoothQuant{.alpha = 0.7f} | Nearest<SInt<8>, PerRow>{};
#endif
