#pragma once
// Rounded activations in the order of products with tiled weights: a group of tokens interleaved, so that one pointer serves
// all of them. Rows a power of two apart would also map to the same few lines of the first-level cache.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <span>
#include <type_traits>

#include <anybit/exec/executor.hpp>
#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/matrix_activations.hpp>
#include <anybit/kernel/tiled_weights.hpp>
#include <anybit/simd/transpose.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// Calls use(size, at) with sizes Most, Most / 2, .. 1 until at reaches n.
template <int Most, class Use>
inline void in_powers(Index n, Use&& use, Index at = 0) {
  for (; n - at >= Most; at += Most) use(std::integral_constant<int, Most>(), at);
  if constexpr (Most > 1) in_powers<Most / 2>(n, use, at);
}

/// Tiled activations whose memory is there and not yet written.
template <class Arch>
struct TilingTask {
  TiledActivations made;
  Tiling tiling;
  bool as_they_are;  ///< one token, whose codes need no other order
  std::int8_t* codes;
  std::int32_t* starts;
  float* blocks;

  /// Bytes that follow one another in a token, in whole units of steps.
  static Index stride_of(const RoundedActivations& x, Tiling tiling) {
    Index steps = 0;
    for (Segment s(x.cols, x.group, x.segment_cols); !s.done(); s.next()) steps += round_up(ceil_div(s.length, 4), tiling.unit);
    return 4 * steps;
  }

  /// The starts of n tokens from `first` on, those of a chunk side by side.
  void add_chunks(const RoundedActivations& x, Index first, Index n) const {
    std::int32_t* start = starts + first * made.segments;
    each_chunk_of(x, [&](Index begin, Index end) {
      for (Index t = 0; t < n; ++t, ++start) {
        const std::int32_t* sums = x.sums + (first + t) * x.segments;
        std::int32_t sum = 0;
        for (Index s = begin; s < end; ++s) sum += sums[s];
        *start = tiling.factor * sum;
      }
    });
  }

  /// Tokens first .. first + Tokens - 1, whose codes start at `from`.
  template <Index Tokens>
  void interleave(const RoundedActivations& x, Index first, const std::int8_t* from) const {
    constexpr Index n = Tokens;
    if (tiling.chunks) {
      add_chunks(x, first, n);
    } else {
      for (Index s = 0; s < x.segments; ++s)
        for (Index t = 0; t < n; ++t) {
          const Index in = (first + t) * x.segments + s, to = first * x.segments + s * n + t;
          starts[to] = tiling.factor * x.sums[in];
          if (blocks) blocks[to] = x.blocks[in];
        }
    }
    if (as_they_are) return;
    std::int8_t* to = codes + first * made.stride;
    for (Segment segment(x.cols, x.group, x.segment_cols); !segment.done(); segment.next()) {
      const Index dwords = ceil_div(segment.length, 4), steps = round_up(dwords, tiling.unit);
      simd::weave_dwords<n>(from, x.stride, dwords, to);
      from += 4 * dwords, to += 4 * n * dwords;
      std::fill(to, to + 4 * n * (steps - dwords), std::int8_t{0});
      to += 4 * n * (steps - dwords);
    }
  }
  /// Each token where it belongs in the order of matrix instructions, with starts and blocks as they are; chunks need no starts.
  void arrange(const RoundedActivations& x, Index begin, Index end, const std::int8_t* from) const {
    for (Index i = begin * x.segments; i < end * x.segments && !tiling.chunks; ++i) {
      starts[i] = tiling.factor * x.sums[i];
      if (blocks) blocks[i] = x.blocks[i];
    }
    const Index last = end == x.tokens ? round_up(end, matrix_tokens) : end;
    for (Index t = begin; t < last; ++t)
      arrange_for_matrix(x, t, from + std::min(t - begin, end - 1 - begin) * x.stride, made.stride, codes);
  }
  /// Tokens begin .. end - 1, begin a multiple of Arch::token_group, and end too, or the last.
  void run(const RoundedActivations& x, Index begin, Index end, const std::int8_t* from) const {
    if (made.by_matrix) return arrange(x, begin, end, from);
    in_powers<Arch::token_group>(end - begin,
                                 [&](auto group, Index at) { interleave<group()>(x, begin + at, from + at * x.stride); });
  }
  TiledActivations activations() const {
    TiledActivations r = made;
    r.starts = starts, r.blocks = blocks;
    if (!as_they_are) r.codes = codes;
    return r;
  }
};

}  // namespace detail

