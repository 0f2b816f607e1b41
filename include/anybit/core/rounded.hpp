#pragma once
// Products that stay rounded: where bytes are prescribed, a compiler must not fuse a product into the sum that it is a term of
// (-ffp-contract, on by default for instruction sets that have a fused multiply-add).

#include <anybit/core/config.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// `x`, which the compiler takes as a value of unknown origin.
inline float rounded(float x) {
#if defined(__GNUC__)
  asm("" : "+m"(x));
#endif
  return x;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit
