#pragma once
// Dot products of Superfloats in integers, bit for bit as arrays of multipliers compute them: how a product of two Q0.m numbers
// loses its lower m bits, and what the accumulator does when a sum leaves its range.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <anybit/core/types.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_ABI {

/// The lower bits of a product, or of a sum of whole products.
enum class Narrow : std::uint8_t {
  nearest,   ///< ties to even
  truncate,  ///< toward zero: sign and magnitude apart
  floor,     ///< arithmetic shift
};

enum class Accumulator : std::uint8_t {
  whole_products,       ///< products keep all bits, the sum is narrowed once and saturated to +-(2^m - 1)
  wrap24,               ///< narrowed products in 24 bits that wrap, saturated to 16 bits when read
  saturate16,           ///< saturated to [-32768, 32767] after every product
  saturate16_symmetric  ///< saturated to [-32767, 32767] after every product
};

struct FixedPoint {
  int bits = 16;  ///< of the operands; m = bits - 1
  Narrow narrow = Narrow::truncate;
  Accumulator accumulator = Accumulator::saturate16;
  /// -2^m, whose magnitude does not fit m bits, counts as 0, as in the published multiplier.
  bool lowest_is_zero = true;
  /// Partial products in columns below this one are left out and their mean is added (truncated multipliers); 0: none are.
  int dropped_columns = 0;

  /// x 2^-m.
  std::int64_t narrowed(std::int64_t x) const {
    const int m = bits - 1;
    if (narrow == Narrow::floor) return x >> m;
    const std::int64_t magnitude = std::abs(x), whole = magnitude >> m, rest = magnitude & ((std::int64_t{1} << m) - 1);
    const std::int64_t half = std::int64_t{1} << (m - 1);
    const bool up = narrow == Narrow::nearest && (rest > half || (rest == half && (whole & 1) != 0));
    return x < 0 ? -(whole + up) : whole + up;
  }

  /// a b 2^-m, not saturated.
  std::int64_t multiply(std::int32_t a, std::int32_t b) const {
    const std::int32_t lowest = -(1 << (bits - 1));
    if (lowest_is_zero && (a == lowest || b == lowest)) return 0;
    if (dropped_columns == 0) return narrowed(std::int64_t{a} * b);
    const std::uint64_t x = static_cast<std::uint64_t>(std::abs(a)), y = static_cast<std::uint64_t>(std::abs(b));
    std::uint64_t kept = 0;
    for (int i = 0; i < bits - 1; ++i)
      for (int j = std::max(0, dropped_columns - i); j < bits - 1; ++j) kept += (((x >> i) & 1) & ((y >> j) & 1)) << (i + j);
    const auto k = static_cast<std::uint64_t>(dropped_columns);
    const std::int64_t product = static_cast<std::int64_t>((kept + (((k - 1) << k) + 1) / 4) >> (bits - 1));
    return (a < 0) != (b < 0) ? -product : product;
  }

  /// The accumulator behind one more product.
  std::int64_t add(std::int64_t sum, std::int64_t product) const {
    sum += product;
    switch (accumulator) {
      case Accumulator::wrap24:
        return static_cast<std::int64_t>(static_cast<std::int32_t>(static_cast<std::uint32_t>(sum) << 8) >> 8);
      case Accumulator::saturate16: return std::clamp<std::int64_t>(sum, -32768, 32767);
      case Accumulator::saturate16_symmetric: return std::clamp<std::int64_t>(sum, -32767, 32767);
      case Accumulator::whole_products: break;
    }
    return sum;
  }

  /// sum of a_i b_i in their order; the result is a number of the operands' format.
  std::int32_t dot(std::span<const std::int16_t> a, std::span<const std::int16_t> b) const {
    ANYBIT_CHECK(a.size() == b.size(), "FixedPoint::dot: lengths differ");
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      sum = accumulator == Accumulator::whole_products ? sum + std::int64_t{a[i]} * b[i] : add(sum, multiply(a[i], b[i]));
    return read(sum);
  }

  /// What leaves the accumulator.
  std::int32_t read(std::int64_t sum) const {
    if (accumulator == Accumulator::whole_products) {
      const std::int64_t most = (std::int64_t{1} << (bits - 1)) - 1;
      return static_cast<std::int32_t>(std::clamp(narrowed(sum), -most, most));
    }
    return static_cast<std::int32_t>(std::clamp<std::int64_t>(sum, -32768, 32767));
  }
};

/// Sign and magnitude in 16 bits, as the array of 2026 stores operands; "negative zero" is 0.
constexpr std::int32_t from_sign_magnitude(std::uint16_t code) {
  const std::int32_t magnitude = code & 0x7FFF;
  return code >> 15 ? -magnitude : magnitude;
}
constexpr std::uint16_t to_sign_magnitude(std::int32_t k) { return static_cast<std::uint16_t>(k < 0 ? 0x8000 | -k : k); }

/// The unit behind the array: sat(sum + bias), then nothing, ReLU, or a leak of 1/128 rounded down.
enum class OutputActivation : std::uint8_t { none, relu, leaky };
constexpr std::int32_t output_unit(std::int32_t sum, std::int32_t bias, OutputActivation activation) {
  const std::int32_t x = std::clamp(sum + bias, -32768, 32767);
  if (x >= 0 || activation == OutputActivation::none) return x;
  return activation == OutputActivation::relu ? 0 : x >> 7;
}

}  // namespace ANYBIT_ABI
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
