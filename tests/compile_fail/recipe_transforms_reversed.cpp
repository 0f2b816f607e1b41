// EXPECT: anybit: these two transforms stand in the wrong order: SmoothQuant goes before Awq, whose clip limits hold only for the scales they were found with
#include <anybit/anybit.hpp>
using namespace anybit;

#ifdef ANYBIT_FIXED
auto recipe = SmoothQuant{} | Awq{} | Nearest<UInt<4>>{};
#else
auto recipe = Awq{} | SmoothQuant{} | Nearest<UInt<4>>{};
#endif
