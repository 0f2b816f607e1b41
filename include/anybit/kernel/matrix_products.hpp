#pragma once
// y = x W^T with rounded activations, tiled weights and instructions that multiply small matrices: 32 rows of weights times 32
// tokens at a time. A segment's sums are the integers of tiled_products.hpp and join in the same order, so values have the same
// bits.
//
// A vocabulary Arch (dot_vocabulary.hpp) has such instructions if it has a type Matrix: eight registers of 16 rows of 64 bytes,
// with
//   available()               whether this process may use them
//   configure(n), release()   around every use, on the thread that uses them; registers 0 to 5 have n rows, 6 and 7 have 16
//   zero<T>(), load<T>(p, stride), store<T>(p, stride)
//   dpbssd<C, A, B>()         C[m][n] += sum over k < 64 of A[m][k] * B[k / 4][4 n + k % 4] in int32, both signed
//   dpbsud<C, A, B>()         the same with B unsigned
//   least_tokens              from so many on it is faster than dot products of vectors
// A line of the kernel layout, 16 rows by 4 columns, is a row of B as it is; A has a token per row.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstring>

#include <anybit/kernel/folded_tiles.hpp>
#include <anybit/kernel/matrix_activations.hpp>
#include <anybit/kernel/tile_products.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// 64 bytes minus 64 bytes.
using ByteVector = std::uint8_t __attribute__((vector_size(64), aligned(1), may_alias));

/// Some segments of two neighbouring tiles of weights, decoded: a chunk of them.
struct MatrixPanel {
  /// 512 columns, in which lies the longest segment, and the ends of some short ones. The panel stays in a first-level cache
  /// beside the sums.
  static constexpr Index most_blocks = chunk_blocks, most_sums = most_blocks;
  Index first = 0, count = 0;  ///< sums: segments, or a chunk that is folded into one
  Index segments = 0, blocks = 0;
  bool is_signed = true;  ///< bytes are levels, folded or not; else u
  Index sum_blocks[static_cast<std::size_t>(most_sums)];
  alignas(64) std::byte bytes[2][static_cast<std::size_t>(most_blocks * matrix_bytes)];
  alignas(64) float scales[static_cast<std::size_t>(most_sums)][2][16];
  alignas(64) std::int32_t zeros[static_cast<std::size_t>(most_sums)][2][16];  ///< factors of the starts
};

using DecodeUnits = void (*)(const TiledWeights&, const std::byte* unit, Index units, std::byte* out);

/// Subtracts from the bytes of 16 rows by 4 columns one number for each row.
inline void subtract_lines(const std::int32_t* of_rows, Index lines, std::byte* line) {
  alignas(64) std::uint8_t each[64];
  for (std::size_t r = 0; r < 16; ++r) std::memset(each + 4 * r, of_rows[r], 4);
  ByteVector minus, bytes;
  std::memcpy(&minus, each, sizeof minus);
  for (Index k = 0; k < lines; ++k, line += line_bytes) {
    std::memcpy(&bytes, line, sizeof bytes);
    bytes -= minus;
    std::memcpy(line, &bytes, sizeof bytes);
  }
}

