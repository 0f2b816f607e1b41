#pragma once
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/isa.hpp>

namespace engine {

/// What the engine does with weights. Tensors and views may pass; the code behind the pointers is one architecture's.
struct Kernels {
  anybit::AnyPacked (*compress)(anybit::ConstMatrix weights);
  anybit::SchemeRegistry (*schemes)();
  const char* (*isa)();
};
ANYBIT_KERNELS(Kernels, engine_kernels);

/// A second table, from another source file.
struct Sums {
  double (*sum)(const std::vector<double>&);
  const char* (*isa)();
};
ANYBIT_KERNELS(Sums, engine_sums);

}  // namespace engine