/// The tiling that products with these weights read.
template <class Arch>
Tiling tiling_of(const TiledWeights& w) {
  return {static_cast<std::int32_t>(unit_steps(w.bits)), w.zero_points ? -1 : w.lowest + Arch::bias(w.max_byte)};
}

/// The tiling that products with folded tiles read.
template <class Arch>
Tiling folded_tiling_of(const TiledWeights& w) {
  constexpr int max_byte = detail::same_products<Arch>(255);
  return {static_cast<std::int32_t>(unit_steps(w.bits)), Arch::bias(max_byte) - folded_bias, true};
}

namespace detail {

/// The tilings of some rounded activations, whose scales and sums need not be there yet.
template <class Arch>
struct TilingTasks {
  std::array<TilingTask<Arch>, static_cast<std::size_t>(ActivationPlan::most_tilings)> of;
  Index count;

  TilingTasks(const RoundedActivations& x, std::span<const Tiling> tilings, Workspace& workspace)
      : count(static_cast<Index>(tilings.size())) {
    bool by_matrix = false;
    if constexpr (has_matrix<Arch>) by_matrix = x.tokens >= Arch::Matrix::least_tokens && Arch::Matrix::available();
    const Index tokens = by_matrix ? round_up(x.tokens, matrix_tokens) : x.tokens;
    std::array<Index, static_cast<std::size_t>(ActivationPlan::most_tilings)> strides{};
    Index bytes = 0;
    for (std::size_t i = 0; i < tilings.size(); ++i) {
      strides[i] = by_matrix ? matrix_stride(x) : TilingTask<Arch>::stride_of(x, tilings[i]);
      bytes += tokens * strides[i];
    }
    auto* codes = workspace.get<std::int8_t>(Workspace::tiled_codes, bytes);
    auto* starts = workspace.get<std::int32_t>(Workspace::tiled_starts, count * x.tokens * x.segments);
    auto* blocks = x.blocks ? workspace.get<float>(Workspace::tiled_blocks, count * x.tokens * x.segments) : nullptr;
    for (std::size_t i = 0; i < tilings.size(); ++i) {
      TilingTask<Arch>& task = of[i];
      const Index parts = tilings[i].chunks ? chunk_count(x) : x.segments;
      task.made = {x.tokens, strides[i], parts, x.codes, nullptr, x.scales, nullptr, by_matrix};
      task.tiling = tilings[i];
      task.as_they_are = !by_matrix && x.tokens == 1 && x.stride == strides[i];
      task.codes = codes, task.starts = starts, task.blocks = blocks;
      codes += tokens * strides[i], starts += x.tokens * x.segments;
      if (blocks) blocks += x.tokens * x.segments;
    }
  }
  /// `from` has the codes of token `begin`, and of those behind it.
  void run(const RoundedActivations& x, Index begin, Index end, const std::int8_t* from) const {
    for (Index i = 0; i < count; ++i) of[static_cast<std::size_t>(i)].run(x, begin, end, from);
  }
};

}  // namespace detail

template <class Arch, Executor E>
TiledActivations tile_activations(const RoundedActivations& x, const TiledWeights& w, Workspace& workspace, E&& executor) {
  const Tiling tiling = tiling_of<Arch>(w);
  const detail::TilingTasks<Arch> tasks(x, {&tiling, 1}, workspace);
  parallel_tiles(executor, x.tokens, Arch::token_group,
                 [&](Index begin, Index end) { tasks.run(x, begin, end, x.codes + begin * x.stride); });
  return tasks.of[0].activations();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
