#pragma once
// y = x W^T with activations and dequantized weights rounded to bfloat16, products exact, sums in f32: 32 rows of weights at a
// time are decoded and interleaved in pairs of columns, so that a vector holds two columns of 16 rows, and a tile register 32.
// bf16_products.hpp says what a vocabulary must have.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include <anybit/core/half.hpp>
#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/kernel/activation_plan.hpp>
#include <anybit/kernel/bf16_products.hpp>
#include <anybit/kernel/compute.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/matrix_products.hpp>
#include <anybit/kernel/row_decoder.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

inline constexpr Index bf16_panel_rows = 32;    ///< two vectors or tiles
inline constexpr Index bf16_vector_tokens = 8;  ///< at once, by vectors: 16 sums in registers
inline constexpr Index bf16_block = 512;        ///< columns that are decoded at once: short stretches take longer

/// Columns of 16 rows as bfloat16, row by row.
struct Bf16Rows {
  static_assert(bf16_block <= block_cols);
  static constexpr Index row_bytes = 2 * bf16_block + line_bytes;  // no power of two
  alignas(64) std::uint8_t bytes[static_cast<std::size_t>(16 * row_bytes)];
};

/// Where rows are decoded, as many at once as the scheme decodes together.
struct Bf16Source {
  alignas(64) float floats[static_cast<std::size_t>(16 * (bf16_block + decode_slack))];
};

/// Columns first .. first + n - 1 of rows row .. row + rows - 1, at most 16; zeros past them up to 16 rows and `padded` columns.
template <class Arch>
[[gnu::noinline]] void decode_bf16_rows(const PackedRows& w, Index row, Index rows, Index first, Index n, Index padded,
                                        Bf16Source& source, Bf16Rows& to) {
  constexpr Index stride = bf16_block + decode_slack;
  const Index at_once = w.ops->granule_rows > 1 ? 16 : 1;
  for (Index r = 0; r < 16; ++r) {
    if (r < rows && r % at_once == 0)
      w.ops->weights(w.tensor, row + r, std::min(at_once, rows - r), first, n, source.floats, stride);
    auto* out = reinterpret_cast<std::uint16_t*>(to.bytes + r * Bf16Rows::row_bytes);
    if (r < rows) round_to_bf16<Arch>(source.floats + r % at_once * stride, n, out);
    std::fill(out + (r < rows ? n : 0), out + padded, std::uint16_t{0});
  }
}

/// Columns of 32 rows in pairs: 64 bytes for each pair of columns of rows 0 to 15, and the same of rows 16 to 31. For products
/// with many tokens.
template <class Arch, Index Columns>
struct Bf16Panel {
  static constexpr Index columns = Columns;
  Bf16Source source;
  Bf16Rows rows;
  alignas(64) std::uint8_t pairs[2][static_cast<std::size_t>(Columns / 2 * line_bytes)];

  void fill(const PackedRows& w, Index row, Index count, Index first, Index n) {
    const Index padded = round_up(n, bf16_columns);
    for (Index half = 0; half < 2; ++half) {
      decode_bf16_rows<Arch>(w, row + half * 16, std::clamp(count - half * 16, Index{0}, Index{16}), first, n, padded, source,
                             rows);
      Arch::interleave(rows.bytes, Bf16Rows::row_bytes, padded / 2, pairs[half]);
    }
  }
  /// Pairs of bf16_columns columns from `first` on.
  const std::uint8_t* at(int half, Index first) { return pairs[half] + first / 2 * line_bytes; }
};

/// The same for few tokens: rows become pairs while the products before them are summed, whose latency takes as long.
template <class Arch>
struct Bf16PanelOfRows {
  static constexpr Index columns = bf16_block;
  Bf16Source source;
  Bf16Rows rows[2];
  alignas(64) std::uint8_t pairs[2][static_cast<std::size_t>(bf16_columns / 2 * line_bytes)];

  void fill(const PackedRows& w, Index row, Index count, Index first, Index n) {
    for (Index half = 0; half < 2; ++half)
      decode_bf16_rows<Arch>(w, row + half * 16, std::clamp(count - half * 16, Index{0}, Index{16}), first, n,
                             round_up(n, bf16_columns), source, rows[half]);
  }
  const std::uint8_t* at(int half, Index first) {
    Arch::interleave(rows[half].bytes + 2 * first, Bf16Rows::row_bytes, bf16_columns / 2, pairs[half]);
    return pairs[half];
  }
};

enum class Bf16Way { few_vectors, vectors, tiles };

/// Rows begin .. end - 1: y(token, row). A value does not depend on the rows and tokens beside it.
template <class Arch, Bf16Way Way>
[[gnu::noinline]] void bf16_rows(const PackedRows& w, const Bf16Activations& x, MutableMatrix y, Index begin, Index end) {
  const Index cols = w.extents.cols, granule_rows = w.ops->granule_rows, tokens = x.tokens;
  // All tokens' columns of a block stay in a second-level cache while so many rows of weights pass. Few tokens read row by row.
  const Index rows_at_once = tokens < 64 ? bf16_panel_rows : 512;
  // A first-level cache holds a panel and its sources. Tiles read and write their sums once per panel: fewer, longer ones.
  using Panel = std::conditional_t<Way == Bf16Way::few_vectors, Bf16PanelOfRows<Arch>,
                                   Bf16Panel<Arch, Way == Bf16Way::tiles ? bf16_block : bf16_block / 2>>;
  constexpr Index Block = Panel::columns;
  Panel panel;
  if constexpr (Way == Bf16Way::tiles) Arch::Matrix::configure(static_cast<int>(std::min(tokens, matrix_tokens)));
  for (Index stop = begin; stop < end;) {
    const Index start = stop;
    stop = std::min(end, start - start % bf16_panel_rows + rows_at_once);
    for (Index first = 0; first < cols; first += Block) {
      const Index n = std::min(Block, cols - first);
      for (Index row = start, rows = 0; row < stop; row += rows) {
        rows = std::min(bf16_panel_rows - (granule_rows > 1 ? row % bf16_panel_rows : 0), stop - row);
        w.prefetch(row + rows, rows, first, n);
        panel.fill(w, row, rows, first, n);
        Index t = 0;
        const auto multiply = [&]<int Tokens>(std::integral_constant<int, Tokens>) __attribute__((always_inline)) {
          bf16_product<Arch, Tokens, Way == Bf16Way::tiles>(panel, x.values + t * x.stride + first, x.stride, n, first > 0,
                                                            y.data + t * y.stride + row, y.stride,
                                                            std::min<Index>(tokens - t, Tokens), rows);
          t += Tokens;
        };
        if constexpr (Way == Bf16Way::tiles) {
          while (t < tokens)
            tokens - t > matrix_tokens ? multiply(std::integral_constant<int, 32>())
                                       : multiply(std::integral_constant<int, 16>());
        } else if constexpr (Way == Bf16Way::few_vectors) {  // all at once: more rows follow, up to a multiple of 16
          if (tokens > 4)
            multiply(std::integral_constant<int, 8>());
          else if (tokens > 2)
            multiply(std::integral_constant<int, 4>());
          else if (tokens == 2)
            multiply(std::integral_constant<int, 2>());
          else
            multiply(std::integral_constant<int, 1>());
        } else {
          while (tokens - t >= bf16_vector_tokens) multiply(std::integral_constant<int, static_cast<int>(bf16_vector_tokens)>());
          if (tokens - t >= 4) multiply(std::integral_constant<int, 4>());
          if (tokens - t >= 2) multiply(std::integral_constant<int, 2>());
          if (tokens - t >= 1) multiply(std::integral_constant<int, 1>());
        }
      }
    }
  }
  if constexpr (Way == Bf16Way::tiles) Arch::Matrix::release();
}

}  // namespace detail

namespace detail {

/// Activations whose memory is there and not yet written.
struct Bf16Task {
  Bf16Activations made;  ///< without its pointer
  std::uint16_t* values;

  Bf16Task(Index tokens, Index cols, Workspace& workspace) : made{tokens, cols, round_up(cols, bf16_columns), nullptr} {
    if (made.stride % 1024 == 0) made.stride += bf16_columns;  // rows a power of two apart share few lines of a cache
    values = workspace.get<std::uint16_t>(Workspace::codes, round_up(tokens, matrix_tokens) * made.stride);
  }
  Bf16Activations activations() const { return {made.tokens, made.cols, made.stride, values}; }
  /// Token t is `in`; the last one brings the rows of zeros after it.
  template <class Arch>
  void round(Index t, const float* in) const {
    std::uint16_t* out = values + t * made.stride;
    round_to_bf16<Arch>(in, made.cols, out);
    const std::uint16_t* const end = values + (t + 1 < made.tokens ? t + 1 : round_up(made.tokens, matrix_tokens)) * made.stride;
    std::fill(out + made.cols, values + (end - values), std::uint16_t{0});
  }
};

}  // namespace detail

/// For products with weights of as many columns.
template <class Arch, Executor E>
Bf16Activations bf16_activations(ConstMatrix x, Workspace& workspace, E&& executor) {
  const detail::Bf16Task task(x.rows, x.cols, workspace);
  executor.parallel_for(x.rows, 1, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) task.template round<Arch>(t, x.data + t * x.stride);
  });
  return task.activations();
}

/// Rows begin .. end - 1 of weights with at least one column. Allocates nothing. By tile registers wherever there are some, so
/// that a value does not depend on the number of tokens.
template <class Arch>
void bf16_rows(const PackedRows& w, const Bf16Activations& x, MutableMatrix y, Index begin, Index end) {
  if constexpr (detail::has_matrix<Arch>)
    if (Arch::Matrix::available()) return detail::bf16_rows<Arch, detail::Bf16Way::tiles>(w, x, y, begin, end);
  if constexpr (multiplies_bf16<Arch>) {
    if (x.tokens <= detail::bf16_vector_tokens)
      detail::bf16_rows<Arch, detail::Bf16Way::few_vectors>(w, x, y, begin, end);
    else
      detail::bf16_rows<Arch, detail::Bf16Way::vectors>(w, x, y, begin, end);
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
