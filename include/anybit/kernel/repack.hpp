#pragma once
// From packed bytes to the kernel layout, once at load, and products from it.

#include <optional>

#include <anybit/kernel/matmul.hpp>
#include <anybit/kernel/tiled_products.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

/// What tiles hold of a format that multiplies in integers: u, or its own codes where they are shorter.
template <Format F>
  requires(has_integer_dot_v<F>)
using tile_codes_t = std::conditional_t<level_bits_v<F> <= F::bits, TileCodes<level_bits_v<F>>,
                                        TileCodes<F::bits, (1 << level_bits_v<F>)-1, true>>;

namespace detail {

/// The codes themselves, for tiles with a table.
template <AnyScheme S>
inline void decode_codes(const void* tensor, Index row, Index first, Index n, std::uint8_t* out) {
  Codes<S> codes;
  codes.read(tensor_of<S>(tensor), row, first, n);
  std::memcpy(out, codes.data(), static_cast<std::size_t>(n));
}

/// Tiles of `Stored` with levels on this grid.
template <class Stored, AnyScheme S, Executor E>
TiledWeights tile(const PackedTensor<S>& t, Compute compute, const LevelGrid& grid, const ByteTable& table, E&& executor) {
  constexpr int bits = Stored::bits;
  RowSource source = row_source(t);
  source.affines = &decode_affines<S>;
  if (Stored::looked_up) source.bytes = &decode_codes<S>;
  TiledWeights w;
  w.extents = t.extents();
  w.group = source.group;
  w.segment_cols = segment_columns(w.group, compute);
  w.bits = bits;
  w.max_byte = Stored::max_byte;
  w.table = table;
  w.half_scales = Binary16Scales<typename S::scale_store>;
  w.zero_points = S::has_zero_point;
  w.factor = grid.step;
  w.lowest = grid.lowest;
  w.rows = &tiled_rows<Stored>;
  for (Segment s(t.cols(), w.group, w.segment_cols); !s.done(); s.next()) {
    w.steps.push_back(static_cast<std::int32_t>(round_up(ceil_div(s.length, 4), unit_steps(bits))));
    w.all_steps += w.steps.back();
  }
  w.memory = WeightBuffer(static_cast<std::size_t>(w.tiles() * w.tile_bytes()));
  executor.parallel_for(w.tiles(), 1, [&](Index begin, Index end) {
    BytePanel panel;
    for (Index tile = begin; tile < end; ++tile) {
      const Index first = tile * tile_rows, rows = std::min(tile_rows, t.rows() - first);
      std::byte* start = w.memory.data() + tile * w.tile_bytes();
      std::byte *unit = start + w.codes_at(), *scales = start, *zeros = start + w.zeros_at();
      std::size_t segment = 0;
      for (Segment s(t.cols(), w.group, w.segment_cols); !s.done();) {
        Segment here = s;
        fill_panel<native_arch>(source, first, rows, s, panel);
        const std::uint8_t* codes = panel.bytes.data();
        for (Index i = 0; i < panel.segments; ++i, here.next(), ++segment) {
          for (Index k = 0; k < panel.dwords[static_cast<std::size_t>(i)]; ++k, codes += line_bytes)
            CodeLines<bits>::write(static_cast<int>(k % unit_steps(bits)), codes,
                                   unit + k / unit_steps(bits) * CodeLines<bits>::bytes);
          unit += w.steps[segment] * w.step_bytes();
          for (Index r = 0; r < rows; ++r) {
            const Index index = S::granularity::index(t.extents(), first + r, here.group);
            float scale;
            t.load_scales(index, {&scale, 1});
            if (w.half_scales) {
              const std::uint16_t half = f32_to_f16(scale);  // exact: it was stored so
              std::memcpy(scales + 2 * r, &half, 2);
            } else {
              std::memcpy(scales + 4 * r, &scale, 4);
            }
            if constexpr (S::has_zero_point) zeros[r] = static_cast<std::byte>(static_cast<std::uint8_t>(t.zero(index)));
          }
          scales += w.scale_bytes(), zeros += tile_rows;
        }
      }
    }
  });
  return w;
}

}  // namespace detail

/// Rearranges the weights of a scheme whose format multiplies in integers, for activations that enter as `compute` says.
/// Allocates.
template <AnyScheme S, Executor E = Serial>
  requires(has_integer_dot_v<typename S::format>)
TiledWeights tile_weights(const PackedTensor<S>& t, Compute compute, E&& executor = E{}) {
  using F = typename S::format;
  static_assert(!S::has_zero_point || level_grid_v<F>.lowest == 0, "anybit: a format with a zero point has levels 0, 1, ..");
  return detail::tile<tile_codes_t<F>>(t, compute, level_grid_v<F>, level_bytes_v<F>, executor);
}

/// The same for a format whose levels lie on no grid: each is moved to the nearest multiple of a step, by at most `level_error`
/// times the largest |level|. Nothing if no step does that with levels that span 8 bits.
template <AnyScheme S, Executor E = Serial>
  requires(S::bits <= 8 && !S::has_zero_point)
std::optional<TiledWeights> tile_weights(const PackedTensor<S>& t, Compute compute, float level_error, E&& executor = E{}) {
  using F = typename S::format;
  const std::span levels = std::span(decode_table_v<F>).first(static_cast<std::size_t>(code_count_v<F>));
  const LevelGrid grid = find_grid(levels, level_error);
  if (grid.step == 0) return std::nullopt;
  ByteTable table;
  for (std::size_t c = 0; c < levels.size(); ++c)
    table.bytes[c] = static_cast<std::uint8_t>(grid.nearest(levels[c]) - grid.lowest);
  return detail::tile<TileCodes<F::bits, 255, true>>(t, compute, grid, table, executor);
}

/// y = x W^T with activations rounded to 8 bits, to the bit what `mode` makes of the packed weights. Weights tiled for the
/// other way of rounding serve too if their groups have at most `block_columns` columns.
template <Executor E>
void matmul(const TiledWeights& w, ConstMatrix x, MutableMatrix y, ActivationMode mode, Workspace& workspace, E&& executor) {
  check_shapes(w.extents, x, y);
  ANYBIT_CHECK(rounds_to_int8(mode.compute()) && w.segment_cols == segment_columns(w.group, mode.compute()),
               "matmul: the weights were tiled for another compute");
  if (x.rows == 0) return;
  if (x.cols == 0) {
    for (Index t = 0; t < x.rows; ++t) std::fill(y.row(t).begin(), y.row(t).end(), 0.0f);
    return;
  }
  const TiledActivations tiled =
      tile_activations<native_arch>(round_activations(x, w.group, mode, workspace, executor), w, workspace, executor);
  executor.parallel_for(w.extents.rows, 4 * tile_rows, [&](Index begin, Index end) { w.rows(w, tiled, y, begin, end); });
}

}  // namespace anybit::kernel::inline ANYBIT_CODE
