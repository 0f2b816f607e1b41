#pragma once
// Matrices and schemes that the tests of tensor/ share.

#include <anybit/core/matrix.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/scheme/scale_e5m3.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

namespace examples {

using anybit::Index;

/// Weights that are the same on every machine: whole-number arithmetic and exact scaling only.
inline anybit::Matrix weights(anybit::Extents e, std::uint32_t seed) {
  anybit::Matrix w(e.rows, e.cols);
  std::uint32_t state = seed * 2654435761u + 1;
  for (Index i = 0; i < e.size(); ++i) {
    std::int32_t sum = 0;  // of four uniform numbers: bell-shaped
    for (int k = 0; k < 4; ++k) {
      state = state * 1664525u + 1013904223u;
      sum += static_cast<std::int32_t>(state >> 20) - 2048;
    }
    w.data()[i] = static_cast<float>(sum) * 0x1p-16f;
  }
  return w;
}

/// Shapes with ragged groups, single rows and columns, and nothing.
inline const std::vector<anybit::Extents> shapes{{1, 1},   {1, 7},   {3, 1}, {5, 31}, {4, 64}, {3, 130},
                                                 {2, 257}, {7, 300}, {0, 5}, {4, 0},  {0, 0}};

using anybit::Scheme;
/// Every format, granularity, scale store and layout at least once, odd group sizes among them.
using Schemes = anybit::TypeList<
    Scheme<anybit::Superfloat<1>>, Scheme<anybit::Superfloat<2>, anybit::PerGroup<32>>,
    Scheme<anybit::Superfloat<3>, anybit::PerGroup<7>>, Scheme<anybit::Superfloat<4>, anybit::PerRow, anybit::ScaleF32>,
    Scheme<anybit::Superfloat<5>>, Scheme<anybit::Superfloat<6>, anybit::PerGroup<100>, anybit::ScaleBF16>,
    Scheme<anybit::Superfloat<7>, anybit::PerTensor, anybit::ScaleF32>, Scheme<anybit::Superfloat<8>>,
    Scheme<anybit::Superfloat<9>>, Scheme<anybit::Superfloat<12>, anybit::PerGroup<33>>,
    Scheme<anybit::Superfloat<16>, anybit::PerRow>, Scheme<anybit::SuperfloatPublished<8>, anybit::PerTensor, anybit::NoScale>,
    Scheme<anybit::SInt<1>>, Scheme<anybit::SInt<2>, anybit::PerGroup<64>>, Scheme<anybit::SInt<3>>, Scheme<anybit::SInt<4>>,
    Scheme<anybit::SInt<8>, anybit::PerRow, anybit::ScaleF32>, Scheme<anybit::SInt<11>>,
    Scheme<anybit::UInt<1>, anybit::PerGroup<16>>, Scheme<anybit::UInt<2>, anybit::PerGroup<32>, anybit::ScaleE5M3>,
    Scheme<anybit::UInt<3>, anybit::PerGroup<1>>, Scheme<anybit::UInt<4>, anybit::PerGroup<32>>,
    Scheme<anybit::UInt<5>, anybit::PerTensor>, Scheme<anybit::UInt<8>, anybit::PerRow>, Scheme<anybit::UInt<10>>,
    Scheme<anybit::Nf4, anybit::PerGroup<64>, anybit::DoubleQuant<256>>,
    Scheme<anybit::Fp4, anybit::PerGroup<64>, anybit::ScaleF32>,
    Scheme<anybit::Minifloat<2, 1>, anybit::PerGroup<32>, anybit::ScaleE8M0>, Scheme<anybit::Minifloat<4, 3>>,
    Scheme<anybit::Minifloat<5, 2>>, Scheme<anybit::Minifloat<3, 2>>,
    Scheme<anybit::Ternary, anybit::PerTensor, anybit::ScaleF32, anybit::Base3>,
    Scheme<anybit::Ternary, anybit::PerGroup<128>, anybit::ScaleF16, anybit::Base3>, Scheme<anybit::Ternary>>;

}  // namespace examples
