#pragma once
// y = x W^T with rounded activations and tiled weights. Few tokens or few bits: codes are decoded in registers, several tiles
// at a time, or one tile for one token, at the bandwidth of memory. Many tokens and many bits: a few tiles are
// decoded into a panel once and multiplied with every token, where there are matrix instructions by those
// (matrix_products.hpp). Either way a value has the bits of int8_rows.
// The loops do not depend on the width and are compiled once.

#include <anybit/core/macros_begin.hpp>

#include <anybit/kernel/matrix_products.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// Where tiles `tile` .. tile + count - 1 start. Instead of those past row `end` the last one comes again, and what it gives is
/// not kept: kernels for fewer tiles, which would only serve a matrix's last rows, are not compiled.
inline void find_tiles(const TiledWeights& w, Index tile, Index count, Index end, const std::byte** starts) {
  for (Index m = 0; m < count; ++m) starts[m] = w.tile(std::min(tile + m, (end - 1) / tile_rows));
}

/// Rows begin .. end - 1 of the tiles from `tile` on, tokens token .. token + tokens - 1 of y.
inline void tiles_to_y(const TileProducts& products, const TiledWeights& w, const TileTask& task, MutableMatrix y, Index tile,
                       Index token, Index tokens, Index begin, Index end) {
  const auto [multiply, tiles] = products.of[std::countr_zero(static_cast<std::size_t>(tokens))];
  const Index row = tile * tile_rows, from = std::max(begin, row), to = std::min(end, row + tiles * tile_rows);
  if (from == row && to == row + tiles * tile_rows) return multiply(w, task, y.data + token * y.stride + row, y.stride);
  constexpr Index stride = TileProducts::most_tiles * tile_rows;
  alignas(64) float some[static_cast<std::size_t>(TileProducts::most_tokens * stride)];
  const auto bytes = static_cast<std::size_t>(to - from) * sizeof(float);
  const auto in_y = [&](Index t) { return y.data + (token + t) * y.stride + from; };
  const auto in_some = [&](Index t) { return some + t * stride + (from - row); };
  for (Index t = 0; t < tokens && task.first > 0; ++t) std::memcpy(in_some(t), in_y(t), bytes);
  multiply(w, task, some, stride);
  for (Index t = 0; t < tokens; ++t) std::memcpy(in_y(t), in_some(t), bytes);
}

/// Calls use(first token, tokens) for each group of tiled activations.
template <class Use>
inline void each_group(Index tokens, Index token_group, Use&& use) {
  for (Index token = 0, group = token_group; token < tokens; token += group) {
    while (group > tokens - token) group /= 2;
    use(token, group);
  }
}

/// Straight from the lines, whole rows at once.
[[gnu::noinline]] inline void direct_rows(const TileProducts& products, Index token_group, const TiledWeights& w,
                                          const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  each_group(x.tokens, token_group, [&](Index token, Index tokens) {
    const Index tiles = products.of[std::countr_zero(static_cast<std::size_t>(tokens))].tiles;
    for (Index tile = begin / tile_rows; tile * tile_rows < end; tile += tiles) {
      const std::byte *starts[TileProducts::most_tiles], *codes[TileProducts::most_tiles];
      find_tiles(w, tile, tiles, end, starts);
      for (Index m = 0; m < tiles; ++m) codes[m] = starts[m] + w.codes_at();
      const TileTask task{0,
                          w.segments(),
                          starts,
                          codes,
                          x.codes + token * x.stride,
                          x.starts + token * x.segments,
                          x.scales + token,
                          x.blocks ? x.blocks + token * x.segments : nullptr,
                          true};
      tiles_to_y(products, w, task, y, tile, token, tokens, begin, end);
    }
  });
}
template <class Arch, class Codes>
void tiled_rows_direct(const TiledWeights& w, const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  direct_rows(tile_products_of<Arch, Codes, Arch::ahead, 0>, Arch::token_group, w, x, y, begin, end);
}

/// By way of a panel of segments, decoded once.
template <class Arch>
[[gnu::noinline]] void blocked_rows(const TileProducts& products,
                                    void (*decode)(const TiledWeights&, const std::byte*, Index, std::byte*),
                                    const TiledWeights& w, const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  // Two panels leave room in a second-level cache. Fewer, longer ones would read and write y less often.
  constexpr Index most_steps = 512;
  static_assert(most_steps >= max_segment / 4 + 8);
  constexpr Index tiles = Arch::blocked_tiles;
  const Index segments = w.segments(), in_unit = unit_steps(w.bits);
  constexpr auto count = static_cast<std::size_t>(tiles);
  alignas(64) std::byte bytes[count][static_cast<std::size_t>(line_bytes * most_steps)];
  const std::byte *starts[count], *panels[count];
  for (Index m = 0; m < tiles; ++m) panels[m] = bytes[m];
  for (Index tile = begin / tile_rows; tile * tile_rows < end; tile += tiles) {
    find_tiles(w, tile, tiles, end, starts);
    Index at = w.codes_at(), step = 0;
    for (Index first = 0, last = 0; first < segments; first = last) {
      Index steps = 0;
      for (; last < segments && steps + w.steps[static_cast<std::size_t>(last)] <= most_steps; ++last)
        steps += w.steps[static_cast<std::size_t>(last)];
      for (Index m = 0; m < tiles; ++m) decode(w, starts[m] + at, steps / in_unit, bytes[m]);
      at += steps * w.step_bytes();
      const bool done = last == segments;
      // What the next panels are made of comes in while these are in use, a slice for every group of tokens.
      const Index next = done ? tiles * w.tile_bytes() : at;
      const Index slice = round_up(steps * w.step_bytes() * Arch::token_group / x.tokens, line_bytes);
      each_group(x.tokens, Arch::token_group, [&](Index token, Index tokens) {
        if constexpr (Arch::ahead > 0)
          for (Index m = 0; m < tiles; ++m)
            for (Index line = 0; line < slice; line += line_bytes)
              __builtin_prefetch(starts[m] + next + token / Arch::token_group * slice + line);
        const TileTask task{first,
                            last,
                            starts,
                            panels,
                            x.codes + token * x.stride + 4 * tokens * step,
                            x.starts + token * x.segments + tokens * first,
                            x.scales + token,
                            x.blocks ? x.blocks + token * x.segments + tokens * first : nullptr,
                            done};
        tiles_to_y(products, w, task, y, tile, token, tokens, begin, end);
      });
      step += steps;
    }
  }
}
template <class Arch, class Codes>
void tiled_rows_blocked(const TiledWeights& w, const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  constexpr int max_byte = same_products<Arch>(Codes::max_byte);
  blocked_rows<Arch>(tile_products_of<Arch, TileCodes<8, max_byte>, 0, Arch::blocked_tiles>, &decode_units<Arch, Codes>, w, x, y,
                     begin, end);
}

}  // namespace detail

/// Rows begin .. end - 1 of weights with at least one column: y(token, row). Allocates nothing. Codes must be what w holds.
template <class Codes, class Arch = native_arch>
void tiled_rows(const TiledWeights& w, const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  if constexpr (detail::has_matrix<Arch>)
    if (x.by_matrix) return detail::matrix_rows<Arch>(w, &detail::decode_units<Arch, Codes>, x, y, begin, end);
  if constexpr (Codes::bits > Arch::direct_bits)
    if (x.tokens > Arch::direct_tokens) return detail::tiled_rows_blocked<Arch, Codes>(w, x, y, begin, end);
  detail::tiled_rows_direct<Arch, Codes>(w, x, y, begin, end);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
