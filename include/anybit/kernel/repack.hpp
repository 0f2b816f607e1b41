#pragma once
// Makes the kernel layout from packed bytes, once at load, and multiplies with it.

#include <anybit/core/macros_begin.hpp>

#include <optional>

#include <anybit/exec/executor.hpp>
#include <anybit/kernel/fold_tiles.hpp>
#include <anybit/kernel/folded_products.hpp>
#include <anybit/kernel/matmul.hpp>
#include <anybit/kernel/tiled_products.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// What tiles hold of a format that multiplies in integers: u without the zeros below all of them, or the format's own codes
/// where they are shorter.
template <Format F>
  requires(has_integer_dot_v<F>)
using tile_codes_t = std::conditional_t<
    level_bits_v<F> - level_shift_v<F> <= F::bits,
    TileCodes<level_bits_v<F> - level_shift_v<F>, (1 << level_bits_v<F>)-(1 << level_shift_v<F>), false, level_shift_v<F>>,
    TileCodes<F::bits, (1 << level_bits_v<F>)-1, true>>;

namespace detail {

/// The codes themselves, for tiles with a table.
template <AnyScheme S>
inline void decode_codes(const void* tensor, Index row, Index first, Index n, std::uint8_t* out) {
  Codes<S> codes;
  codes.read(tensor_of<S>(tensor), row, first, n);
  std::memcpy(out, codes.data(), static_cast<std::size_t>(n));
}

template <AnyScheme S>
inline Affine decode_affine(const void* tensor, Index row, Index group) {
  return tensor_of<S>(tensor).affine(row, group);
}

}  // namespace detail

/// A scheme that has a kernel layout, or why it has none.
struct TileOps : RowOps {
  int bits = 0;                ///< of a stored code; 0: no layout, `why_not` says why
  int max_stored = 0, up = 0;  ///< TileCodes::max_byte, TileCodes::up
  bool half_scales = false, zero_points = false;
  LevelGrid grid{};                  ///< of the format's levels; step 0: they are moved to one, if the caller allows that
  const ByteTable* table = nullptr;  ///< of levels on `grid`
  std::span<const float> levels{};   ///< of the codes, where `grid` has step 0
  std::string_view why_not{};        ///< as part of a sentence
  /// The bytes that tiles hold, times 2^up.
  void (*stored)(const void* tensor, Index row, Index first, Index n, std::uint8_t* out) = nullptr;
  Affine (*affine)(const void* tensor, Index row, Index group) = nullptr;
  decltype(TiledWeights::rows) rows = nullptr;
  decltype(TiledWeights::folded_rows) folded_rows = nullptr;
};

namespace detail {

template <ScalarScheme S, class Stored>
constexpr void store_tiles_as(TileOps& ops) {
  ops.bits = Stored::bits, ops.max_stored = Stored::max_byte, ops.up = Stored::up;
  ops.half_scales = Binary16Scales<typename S::scale_store>;
  ops.zero_points = S::has_zero_point;
  if constexpr (Stored::looked_up)
    ops.stored = &decode_codes<S>;
  else
    ops.stored = ops.bytes;
  ops.affine = &decode_affine<S>;
  ops.rows = &tiled_rows<Stored>;
  ops.folded_rows = &folded_tiled_rows<Stored>;
}

}  // namespace detail

template <PackedScheme S>
inline constexpr TileOps tile_ops_v = [] {
  TileOps ops{row_ops_v<S>};
  if constexpr (!ScalarScheme<S>) {
    ops.why_not = "the scheme gives weights no codes of their own";
  } else if constexpr (has_integer_dot_v<typename S::format>) {
    using F = typename S::format;
    static_assert(!S::has_zero_point || level_grid_v<F>.lowest == 0, "anybit: a format with a zero point has levels 0, 1, ..");
    detail::store_tiles_as<S, tile_codes_t<F>>(ops);
    ops.grid = level_grid_v<F>;
    ops.table = &level_bytes_v<F>;
  } else if constexpr (S::bits > 8) {
    ops.why_not = "codes of more than 8 bits multiply in float";
  } else if constexpr (S::has_zero_point) {
    ops.why_not = "the format's levels are no multiples of a step, and with zero points they cannot be moved";
  } else {
    using F = typename S::format;
    detail::store_tiles_as<S, TileCodes<F::bits, 255, true>>(ops);
    ops.levels = std::span(decode_table_v<F>).first(static_cast<std::size_t>(code_count_v<F>));
  }
  return ops;
}();