/// The chunk of segments from `first` on of tiles tile[0] and tile[1], whose codes of that segment lie `at` bytes from the starts
/// of the tiles; `chunk` is its number, for folded tiles. Returns how many bytes of codes that were.
template <class Arch>
[[gnu::noinline]] Index fill_matrix_panel(const TiledWeights& w, const FoldedTiles* folded, DecodeUnits decode, const Index* tile,
                                          Index at, Index first, Index chunk, MatrixPanel& panel) {
  const Index in_unit = unit_steps(w.bits);
  const auto steps_of = [&w](Index s) { return Index{w.steps[static_cast<std::size_t>(s)]}; };
  panel.segments = chunk_end(first, w.segments(), steps_of) - first, panel.blocks = 0;
  Index steps = 0;
  bool gaps = false;
  panel.is_signed = w.lowest >= -128 && w.max_byte + w.lowest <= 127;
  for (Index i = 0; i < panel.segments; ++i) {
    const Index here = steps_of(first + i), blocks = matrix_blocks(here);
    gaps = gaps || here != blocks * matrix_steps;
    steps += here, panel.blocks += blocks;
    panel.sum_blocks[i] = blocks;
    const std::byte* stored = w.tile(tile[0]) + w.zeros_at() + (first + i) * tile_rows;
    const std::byte* stored_2 = w.tile(tile[1]) + w.zeros_at() + (first + i) * tile_rows;
    for (Index r = 0; r < tile_rows && w.zero_points; ++r)
      if (w.max_byte > 127 || std::max(stored[r], stored_2[r]) > std::byte{128}) panel.is_signed = false;
  }
  panel.first = first, panel.count = panel.segments;
  if (folded) panel.first = chunk, panel.count = 1, panel.sum_blocks[0] = panel.blocks, panel.is_signed = true;
  for (std::size_t m = 0; m < 2; ++m) {
    const std::byte *start = w.tile(tile[m]), *codes = start + at;
    std::byte* out = panel.bytes[m];
    if (!gaps) decode(w, codes, steps / in_unit, out);
    for (Index i = 0; i < panel.segments; ++i) {
      const Index s = first + i, here = steps_of(s), room = matrix_blocks(here) * matrix_bytes;
      if (gaps) {
        decode(w, codes, here / in_unit, out);
        std::memset(out + here * line_bytes, 0, static_cast<std::size_t>(room - here * line_bytes));
        codes += here * w.step_bytes();
      }
      std::int32_t zeros[static_cast<std::size_t>(tile_rows)];
      read_zeros(w, start, s, zeros);
      if (folded) {
        fold_lines<Arch>(folded->factors_of(w, tile[m], s), zeros, 0, here, out);
      } else {
        if (panel.is_signed) subtract_lines(zeros, here, out);
        const std::byte* stored = start + s * w.scale_bytes();
        Arch::store(
            panel.scales[i][m],
            Arch::scaled(w.half_scales ? Arch::load_f16(stored) : Arch::load(reinterpret_cast<const float*>(stored)), w.factor));
        for (Index r = 0; r < tile_rows; ++r) panel.zeros[i][m][r] = w.zero_points ? zeros[r] : 1;
      }
      out += room;
    }
    if (folded) Arch::store(panel.scales[0][m], Arch::load(folded->steps_of(tile[m], chunk)));
  }
  return steps * w.step_bytes();
}

/// A panel times 16 * Tiles tokens or less: adds to sums[token][32 rows].
template <class Arch, int Tiles, bool Signed>
[[gnu::noinline]] void multiply_matrix_panel(const MatrixPanel& panel, const TiledActivations& x, Index token, Index tokens,
                                             const std::int8_t* a, float* sums) {
  using Matrix = typename Arch::Matrix;
  // The sums of one segment become floats while the next one is multiplied.
  alignas(64) std::int32_t dots[2][2][static_cast<std::size_t>(Tiles)][16][16];
  const Index second = matrix_tokens * x.stride, segments = x.segments;
  const bool in_blocks = x.blocks != nullptr;
  const auto add = [&](Index i, Index begin, Index end) __attribute__((always_inline)) {
    const auto scale = Arch::load(panel.scales[i][0]), scale_2 = Arch::load(panel.scales[i][1]);
    const Index at = (token + begin) * segments + panel.first + i;
    const std::int32_t *ints = &dots[i % 2][0][0][0][0] + 16 * begin, *ints_2 = &dots[i % 2][1][0][0][0] + 16 * begin,
                       *start = x.starts + at;
    const float* block = in_blocks ? x.blocks + at : x.scales;
    float* sum = sums + 32 * begin;
    const auto join = [&](const std::int32_t* from, const std::int32_t* zeros, typename Arch::Floats by, float* to)
                          __attribute__((always_inline)) {
                            typename Arch::Ints dot;
                            std::memcpy(&dot, from, sizeof dot);
                            if constexpr (!Signed) dot = Arch::add(dot, Arch::products(zeros, *start));
                            Arch::store(to, Arch::multiply_add(dot, by, Arch::load(to)));
                          };
    for (const float* const last = sums + 32 * end; sum < last; sum += 32, ints += 16, ints_2 += 16) {
      join(ints, panel.zeros[i][0], in_blocks ? Arch::scaled(scale, *block) : scale, sum);
      join(ints_2, panel.zeros[i][1], in_blocks ? Arch::scaled(scale_2, *block) : scale_2, sum + 16);
      start += segments;
      if (in_blocks) block += segments;
    }
  };
  const auto dot = [&]<int C, int A, int B>(std::integral_constant<int, C>, std::integral_constant<int, A>,
                                            std::integral_constant<int, B>) __attribute__((always_inline)) {
    if constexpr (Signed)
      Matrix::template dpbssd<C, A, B>();
    else
      Matrix::template dpbsud<C, A, B>();
  };
  const auto number = []<int I>() __attribute__((always_inline)) { return std::integral_constant<int, I>(); };
  const std::byte* b = panel.bytes[0];
  constexpr Index b_second = sizeof panel.bytes[0];
  for (Index i = 0; i < panel.count; ++i) {
    const Index blocks = panel.sum_blocks[i], slice = ceil_div(tokens, blocks);
    Matrix::template zero<0>();
    Matrix::template zero<1>();
    if constexpr (Tiles == 2) {
      Matrix::template zero<2>();
      Matrix::template zero<3>();
    }
    for (Index k = 0; k < blocks; ++k, a += matrix_bytes, b += matrix_bytes) {
      Matrix::template load<4>(a, line_bytes);
      Matrix::template load<6>(b, line_bytes);
      dot(number.template operator()<0>(), number.template operator()<4>(), number.template operator()<6>());
      if constexpr (Tiles == 2) {
        Matrix::template load<5>(a + second, line_bytes);
        dot(number.template operator()<2>(), number.template operator()<5>(), number.template operator()<6>());
      }
      Matrix::template load<7>(b + b_second, line_bytes);
      dot(number.template operator()<1>(), number.template operator()<4>(), number.template operator()<7>());
      if constexpr (Tiles == 2)
        dot(number.template operator()<3>(), number.template operator()<5>(), number.template operator()<7>());
      if (i > 0) add(i - 1, std::min(k * slice, tokens), std::min((k + 1) * slice, tokens));
    }
    Matrix::template store<0>(dots[i % 2][0][0], line_bytes);
    Matrix::template store<1>(dots[i % 2][1][0], line_bytes);
    if constexpr (Tiles == 2) {
      Matrix::template store<2>(dots[i % 2][0][1], line_bytes);
      Matrix::template store<3>(dots[i % 2][1][1], line_bytes);
    }
  }
  add(panel.count - 1, 0, tokens);
}

