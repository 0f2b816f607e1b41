#pragma once
// Compute::int8_folded: in tiles of the kernel layout the scales of a row's groups are folded into its levels as they are
// decoded,
//   byte = round(level * scale of the group / step of the row), |byte| <= 128,
// and sums run through groups: one conversion to float for each chunk of 512 columns (matrix_activations.hpp).

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include <anybit/core/half.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/tiled_weights.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

struct FoldedTiles {
  Index rows = 0, tiles = 0;            ///< that are folded
  std::vector<std::uint8_t> is_folded;  ///< of each tile
  std::vector<std::int16_t> factors;    ///< scale / step * 2^7 of each tile, segment and row
  TiledWeights chunks;                  ///< a row as chunks: one segment each, codes of 8 bits in no memory of its own
  std::vector<std::int32_t> segments;   ///< of each chunk
  std::vector<float> steps;             ///< of each tile, chunk (all the same) and row

  const std::int16_t* factors_of(const TiledWeights& w, Index tile, Index segment) const {
    return factors.data() + (tile * w.segments() + segment) * tile_rows;
  }
  const float* steps_of(Index tile, Index chunk) const { return steps.data() + (tile * chunks.segments() + chunk) * tile_rows; }
};

namespace detail {

inline constexpr int fold_bits = 7;

/// The byte of a level.
constexpr int folded_byte(int level, int factor) {
  return std::clamp((level * factor + (1 << (fold_bits - 1))) >> fold_bits, -128, 127);
}

/// Lines of one segment of a tile, 16 rows by 4 columns of u, become folded bytes, plus `bias`; `zeros` are what u lacks to a
/// level.
template <class Arch>
void fold_lines(const std::int16_t* factors, const std::int32_t* zeros, int bias, Index lines, std::byte* line) {
  if constexpr (requires { typename Arch::Fold; }) {
    const typename Arch::Fold fold(factors, zeros, bias);
    for (Index k = 0; k < lines; ++k, line += line_bytes) {
      auto* bytes = reinterpret_cast<std::uint8_t*>(line);
      Arch::store_bytes(bytes, fold(Arch::load_bytes(bytes)));
    }
  } else {
    for (Index k = 0; k < lines; ++k, line += line_bytes)
      for (Index i = 0; i < line_bytes; ++i)
        line[i] = static_cast<std::byte>(
            static_cast<std::uint8_t>(folded_byte(std::to_integer<int>(line[i]) - zeros[i / 4], factors[i / 4]) + bias));
  }
}

/// The zero points of a tile's segment, or what takes their place.
inline void read_zeros(const TiledWeights& w, const std::byte* tile, Index segment, std::int32_t* zeros) {
  const std::byte* stored = tile + w.zeros_at() + segment * tile_rows;
  for (Index r = 0; r < tile_rows; ++r) zeros[r] = w.zero_points ? std::to_integer<std::int32_t>(stored[r]) : -w.lowest;
}

/// The scale of a row's segment.
inline float read_scale(const TiledWeights& w, const std::byte* tile, Index segment, Index row) {
  const std::byte* stored = tile + segment * w.scale_bytes() + row * (w.half_scales ? 2 : 4);
  float scale;
  if (w.half_scales) {
    std::uint16_t half;
    std::memcpy(&half, stored, 2);
    scale = f16_to_f32(half);
  } else {
    std::memcpy(&scale, stored, 4);
  }
  return scale * w.factor;
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