namespace detail {

/// What tiles of these weights are like, before they are anywhere.
inline TiledWeights tiles_without_memory(const TileOps& ops, const PackedRows& source, const LevelGrid& grid,
                                         const ByteTable& table, Compute compute) {
  TiledWeights w;
  w.extents = source.extents;
  w.group = source.group;
  w.segment_cols = segment_columns(w.group, compute);
  w.bits = ops.bits;
  w.max_byte = ops.max_stored;
  w.table = table;
  w.half_scales = ops.half_scales;
  w.zero_points = ops.zero_points;
  w.factor = grid.step;
  w.lowest = grid.lowest;
  w.rows = ops.rows, w.folded_rows = ops.folded_rows;
  const Index cols = w.extents.cols, in_unit = unit_steps(w.bits);
  for (Segment s(cols, w.group, w.segment_cols); !s.done(); s.next()) {
    w.steps.push_back(static_cast<std::int32_t>(round_up(ceil_div(s.length, 4), in_unit)));
    w.all_steps += w.steps.back();
  }
  return w;
}

/// Fills w.bytes() bytes from `to` on, which are zeros at first.
inline void fill_tiles(const TileOps& ops, const PackedRows& source, const TiledWeights& w, std::byte* to, ExecutorRef executor) {
  const Index cols = w.extents.cols, in_unit = unit_steps(w.bits);
  executor.parallel_for(w.tiles(), 1, [&](Index begin, Index end) {
    BytePanel panel;
    for (Index tile = begin; tile < end; ++tile) {
      const Index first = tile * tile_rows, rows = std::min(tile_rows, w.extents.rows - first);
      std::byte* start = to + tile * w.tile_bytes();
      std::byte *unit = start + w.codes_at(), *scales = start, *zeros = start + w.zeros_at();
      std::size_t segment = 0;
      for (Segment s(cols, w.group, w.segment_cols); !s.done();) {
        Segment here = s;
        fill_panel<native_arch>(source, ops.stored, first, rows, s, panel);
        if (ops.up > 0)
          for (auto& u : panel.bytes) u = static_cast<std::uint8_t>(u >> ops.up);
        const std::uint8_t* codes = panel.bytes.data();
        for (Index i = 0; i < panel.segments; ++i, here.next(), ++segment) {
          for (Index k = 0; k < panel.dwords[static_cast<std::size_t>(i)]; ++k, codes += line_bytes)
            write_codes(w.bits, static_cast<int>(k % in_unit), codes, unit + k / in_unit * unit_lines(w.bits) * line_bytes);
          unit += w.steps[segment] * w.step_bytes();
          for (Index r = 0; r < rows; ++r) {
            const Affine a = ops.affine(source.tensor, first + r, here.group);
            if (w.half_scales) {
              const std::uint16_t half = f32_to_f16(a.scale);  // exact: it was stored so
              std::memcpy(scales + 2 * r, &half, 2);
            } else {
              std::memcpy(scales + 4 * r, &a.scale, 4);
            }
            if (w.zero_points) zeros[r] = static_cast<std::byte>(static_cast<std::uint8_t>(a.zero));
          }
          scales += w.scale_bytes(), zeros += tile_rows;
        }
      }
    }
  });
}

}  // namespace detail

