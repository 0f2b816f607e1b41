#pragma once
// What the C interface needs of the kernels of one architecture.

#include "guard.hpp"

#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/isa.hpp>

namespace anybit::c {

struct Kernels {
  SchemeRegistry (*schemes)();
  /// Nearest rounding in the scheme of that name.
  Result<AnyPacked> (*quantize)(std::string_view scheme, ConstMatrix weights);
};
ANYBIT_KERNELS(Kernels, anybit_c_kernels);

}  // namespace anybit::c
