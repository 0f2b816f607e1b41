#pragma once
// y = x W^T with activations and dequantized weights rounded to bfloat16, products exact, sums in f32: 32 rows of weights at a
// time are decoded and interleaved in pairs of columns, so that a vector holds two columns of 16 rows, and a tile register 32.
//
// A vocabulary Arch (dot_vocabulary.hpp) has the instructions if it has
//   round_to_bf16(in, n, out)   n floats to bfloat16, ties to even
//   spread(p)                   16 times the 4 bytes at p
//   dot_bf16(a, b, x)           a[i] + b[2 i] * x[2 i] + b[2 i + 1] * x[2 i + 1] of 32 bfloat16 in 64 bytes, 16 floats
// and Arch::Matrix (matrix_products.hpp) dpbf16ps<C, A, B>(): C[m][n] += sum over k < 32 of A[m][k] * B[k / 2][2 n + k % 2] in
// f32.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include <anybit/core/half.hpp>
#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/kernel/activation_plan.hpp>
#include <anybit/kernel/compute.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/matrix_products.hpp>
#include <anybit/kernel/row_decoder.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// Whether Compute::bf16 multiplies in bfloat16 with Arch; else it multiplies rounded activations in f32.
template <class Arch>
inline constexpr bool multiplies_bf16 = requires { Arch::dot_bf16; };

