#pragma once
// y = x W^T with rounded activations and tiles whose scales are folded: a chunk of two tiles is decoded and folded into a panel
// once and multiplied with every token. By vectors and by matrix instructions a value has the same bits.

#include <anybit/core/macros_begin.hpp>

#include <anybit/kernel/folded_tiles.hpp>
#include <anybit/kernel/matrix_products.hpp>
#include <anybit/kernel/tiled_products.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// Rows of one kind of tile, all folded, by vectors.
template <class Arch>
[[gnu::noinline]] void folded_blocks(const TileProducts& products, DecodeUnits decode, const TiledWeights& w,
                                     const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  const FoldedTiles& f = *w.folded;
  constexpr Index tiles = Arch::blocked_tiles, most_steps = chunk_blocks * matrix_steps;
  constexpr auto count = static_cast<std::size_t>(tiles);
  alignas(64) std::byte bytes[count][static_cast<std::size_t>(most_steps * line_bytes)];
  const std::byte *starts[count], *panels[count], *steps_at[count];
  for (std::size_t m = 0; m < count; ++m) panels[m] = bytes[m];
  for (Index tile = begin / tile_rows; tile * tile_rows < end; tile += tiles) {
    find_tiles(w, tile, tiles, end, starts);
    Index at = w.codes_at(), segment = 0, step = 0;
    for (Index chunk = 0; chunk < f.chunks.segments(); ++chunk) {
      const Index last = segment + f.segments[static_cast<std::size_t>(chunk)],
                  steps = f.chunks.steps[static_cast<std::size_t>(chunk)];
      for (std::size_t m = 0; m < count; ++m) {
        const Index here = std::min(tile + static_cast<Index>(m), (end - 1) / tile_rows);
        decode(w, starts[m] + at, steps / unit_steps(w.bits), bytes[m]);
        std::byte* line = bytes[m];
        for (Index s = segment; s < last; ++s) {
          std::int32_t zeros[static_cast<std::size_t>(tile_rows)];
          read_zeros(w, starts[m], s, zeros);
          const Index lines = w.steps[static_cast<std::size_t>(s)];
          fold_lines<Arch>(f.factors_of(w, here, s), zeros, folded_bias, lines, line);
          line += lines * line_bytes;
        }
        steps_at[m] = reinterpret_cast<const std::byte*>(f.steps_of(here, 0));
      }
      at += steps * w.step_bytes();
      each_group(x.tokens, Arch::token_group, [&](Index token, Index tokens) {
        const TileTask task{chunk,
                            chunk + 1,
                            steps_at,
                            panels,
                            x.codes + token * x.stride + 4 * tokens * step,
                            x.starts + token * x.segments + tokens * chunk,
                            x.scales + token,
                            nullptr,
                            chunk + 1 == f.chunks.segments()};
        tiles_to_y(products, f.chunks, task, y, tile, token, tokens, begin, end);
      });
      step += steps, segment = last;
    }
  }
}

}  // namespace detail

/// Rows begin .. end - 1 by weights that have folded tiles.
template <class Codes, class Arch = native_arch>
void folded_tiled_rows(const TiledWeights& w, const TiledActivations* exact, const TiledActivations* folded, MutableMatrix y,
                       Index begin, Index end) {
  for (Index stop; begin < end; begin = stop) {
    const auto kind = [&w](Index row) { return w.folded->is_folded[static_cast<std::size_t>(row / tile_rows)]; };
    for (stop = begin; stop < end && kind(stop) == kind(begin);) stop = std::min(end, (stop / tile_rows + 1) * tile_rows);
    if (kind(begin) == 0) {
      tiled_rows<Codes, Arch>(w, *exact, y, begin, stop);
      continue;
    }
    if constexpr (detail::has_matrix<Arch>)
      if (folded->by_matrix) {
        detail::matrix_rows<Arch>(w, &detail::decode_units<Arch, Codes>, *folded, y, begin, stop, w.folded.get());
        continue;
      }
    constexpr int max_byte = detail::same_products<Arch>(255);
    detail::folded_blocks<Arch>(detail::tile_products_of<Arch, TileCodes<8, max_byte>, 0, Arch::blocked_tiles>,
                                &detail::decode_units<Arch, Codes>, w, *folded, y, begin, stop);
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
