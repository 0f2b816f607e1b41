#pragma once

#include <cstdint>

#include <anybit/core/config.hpp>

namespace anybit::nn {
inline namespace ANYBIT_ABI {

enum class Activation : std::uint8_t {
  silu,       ///< z / (1 + e^-z)
  gelu,       ///< z (1 + erf(z / sqrt 2)) / 2
  gelu_tanh,  ///< z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2
  relu,       ///< max(z, 0)
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::nn