/// Rows begin .. end - 1 of y for tiled activations by_matrix; with `folded`, all of folded tiles.
template <class Arch>
[[gnu::noinline]] void matrix_rows(const TiledWeights& w, DecodeUnits decode, const TiledActivations& x, MutableMatrix y,
                                   Index begin, Index end, const FoldedTiles* folded = nullptr) {
  using Matrix = typename Arch::Matrix;
  // Activations of so many tokens and their sums stay in a second-level cache of 2 MB while all panels pass.
  constexpr Index most_tokens = 256, least_tokens = 128, cache = 1 << 20, most_rows = 2 * tile_rows, both = 2 * matrix_tokens;
  const Index tokens_at_once = std::clamp(cache / std::max(x.stride, Index{1}) / both * both, least_tokens, most_tokens);
  alignas(64) float sums[static_cast<std::size_t>(most_tokens * most_rows)];
  MatrixPanel panel;
  Matrix::configure(static_cast<int>(std::min(x.tokens, matrix_tokens)));
  for (Index token = 0; token < x.tokens; token += tokens_at_once) {
    const Index tokens = std::min(tokens_at_once, x.tokens - token);
    for (Index tile = begin / tile_rows; tile * tile_rows < end; tile += 2) {
      const Index row = tile * tile_rows, from = std::max(begin, row), to = std::min(end, row + most_rows);
      // Past the last tile it comes again, and what it gives is not kept.
      const Index tiles[2] = {tile, std::min(tile + 1, (end - 1) / tile_rows)};
      std::fill_n(sums, tokens * most_rows, 0.0f);
      const std::int8_t* codes = x.codes + token * x.stride;
      for (Index segment = 0, chunk = 0, at = w.codes_at(); segment < w.segments(); segment += panel.segments, ++chunk) {
        at += fill_matrix_panel<Arch>(w, folded, decode, tiles, at, segment, chunk, panel);
        for (Index t = 0; t < tokens; t += both) {
          const Index n = std::min(tokens - t, both);
          const auto multiply = [&]<int Tiles>(std::integral_constant<int, Tiles>) {
            (panel.is_signed
                 ? multiply_matrix_panel<Arch, Tiles, true>
                 : multiply_matrix_panel<Arch, Tiles, false>)(panel, x, token + t, n, codes + t * x.stride, sums + t * most_rows);
          };
          n > matrix_tokens ? multiply(std::integral_constant<int, 2>()) : multiply(std::integral_constant<int, 1>());
        }
        codes += panel.blocks * matrix_bytes;
      }
      for (Index t = 0; t < tokens; ++t) {
        float* sum = sums + t * most_rows;
        Arch::store(sum, Arch::scaled(Arch::load(sum), x.scales[token + t]));
        Arch::store(sum + 16, Arch::scaled(Arch::load(sum + 16), x.scales[token + t]));
        std::memcpy(y.data + (token + t) * y.stride + from, sum + (from - row),
                    static_cast<std::size_t>(to - from) * sizeof(float));
      }
    }
  }
  Matrix::release();
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
