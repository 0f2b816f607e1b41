#pragma once
// Rounded activations in the order of matrix instructions: blocks of 16 tokens by 64 columns, each contiguous.

#include <cstring>

#include <anybit/exec/executor.hpp>
#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/tiled_activations.hpp>
#include <anybit/kernel/tiled_weights.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

inline constexpr Index matrix_tokens = 16;  ///< rows of a tile register
inline constexpr Index matrix_steps = 16;   ///< steps of 4 columns in one
inline constexpr Index matrix_bytes = matrix_tokens * line_bytes;

/// Blocks of 64 columns that a segment of so many steps takes.
constexpr Index matrix_blocks(Index steps) { return ceil_div(steps, matrix_steps); }

}  // namespace detail

/// Codes of 16 tokens, block after block of their columns, then of the next 16 tokens. Segments start with a block of their own;
/// past their ends and past the last token are zeros. Starts and blocks are in the order of RoundedActivations.
template <Executor E>
TiledActivations matrix_activations(const RoundedActivations& x, const TiledWeights& w, Workspace& workspace, E&& executor) {
  using detail::matrix_tokens, detail::matrix_bytes;
  Index blocks = 0;
  for (const Index steps : w.steps) blocks += detail::matrix_blocks(steps);
  TiledActivations r{x.tokens, blocks * line_bytes, x.segments, nullptr, nullptr, x.scales, x.blocks};
  r.by_matrix = true;
  const std::int32_t factor = w.zero_points ? -1 : w.lowest;
  auto* starts = workspace.get<std::int32_t>(Workspace::tiled_starts, x.tokens * x.segments);
  auto* codes = workspace.get<std::int8_t>(Workspace::tiled_codes, round_up(x.tokens, matrix_tokens) * r.stride);
  executor.parallel_for(ceil_div(x.tokens, matrix_tokens), 1, [&](Index begin, Index end) {
    for (Index tile = begin; tile < end; ++tile)
      for (Index row = 0; row < matrix_tokens; ++row) {
        const Index token = tile * matrix_tokens + row;
        std::int8_t* to = codes + tile * matrix_tokens * r.stride + row * line_bytes;
        if (token >= x.tokens) {
          for (Index b = 0; b < blocks; ++b) std::memset(to + b * matrix_bytes, 0, static_cast<std::size_t>(line_bytes));
          continue;
        }
        for (Index s = 0; s < x.segments; ++s) starts[token * x.segments + s] = factor * x.sums[token * x.segments + s];
        const std::int8_t* from = x.codes + token * x.stride;
        Segment segment(x.cols, x.group, x.segment_cols);
        for (const Index steps : w.steps) {
          Index left = round_up(segment.length, 4);
          for (Index b = 0; b < detail::matrix_blocks(steps); ++b, to += matrix_bytes) {
            const Index n = std::clamp(left, Index{0}, line_bytes);
            std::memcpy(to, from, static_cast<std::size_t>(n));
            std::memset(to + n, 0, static_cast<std::size_t>(line_bytes - n));
            from += n, left -= n;
          }
          segment.next();
        }
      }
  });
  r.codes = codes, r.starts = starts;
  return r;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
