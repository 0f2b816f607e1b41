#pragma once
// Index, Code, Extents and Affine: the small types that every folder speaks.

#include <cstddef>
#include <cstdint>

#include <anybit/core/config.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Signed, as in Eigen: differences of indices are ordinary numbers.
using Index = std::ptrdiff_t;

/// One quantized value; the low `Format::bits` bits are significant, the others zero.
using Code = std::uint16_t;

/// Shape of a weight matrix: rows = outputs, cols = inputs (as PyTorch stores `nn.Linear.weight`).
struct Extents {
  Index rows = 0, cols = 0;
  constexpr Index size() const { return rows * cols; }
  friend constexpr bool operator==(Extents, Extents) = default;
};

/// Shared by the values of one group: value = scale * (level - zero). `zero` is in units of levels; it is 0 for formats
/// without a zero point and a whole number in [0, 2^bits) for those with one, so that the product is rounded only once.
struct Affine {
  float scale = 1, zero = 0;
  friend constexpr bool operator==(Affine, Affine) = default;
};

constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }
constexpr Index round_up(Index a, Index multiple) { return ceil_div(a, multiple) * multiple; }

}  // namespace ANYBIT_ABI
}  // namespace anybit
