#pragma once
// Rounded activations as products with tiled weights read them: a group of tokens side by side, so that one pointer walks
// through all of them. Rows a power of two apart would also fall into the same few lines of the first-level cache.

#include <type_traits>

#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/arch.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

namespace detail {

/// Calls use(size, at) with sizes Most, Most / 2, .. 1 until n is covered.
template <int Most, class Use>
inline void in_powers(Index n, Use use) {
  Index at = 0;
  for (; n - at >= Most; at += Most) use(std::integral_constant<int, Most>(), at);
  if constexpr (Most > 1) in_powers<Most / 2>(n - at, [&](auto size, Index more) { use(size, at + more); });
}

}  // namespace detail

/// Tokens stand in groups of Arch::token_group, the last ones in groups of half as many, and so on. A group of n tokens that
/// starts at token t has its codes at codes + t * stride: 4 codes of its first token, of its second, .., then the next 4 of
/// each; and its sums, times what the weights want (TiledWeights::sum_factor), at sums + t * segments: those of segment 0, then
/// those of segment 1, ..
struct TiledActivations {
  Index tokens = 0, stride = 0, segments = 0;
  const std::int8_t* codes = nullptr;
  const std::int32_t* sums = nullptr;
  const float* scales = nullptr;
};

template <class Arch, Executor E>
TiledActivations tile_activations(const RoundedActivations& x, std::int32_t sum_factor, Workspace& workspace, E&& executor) {
  TiledActivations r{x.tokens, x.stride, x.segments, x.codes, nullptr, x.scales};
  auto* sums = workspace.get<std::int32_t>(Workspace::tiled_sums, x.tokens * x.segments);
  auto* codes = x.tokens > 1 ? workspace.get<std::int8_t>(Workspace::tiled_codes, x.tokens * x.stride) : nullptr;
  executor.parallel_for(x.tokens, Arch::token_group, [&](Index begin, Index end) {
    detail::in_powers<Arch::token_group>(end - begin, [&](auto group, Index at) {
      constexpr Index n = group();
      const Index first = begin + at;
      const std::int8_t* from = x.codes + first * x.stride;
      std::int8_t* to = codes + first * x.stride;
      for (Index k = 0; k < x.stride && codes; k += 4, to += 4 * n)
        for (Index t = 0; t < n; ++t) std::memcpy(to + 4 * t, from + t * x.stride + k, 4);
      for (Index s = 0; s < x.segments; ++s)
        for (Index t = 0; t < n; ++t) sums[first * x.segments + s * n + t] = sum_factor * x.sums[(first + t) * x.segments + s];
    });
  });
  if (codes) r.codes = codes;
  r.sums = sums;
  return r;
}

}  // namespace anybit::kernel::inline ANYBIT_CODE
