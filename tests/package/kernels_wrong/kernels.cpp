#include <anybit/kernel/isa.hpp>

#include <cstdlib>
#include <string>

struct Kernels {
  int (*seven)();
};
ANYBIT_KERNELS(Kernels, engine_kernels);

#if defined(INITIALIZER)
const int started = std::atoi("7");
#else
constexpr int started = 7;
#endif

#if defined(TABLE)
struct Heavy {
  std::string name;
};
ANYBIT_KERNELS(Heavy, heavy_kernels);
#endif

#if defined(DIFFERENT) && defined(__AVX2__)
ANYBIT_KERNELS(Kernels, more_kernels);
const Kernels& more_kernels() {
  static constexpr Kernels table{[] { return 8; }};
  return table;
}
#endif

#if !defined(NO_FUNCTION)
const Kernels& engine_kernels() {
  static constexpr Kernels table{[] { return started; }};
  return table;
}
#endif