/// What tiles of these weights are like for activations that enter as `compute` says; they are in no memory yet. Levels on no
/// grid are moved, each to the nearest multiple of a step, by at most `level_error` times the largest |level|. Nothing if the
/// scheme has no layout (TileOps::bits), or no step does that with levels that span 8 bits.
inline std::optional<TiledWeights> plan_tiles(const TileOps& ops, const PackedRows& w, Compute compute, float level_error) {
  if (ops.bits == 0) return std::nullopt;
  if (ops.grid.step != 0) return detail::tiles_without_memory(ops, w, ops.grid, *ops.table, compute);
  const LevelGrid grid = level_error > 0 ? find_grid(ops.levels, level_error) : LevelGrid{0, 0, 0};
  if (grid.step == 0) return std::nullopt;
  ByteTable table;
  for (std::size_t c = 0; c < ops.levels.size(); ++c)
    table.bytes[c] = static_cast<std::uint8_t>(grid.nearest(ops.levels[c]) - grid.lowest);
  return detail::tiles_without_memory(ops, w, grid, table, compute);
}

/// Puts the tiles into memory of their own, or, where that is not null, into w.bytes() bytes at `to`, a multiple of 64, of the
/// caller, who keeps them as long as w.
inline void make_tiles(const TileOps& ops, const PackedRows& source, TiledWeights& w, std::byte* to, ExecutorRef executor) {
  if (to) {
    std::memset(to, 0, static_cast<std::size_t>(w.bytes()));
  } else {
    w.memory = WeightBuffer(static_cast<std::size_t>(w.bytes()));
    to = w.memory.data();
  }
  detail::fill_tiles(ops, source, w, to, executor);
  w.start = to;
}

/// For Compute::int8_folded, once tiles are where they stay: folds those of 16 rows none of whose quantization errors gains more
/// than `fold_error` of its energy by that. What folds is kept apart from the tiles, 2 bytes for each group of a row.
inline void fold_weights(const TileOps& ops, const PackedRows& source, TiledWeights& w, float fold_error, ExecutorRef executor) {
  std::array<bool, 256> used{};
  const ByteTable& levels = ops.levels.empty() ? *ops.table : w.table;
  for (std::size_t c = 0; c < (ops.levels.empty() ? levels.bytes.size() : ops.levels.size()); ++c) used[levels.bytes[c]] = true;
  w.folded = detail::fold_tiles(
      w, used, static_cast<double>(fold_error),
      [&](Index row, Index first, Index n, std::uint8_t* out) {
        if (ops.bytes) return ops.bytes(source.tensor, row, first, n, out);
        ops.stored(source.tensor, row, first, n, out);
        for (Index i = 0; i < n; ++i) out[i] = w.table.bytes[out[i]];
      },
      executor);
}

/// All of it. Allocates.
inline std::optional<TiledWeights> tile_weights(const TileOps& ops, const PackedRows& w, Compute compute, float level_error,
                                                ExecutorRef executor, float fold_error = default_fold_error) {
  auto tiled = plan_tiles(ops, w, compute, level_error);
  if (tiled) make_tiles(ops, w, *tiled, nullptr, executor);
  if (tiled && compute == Compute::int8_folded) fold_weights(ops, w, *tiled, fold_error, executor);
  return tiled;
}
/// The same with a known scheme.
template <ScalarScheme S, Executor E = Serial>
  requires(has_integer_dot_v<typename S::format>)
TiledWeights tile_weights(const PackedTensor<S>& t, Compute compute, E&& executor = E{}, float fold_error = default_fold_error) {
  return *tile_weights(tile_ops_v<S>, PackedRows(t), compute, 0, executor, fold_error);
}
template <ScalarScheme S, Executor E = Serial>
  requires(S::bits <= 8 && !S::has_zero_point)
std::optional<TiledWeights> tile_weights(const PackedTensor<S>& t, Compute compute, float level_error, E&& executor = E{}) {
  return tile_weights(tile_ops_v<S>, PackedRows(t), compute, level_error, executor);
}

/// Rows begin .. end - 1 of y = x W^T with activations rounded to 8 bits, to the bit what the packed weights give. Weights tiled
/// for the other way of rounding serve too if their groups have at most `block_columns` columns.
inline void matmul_rows(const TiledWeights& w, const Activations& a, const OutputTokens& y, Index begin, Index end) {
  check_rows(w.extents, plan_activations(w, a.plan.mode), a, y, begin, end);
  product_rows_to(y, a, begin, end, [&w](const Activations& some, MutableMatrix to, Index from, Index stop) {
    product_rows(w, some, to, from, stop);
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