namespace detail {

inline constexpr Index bf16_columns = 32;       ///< of a tile register
inline constexpr Index bf16_panel_rows = 32;    ///< two vectors or tiles
inline constexpr Index bf16_vector_tokens = 8;  ///< at once, by vectors: 16 sums in registers

template <class Arch>
ANYBIT_INLINE void round_to_bf16(const float* in, Index n, std::uint16_t* out) {
  Index i = 0;
  if constexpr (multiplies_bf16<Arch>)
    for (; i + bf16_columns <= n; i += bf16_columns) Arch::round_to_bf16(in + i, out + i);
  for (; i < n; ++i) out[i] = f32_to_bf16(in[i]);
}

/// Block columns of 32 rows: 64 bytes for each pair of columns of rows 0 to 15, then the same of rows 16 to 31.
template <Index Block>
struct Bf16Panel {
  static_assert(Block <= block_cols);
  static constexpr Index row_bytes = 2 * Block + line_bytes;  // no power of two
  alignas(64) float floats[static_cast<std::size_t>(16 * (Block + decode_slack))];
  alignas(64) std::uint8_t rows[static_cast<std::size_t>(16 * row_bytes)];
  alignas(64) std::uint8_t pairs[2][static_cast<std::size_t>(Block / 2 * line_bytes)];
};

/// Columns first .. first + n - 1 of rows row .. row + rows - 1; zeros past them up to 32 rows and a multiple of 32 columns.
template <class Arch, Index Block>
[[gnu::noinline]] void fill_bf16_panel(const PackedRows& w, Index row, Index rows, Index first, Index n,
                                       Bf16Panel<Block>& panel) {
  constexpr Index stride = Block + decode_slack;
  const Index padded = round_up(n, bf16_columns);
  for (Index half = 0; half < 2; ++half) {
    const Index count = std::clamp(rows - half * 16, Index{0}, Index{16});
    if (count == 0) {
      std::memset(panel.pairs[half], 0, static_cast<std::size_t>(padded / 2 * line_bytes));
      continue;
    }
    w.ops->weights(w.tensor, row + half * 16, count, first, n, panel.floats, stride);
    for (Index r = 0; r < 16; ++r) {
      auto* out = reinterpret_cast<std::uint16_t*>(panel.rows + r * Bf16Panel<Block>::row_bytes);
      if (r < count) round_to_bf16<Arch>(panel.floats + r * stride, n, out);
      const Index known = r < count ? n : 0;
      std::fill(out + known, out + padded, std::uint16_t{0});
    }
    Arch::interleave(panel.rows, Bf16Panel<Block>::row_bytes, padded / 2, panel.pairs[half]);
  }
}

/// A panel of n columns times `Tokens` tokens: adds to sums, or begins them.
template <class Arch, int Tokens, class Panel>
ANYBIT_INLINE void bf16_vectors(const Panel& panel, const std::uint16_t* x, Index x_stride, Index n, bool begun, float* sums,
                                Index sums_stride) {
  constexpr auto N = static_cast<std::size_t>(Tokens);
  typename Arch::Floats sum[N][2];
#pragma GCC unroll 8
  for (std::size_t t = 0; t < N; ++t)
#pragma GCC unroll 2
    for (std::size_t m = 0; m < 2; ++m)
      sum[t][m] = begun ? Arch::load(sums + static_cast<Index>(t) * sums_stride + static_cast<Index>(m) * 16) : Arch::zero();
  for (Index k = 0; k < n; k += 2) {
    const auto b = Arch::load_bytes(panel.pairs[0] + k / 2 * line_bytes),
               b_2 = Arch::load_bytes(panel.pairs[1] + k / 2 * line_bytes);
#pragma GCC unroll 8
    for (std::size_t t = 0; t < N; ++t) {
      const auto a = Arch::spread(x + static_cast<Index>(t) * x_stride + k);
      sum[t][0] = Arch::dot_bf16(sum[t][0], b, a);
      sum[t][1] = Arch::dot_bf16(sum[t][1], b_2, a);
    }
  }
#pragma GCC unroll 8
  for (std::size_t t = 0; t < N; ++t)
#pragma GCC unroll 2
    for (std::size_t m = 0; m < 2; ++m)
      Arch::store(sums + static_cast<Index>(t) * sums_stride + static_cast<Index>(m) * 16, sum[t][m]);
}

/// The same by tile registers, 16 * Tiles tokens.
template <class Arch, int Tiles, class Panel>
ANYBIT_INLINE void bf16_tiles(const Panel& panel, const std::uint16_t* x, Index x_stride, Index n, bool begun, float* sums,
                              Index sums_stride) {
  using Matrix = typename Arch::Matrix;
  const Index x_bytes = 2 * x_stride, sum_bytes = 4 * sums_stride;
  const std::uint16_t* const second = x + matrix_tokens * x_stride;
  float* const low = sums + matrix_tokens * sums_stride;
  if (begun) {
    Matrix::template load<0>(sums, sum_bytes);
    Matrix::template load<1>(sums + 16, sum_bytes);
    if constexpr (Tiles == 2) {
      Matrix::template load<2>(low, sum_bytes);
      Matrix::template load<3>(low + 16, sum_bytes);
    }
  } else {
    Matrix::template zero<0>();
    Matrix::template zero<1>();
    if constexpr (Tiles == 2) {
      Matrix::template zero<2>();
      Matrix::template zero<3>();
    }
  }
  for (Index k = 0; k < n; k += bf16_columns) {
    Matrix::template load<4>(x + k, x_bytes);
    Matrix::template load<6>(panel.pairs[0] + k / 2 * line_bytes, line_bytes);
    Matrix::template dpbf16ps<0, 4, 6>();
    if constexpr (Tiles == 2) {
      Matrix::template load<5>(second + k, x_bytes);
      Matrix::template dpbf16ps<2, 5, 6>();
    }
    Matrix::template load<7>(panel.pairs[1] + k / 2 * line_bytes, line_bytes);
    Matrix::template dpbf16ps<1, 4, 7>();
    if constexpr (Tiles == 2) Matrix::template dpbf16ps<3, 5, 7>();
  }
  Matrix::template store<0>(sums, sum_bytes);
  Matrix::template store<1>(sums + 16, sum_bytes);
  if constexpr (Tiles == 2) {
    Matrix::template store<2>(low, sum_bytes);
    Matrix::template store<3>(low + 16, sum_bytes);
  }
}

/// Rows begin .. end - 1: y(token, row). A value does not depend on the rows and tokens beside it.
template <class Arch, bool ByMatrix>
[[gnu::noinline]] void bf16_rows(const PackedRows& w, const Bf16Activations& x, MutableMatrix y, Index begin, Index end) {
  const Index cols = w.extents.cols, granule_rows = w.ops->granule_rows, tokens = x.tokens;
  // All tokens' columns of a block stay in a second-level cache while so many rows of weights pass. Few tokens read row by row.
  const Index rows_at_once = tokens < 64 ? bf16_panel_rows : 512;
  // A first-level cache holds a panel and its sources. Tiles read and write their sums once per panel: fewer, longer ones.
  constexpr Index Block = ByMatrix ? 512 : 256;
  Bf16Panel<Block> panel;
  if constexpr (ByMatrix) Arch::Matrix::configure(static_cast<int>(std::min(tokens, matrix_tokens)));
  for (Index stop = begin; stop < end;) {
    const Index start = stop;
    stop = std::min(end, start - start % bf16_panel_rows + rows_at_once);
    for (Index first = 0; first < cols; first += Block) {
      const Index n = std::min(Block, cols - first);
      for (Index row = start, rows = 0; row < stop; row += rows) {
        rows = std::min(bf16_panel_rows - (granule_rows > 1 ? row % bf16_panel_rows : 0), stop - row);
        w.prefetch(row + rows, rows, first, n);
        fill_bf16_panel<Arch>(w, row, rows, first, n, panel);
        Index t = 0;
        const auto multiply = [&]<int Tokens>(std::integral_constant<int, Tokens>) __attribute__((always_inline)) {
          const auto* a = x.values + t * x.stride + first;
          const auto into = [&](float* sums, Index stride) __attribute__((always_inline)) {
            if constexpr (ByMatrix)
              bf16_tiles<Arch, Tokens / static_cast<int>(matrix_tokens)>(panel, a, x.stride, n, first > 0, sums, stride);
            else
              bf16_vectors<Arch, Tokens>(panel, a, x.stride, n, first > 0, sums, stride);
          };
          const Index count = std::min<Index>(tokens - t, Tokens);
          float* out = y.data + t * y.stride + row;
          if (rows == bf16_panel_rows && count == Tokens) {
            into(out, y.stride);
          } else {
            alignas(64) float some[static_cast<std::size_t>(Tokens * bf16_panel_rows)] = {};
            const auto bytes = static_cast<std::size_t>(rows) * sizeof(float);
            for (Index i = 0; i < count && first > 0; ++i) std::memcpy(some + i * bf16_panel_rows, out + i * y.stride, bytes);
            into(some, bf16_panel_rows);
            for (Index i = 0; i < count; ++i) std::memcpy(out + i * y.stride, some + i * bf16_panel_rows, bytes);
          }
          t += Tokens;
        };
        if constexpr (ByMatrix) {
          while (t < tokens)
            tokens - t > matrix_tokens ? multiply(std::integral_constant<int, 32>())
                                       : multiply(std::integral_constant<int, 16>());
        } else {
          while (tokens - t >= bf16_vector_tokens) multiply(std::integral_constant<int, static_cast<int>(bf16_vector_tokens)>());
          if (tokens - t >= 4) multiply(std::integral_constant<int, 4>());
          if (tokens - t >= 2) multiply(std::integral_constant<int, 2>());
          if (tokens - t >= 1) multiply(std::integral_constant<int, 1>());
        }
      }
    }
  }
  if constexpr (ByMatrix) Arch::Matrix::release();
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
    if (Arch::Matrix::available()) return detail::bf16_rows<Arch, true>(w, x, y, begin, end);
  if constexpr (multiplies_bf16<Arch>) detail::bf16_rows<Arch, false>(w, x, y, begin, end);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
