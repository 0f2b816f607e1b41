#pragma once
// Learning rates by step.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <anybit/core/types.hpp>

namespace anybit::train {
inline namespace ANYBIT_ABI {

enum class Decay : std::uint8_t {
  constant,
  linear,  ///< peak (1 - u) + last u
  cosine,  ///< last + (peak - last) (1 + cos(pi u)) / 2 (Loshchilov and Hutter, arXiv:1608.03983, without restarts)
};

/// rate(s) for steps s = 0 .. steps - 1: peak (s + 1) / warm_up while s < warm_up, so that the first step moves; then the decay,
/// with u = (s - warm_up) / (steps - warm_up), at most 1.
struct Schedule {
  Decay decay = Decay::constant;
  double peak = 1e-3;
  Index warm_up = 0;  ///< steps
  Index steps = 0;    ///< of the whole run, warm-up included
  double last = 0;    ///< rate at step `steps`

  double rate(Index step) const {
    if (step < warm_up) return peak * static_cast<double>(step + 1) / static_cast<double>(warm_up);
    const Index falling = std::max<Index>(steps - warm_up, 1);
    const double u = std::min(1.0, static_cast<double>(step - warm_up) / static_cast<double>(falling));
    switch (decay) {
      case Decay::linear: return peak * (1 - u) + last * u;
      case Decay::cosine: return last + (peak - last) * (1 + std::cos(3.14159265358979323846 * u)) / 2;
      case Decay::constant: break;
    }
    return peak;
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
