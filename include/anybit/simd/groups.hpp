#pragma once
// Groups of weights along a row, as vector code walks over them.

#include <anybit/core/types.hpp>

namespace anybit::simd {
inline namespace ANYBIT_ABI {

/// Runs of weights that share a scale: `first` of them, then `size`, `size` .. up to the end.
struct Groups {
  const float* scales;
  const float* zeros;  ///< null: all 0
  Index first, size;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::simd
