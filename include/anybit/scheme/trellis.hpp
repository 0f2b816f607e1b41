#pragma once
// A trellis code as a scheme: tiles of 16 x 16 weights, each a loop of a bitshift trellis, times scales of rows or groups. See
// docs/methods/trellis.md. Readable twin: reference/trellis.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include <anybit/scheme/concepts.hpp>
#include <anybit/scheme/granularity.hpp>
#include <anybit/scheme/scale_store.hpp>
#include <anybit/scheme/scheme.hpp>
#include <anybit/scheme/trellis_code.hpp>
#include <anybit/scheme/trellis_codebooks.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

namespace section_tags {
inline constexpr SectionTag trellis{'t', 'r', 'e', 'l'};
}

/// A weight is scale * value(state). Tiles follow each other along the columns, then along the rows; those at the edges are
/// whole, whatever stands beyond the matrix. A step makes step_weights_v<Book> neighbouring weights of a row; the steps of a
/// tile go down its rows first, so that 16 states in a row belong to 16 rows, or, with a LinearCodebook, through four columns of
/// each row, so that 64 states are bytes of 16 rows as dot products want them. K bits a step are K / step_weights_v<Book> bits a
/// weight.
template <int L, int K, TrellisCodebook Book, Granularity G = PerRow, ScaleStore S = ScaleF16>
struct Trellis {
  static constexpr Index tile = 16, step_weights = step_weights_v<Book>, steps = tile * tile / step_weights;
  static_assert(tile % step_weights == 0, "anybit: the weights of a trellis' step are a divisor of 16");
  static_assert(G::group_cols(tile) % tile == 0, "anybit: groups of a trellis are a multiple of 16 columns, or rows");

  using code = BitshiftTrellis<L, K>;
  using codebook = Book;
  using granularity = G;
  using scale_store = S;
  static constexpr auto name =
      "trellis" + decimal<L>() + "k" + decimal<K>() + "/" + fixed_name<Book>() + "/" + fixed_name<G>() + "/" + fixed_name<S>();

  static constexpr Index tile_bytes = code::bytes(steps);
  static constexpr Index tiles_per_row(Extents e) { return ceil_div(e.cols, tile); }
  /// The place of the tile at (row, col), in tiles.
  static constexpr Index tile_at(Extents e, Index row, Index col) { return row / tile * tiles_per_row(e) + col / tile; }
  static constexpr std::array<SectionSize, 2> sections(Extents e) {
    return {{{section_tags::trellis, ceil_div(e.rows, tile) * tiles_per_row(e) * tile_bytes},
             {section_tags::scales, S::bytes(G::count(e))}}};
  }
  /// The step, and the weight of that step, that the weight (row, col) of a tile belongs to.
  static constexpr Index step_of(Index row, Index col) {
    return LinearCodebook<Book> ? col / 4 * (4 * tile) + 4 * row + col % 4 : col / step_weights * tile + row;
  }

  static constexpr Index granule_rows = tile, granule_cols = tile;
  static ANYBIT_INLINE void decode(Sections s, Extents e, Index row, Index col, float* out) {
    std::uint16_t states[static_cast<std::size_t>(steps)];
    code::read(s[0].data() + tile_at(e, row, col) * tile_bytes, states);
    const auto& table = trellis_table<Book, L>();
    const Index rows = std::min(tile, e.rows - row), group = col / G::group_cols(e.cols);
    for (Index r = 0; r < tile; ++r) {
      float scale = 0;
      if (r < rows) S::load(s[1].data(), G::count(e), G::index(e, row + r, group), {&scale, 1});
      for (Index c = 0; c < tile; ++c)
        out[r * tile + c] = scale * table[static_cast<std::size_t>(states[step_of(r, c)] * step_weights + c % step_weights)];
    }
  }
};

template <class S>
constexpr bool is_trellis_v = false;
template <int L, int K, class Book, class G, class Store>
constexpr bool is_trellis_v<Trellis<L, K, Book, G, Store>> = true;
template <class S>
concept TrellisScheme = is_trellis_v<S>;

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
