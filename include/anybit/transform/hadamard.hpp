#pragma once
// The Walsh-Hadamard transform: an orthogonal matrix that spreads an outlier evenly over all coordinates.

#include <bit>
#include <cmath>
#include <span>

#include <anybit/core/types.hpp>

namespace anybit::inline ANYBIT_CODE {

/// v = H v / sqrt(n) in place, H the Sylvester matrix; n a power of two. Its own inverse, and it keeps dot products. n log2 n
/// additions.
inline void hadamard(std::span<float> v) {
  const std::size_t n = v.size();
  ANYBIT_CHECK(std::has_single_bit(n), "hadamard: the length is no power of two");
  float* const x = v.data();
  const auto butterflies = [ n, x ](std::size_t half) __attribute__((always_inline)) {
    for (std::size_t block = 0; block < n; block += 2 * half)
      for (std::size_t i = block; i < block + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
  };
  // Constant widths first: compilers unroll and vectorize what lies within a vector.
  std::size_t half = 1;
  if (n >= 16) butterflies(1), butterflies(2), butterflies(4), butterflies(8), half = 16;
  for (; half < n; half *= 2) butterflies(half);
  const float scale = 1.0f / std::sqrt(static_cast<float>(n));
  for (std::size_t i = 0; i < n; ++i) x[i] *= scale;
}

}  // namespace anybit::inline ANYBIT_CODE
