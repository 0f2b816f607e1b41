#pragma once
// The kernel layout of weights that multiply in integers: made from packed bytes at load, never written to a file.
//
// Rows stand in tiles of 16. A tile is one stretch of memory: segment after segment (activations.hpp), each as
//   codes    of 4 consecutive columns of row 0, of row 1, .. row 15; then of the next 4 columns. A code is the byte
//            u = level - lowest in the fewest bits, LSB first, so that 64 codes fill a vector whatever their width.
//            A segment of n columns has ceil(n / 4) such steps; columns past its end have u = 0, as do rows past the last.
//   scales   of the 16 rows, as f16 where the scheme stores them so, else as f32
//   zeros    of the 16 rows, one byte each, only in formats with a zero point
// One vector of codes thus serves 16 rows, and a tile is read from its begin to its end.

#include <vector>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/types.hpp>
#include <anybit/core/view.hpp>
#include <anybit/kernel/activations.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

inline constexpr Index tile_rows = 16;

struct TiledActivations;

struct TiledWeights {
  Extents extents;
  Index group = 1;
  int bits = 8;              ///< of a stored u
  bool half_scales = false;  ///< f16, else f32
  bool zero_points = false;
  float factor = 1;                 ///< multiplies the stored scales: the format's step
  std::int32_t lowest = 0;          ///< level = u + lowest; 0 with zero points
  std::vector<std::int32_t> steps;  ///< of each segment of a row: its columns / 4, rounded up
  Index tile_bytes = 0;
  AlignedBuffer memory;
  /// The product for this width: rows begin .. end - 1 of y(token, row). Allocates nothing.
  void (*rows)(const TiledWeights&, const TiledActivations&, MutableMatrix y, Index begin, Index end) = nullptr;

  /// What sums of activations are multiplied by before products with these weights.
  std::int32_t sum_factor() const { return zero_points ? 1 : lowest; }
  Index tiles() const { return ceil_div(extents.rows, tile_rows); }
  Index step_bytes() const { return 8 * bits; }
  Index scale_bytes() const { return half_scales ? 2 * tile_rows : 4 * tile_rows; }
  Index tail_bytes() const { return scale_bytes() + (zero_points ? tile_rows : 0); }
  const std::byte* tile(Index i) const { return memory.data() + i * tile_bytes; }
};

}  // namespace anybit::kernel::inline ANYBIT_CODE
