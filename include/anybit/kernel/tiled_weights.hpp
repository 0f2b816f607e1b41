#pragma once
// The kernel layout of weights that multiply in integers: made from packed bytes at load, never written to a file.
//
// Sixteen rows make a tile. A tile is contiguous in memory:
//   scales   of segment 0 (activations.hpp) for the 16 rows, of segment 1, .. as f16 where the scheme stores them so, else as f32
//   zeros    likewise, one byte each, only in formats with a zero point
//   codes    from the next multiple of 64 bytes on, segment after segment, each in whole units of lines (tile_format.hpp). A code
//            is the byte u = level / step - lowest in the fewest bits, or, where it takes more bits than the format's own code,
//            that one, to be looked up in a table. A step holds 4 consecutive columns of row 0, of row 1, .. of row 15. Columns
//            past the end of a segment have code 0, as do rows past the last.
//
// One vector of codes thus serves 16 rows, codes start at multiples of 64 bytes, and consecutive tiles are read as one
// stream without gaps: scales are few, so all are prefetched before the first code is used.

#include <memory>
#include <vector>

#include <anybit/core/types.hpp>
#include <anybit/core/view.hpp>
#include <anybit/core/weight_buffer.hpp>
#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/tile_format.hpp>
#include <anybit/tensor/level_grid.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

inline constexpr Index tile_rows = 16;

struct FoldedTiles;
/// Added to the bytes of folded tiles where bytes multiply unsigned.
inline constexpr std::int32_t folded_bias = 128;

/// Moved, not copied: tiles are read where they were made.
struct TiledWeights {
  TiledWeights() = default;
  TiledWeights(TiledWeights&&) = default;
  TiledWeights& operator=(TiledWeights&&) = default;

  Extents extents;
  Index group = 1, segment_cols = 1;  ///< of the scheme; segment_columns() of it
  int bits = 8;                       ///< of a stored code
  int max_byte = 255;                 ///< no u is larger
  bool half_scales = false;           ///< f16, else f32
  bool zero_points = false;
  float factor = 1;                 ///< multiplies the stored scales: the step
  std::int32_t lowest = 0;          ///< level / step = u + lowest; 0 with zero points
  ByteTable table;                  ///< from codes to u, where codes are the format's own
  std::vector<std::int32_t> steps;  ///< of each segment of a row: its columns / 4, rounded up to units
  Index all_steps = 0;
  const std::byte* start = nullptr;  ///< of tile 0, at a multiple of 64
  WeightBuffer memory;               ///< of the tiles, unless they are in the caller's
  /// The product for this width: rows begin .. end - 1 of y(token, row). Allocates nothing.
  void (*rows)(const TiledWeights&, const TiledActivations&, MutableMatrix y, Index begin, Index end) = nullptr;

  /// Of Compute::int8_folded: what the scales of groups are folded into, and the product with it (folded_tiles.hpp). `exact` and
  /// `folded` are the activations for tiles that are folded not and those that are, null if there are none. Null otherwise.
  std::shared_ptr<const FoldedTiles> folded;
  void (*folded_rows)(const TiledWeights&, const TiledActivations* exact, const TiledActivations* folded, MutableMatrix y,
                      Index begin, Index end) = nullptr;

  Index segments() const { return static_cast<Index>(steps.size()); }
  Index tiles() const { return ceil_div(extents.rows, tile_rows); }
  Index step_bytes() const { return 8 * bits; }
  Index scale_bytes() const { return half_scales ? 2 * tile_rows : 4 * tile_rows; }
  /// From the start of a tile.
  Index zeros_at() const { return segments() * scale_bytes(); }
  Index codes_at() const { return round_up(zeros_at() + (zero_points ? segments() * tile_rows : 0), line_bytes); }
  Index tile_bytes() const { return codes_at() + all_steps * step_bytes(); }
  Index bytes() const { return tiles() * tile_bytes(); }
  const std::byte* tile(Index i) const { return start + i * tile_bytes(); }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
