#pragma once
// Shared by the laws of testing/: violations as text, and values to try.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/types.hpp>

namespace anybit::testing {
inline namespace ANYBIT_CODE {

/// The result of a law: the first violation that it finds, with the values that show it, or an empty text if it holds.
using Violation = std::string;

inline std::string shown(double v) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", v);
  return text;
}

/// Numbers that are the same in every run and on every machine (splitmix64).
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) : state_(seed) {}
  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  /// In [low, high).
  float uniform(float low, float high) { return low + (high - low) * (static_cast<float>(bits() >> 40) * 0x1p-24f); }
  /// 0 .. n - 1.
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(bits() % n); }
  /// Mean 0, variance 1 (sum of twelve).
  float normal() {
    float sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform(0, 1);
    return sum;
  }

 private:
  std::uint64_t state_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::testing
