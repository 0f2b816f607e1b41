#pragma once
// Rounded activations in the order of products with tiled weights: a group of tokens interleaved, so that one pointer serves
// all of them. Rows a power of two apart would also map to the same few lines of the first-level cache.

#include <type_traits>

#include <anybit/exec/executor.hpp>
#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/tiled_weights.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// Calls use(size, at) with sizes Most, Most / 2, .. 1 until at reaches n.
template <int Most, class Use>
inline void in_powers(Index n, Use&& use, Index at = 0) {
  for (; n - at >= Most; at += Most) use(std::integral_constant<int, Most>(), at);
  if constexpr (Most > 1) in_powers<Most / 2>(n, use, at);
}

}  // namespace detail

/// Tokens stand in groups of Arch::token_group, the last ones in groups of half as many, and so on. A group of n tokens that
/// starts at token t has its codes at codes + t * stride: 4 codes of its first token, of its second, .., then the next 4 of
/// each, and zeros where the weights' segments have more steps; and what its dot products start from at starts + t * segments:
/// those of segment 0, then those of segment 1, ..
struct TiledActivations {
  Index tokens = 0, stride = 0, segments = 0;
  const std::int8_t* codes = nullptr;  ///< tokens x stride
  /// Minus the sum of a segment's codes; without zero points the sum times the level that a code of Arch::bias() stands for.
  const std::int32_t* starts = nullptr;
  const float* scales = nullptr;
  const float* blocks = nullptr;  ///< in the order of starts; null for one scale a token
};

template <class Arch, Executor E>
TiledActivations tile_activations(const RoundedActivations& x, const TiledWeights& w, Workspace& workspace, E&& executor) {
  TiledActivations r{x.tokens, 4 * w.all_steps, x.segments, x.codes, nullptr, x.scales, nullptr};
  const std::int32_t factor = w.zero_points ? -1 : w.lowest + Arch::bias(w.max_byte);
  auto* starts = workspace.get<std::int32_t>(Workspace::tiled_starts, x.tokens * x.segments);
  auto* blocks = x.blocks ? workspace.get<float>(Workspace::tiled_blocks, x.tokens * x.segments) : nullptr;
  const bool as_it_is = x.tokens == 1 && x.stride == r.stride;
  auto* codes = as_it_is ? nullptr : workspace.get<std::int8_t>(Workspace::tiled_codes, x.tokens * r.stride);
  parallel_tiles(executor, x.tokens, Arch::token_group, [&](Index begin, Index end) {
    detail::in_powers<Arch::token_group>(end - begin, [&](auto group, Index at) {
      constexpr Index n = group();
      const Index first = begin + at;
      for (Index s = 0; s < x.segments; ++s)
        for (Index t = 0; t < n; ++t) {
          const Index from = (first + t) * x.segments + s, to = first * x.segments + s * n + t;
          starts[to] = factor * x.sums[from];
          if (blocks) blocks[to] = x.blocks[from];
        }
      if (as_it_is) return;
      const std::int8_t* from = x.codes + first * x.stride;
      std::int8_t* to = codes + first * r.stride;
      Segment segment(x.cols, x.group, x.segment_cols);
      for (const Index steps : w.steps) {
        const Index dwords = ceil_div(segment.length, 4);
        for (Index k = 0; k < dwords; ++k, from += 4, to += 4 * n)
          for (Index t = 0; t < n; ++t) std::memcpy(to + 4 * t, from + t * x.stride, 4);
        std::fill(to, to + 4 * n * (steps - dwords), std::int8_t{0});
        to += 4 * n * (steps - dwords);
        segment.next();
      }
    });
  });
  if (codes) r.codes = codes;
  r.starts = starts, r.blocks = blocks;
  return r;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
