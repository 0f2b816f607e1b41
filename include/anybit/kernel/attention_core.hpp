#pragma once
// The one implementation of attention: rows of stacked queries against blocks of 32 positions, from whatever holds keys and
// values. The softmax keeps a running maximum, so memory does not grow with the number of positions.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <anybit/core/view.hpp>
#include <anybit/format/format.hpp>
#include <anybit/kernel/attention_inputs.hpp>
#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::kernel {
inline namespace ANYBIT_CODE {
namespace detail {

/// Tokens whose queries meet a block together: those of one block of positions, so that all see the same blocks as rows.
inline constexpr Index attention_tile = kv_block;
/// Positions between two looks at the maximum. Fixed, and counted from position 0, so that no result depends on the pieces in
/// which tokens came.
inline constexpr Index attention_stretch = 8 * kv_block;
/// From one row of scores to the next: past the stretch, so that a column of scores is not in one set of the cache.
inline constexpr Index scores_stride = attention_stretch + 16;
/// Rows of queries with which the heads of several keys and values are taken together, and those of one.
inline constexpr Index rows_of_many_heads = 32, rows_of_one_head = 128;

/// A block of keys (head_dim, 32) or of values (positions, head_dim rounded up to 16).
struct FloatBlock {
  const float* data = nullptr;
  Index stride = 0;
};

/// c(r, :) = or += sum over k < n of a(r, k) b(k, :), for Rows rows and Vectors vectors of columns; every sum in the order of k.
template <Index Rows, Index Vectors>
ANYBIT_INLINE void outer_products(const float* a, Index a_stride, const float* b, Index b_stride, Index n, float* c,
                                  Index c_stride, bool accumulate) {
  constexpr auto R = static_cast<std::size_t>(Rows), V = static_cast<std::size_t>(Vectors);
  simd::f32 sum[R][V];
#pragma GCC unroll 8
  for (Index r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (Index v = 0; v < Vectors; ++v) sum[r][v] = accumulate ? simd::load(c + r * c_stride + v * simd::width) : simd::zero();
  for (Index k = 0; k < n; ++k) {
    simd::f32 row[V];
#pragma GCC unroll 4
    for (Index v = 0; v < Vectors; ++v) row[v] = simd::load(b + k * b_stride + v * simd::width);
#pragma GCC unroll 8
    for (Index r = 0; r < Rows; ++r) {
      const simd::f32 x = simd::broadcast(a[r * a_stride + k]);
#pragma GCC unroll 4
      for (Index v = 0; v < Vectors; ++v) sum[r][v] = simd::fma(x, row[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (Index r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (Index v = 0; v < Vectors; ++v) simd::store(c + r * c_stride + v * simd::width, sum[r][v]);
}

/// The same for any number of rows and of columns, the latter a multiple of 16.
inline void block_product(const float* a, Index a_stride, Index rows, const float* b, Index b_stride, Index n, float* c,
                          Index c_stride, Index cols, bool accumulate) {
  const auto stripe = [&]<Index Vectors, Index Tall>(std::integral_constant<Index, Vectors>, std::integral_constant<Index, Tall>,
                                                     Index j) {
    Index r = 0;
    const auto some = [&]<Index Rows>(std::integral_constant<Index, Rows>) {
      outer_products<Rows, Vectors>(a + r * a_stride, a_stride, b + j, b_stride, n, c + r * c_stride + j, c_stride, accumulate);
      r += Rows;
    };
    while (rows - r >= Tall) some(std::integral_constant<Index, Tall>());
    if constexpr (Tall > 4)
      if (rows - r >= 4) some(std::integral_constant<Index, 4>());
    if constexpr (Tall > 2)
      if (rows - r >= 2) some(std::integral_constant<Index, 2>());
    if (rows - r >= 1) some(std::integral_constant<Index, 1>());
  };
  // Sums and operands fill the registers.
  constexpr Index tall = simd::registers == 32 ? 8 : 4, wide = 2;
  Index j = 0;
  if (rows == 1)  // more sums than two at a time, which wait for each other
    for (; cols - j >= 4 * simd::width; j += 4 * simd::width)
      stripe(std::integral_constant<Index, 4>(), std::integral_constant<Index, 1>(), j);
  for (; cols - j >= wide * simd::width; j += wide * simd::width)
    stripe(std::integral_constant<Index, wide>(), std::integral_constant<Index, tall>(), j);
  for (; cols - j > 0; j += simd::width) stripe(std::integral_constant<Index, 1>(), std::integral_constant<Index, tall>(), j);
}

/// Softmax of a row as it grows: p = e^(score - maximum), the sum of all p, and sums of values under the same maximum.
struct RunningSoftmax {
  float maximum = -std::numeric_limits<float>::infinity(), sum = 0;

  /// Turns scores begin .. end - 1 of `count` into p, the others into 0; count is a multiple of 16. Returns what earlier sums are
  /// to be multiplied by.
  ANYBIT_INLINE float take(float* scores, Index begin, Index end, Index count) {
    if (begin >= end) {
      std::fill(scores, scores + count, 0.0f);
      return 1;
    }
    std::fill(scores, scores + begin, -std::numeric_limits<float>::infinity());
    std::fill(scores + end, scores + count, -std::numeric_limits<float>::infinity());
    simd::f32 top = simd::broadcast(maximum);
    for (Index i = 0; i < count; i += simd::width) top = simd::max(top, simd::load(scores + i));
    const float now = simd::reduce_max(top), factor = std::exp(maximum - now);
    const simd::f32 shift = simd::broadcast(now);
    simd::f32 total = simd::zero();
    for (Index i = 0; i < count; i += simd::width) {
      const simd::f32 p = simd::exp(simd::load(scores + i) - shift);
      simd::store(scores + i, p);
      total = total + p;
    }
    sum = sum * factor + simd::reduce_add(total);
    maximum = now;
    return factor;
  }
};

/// The positions begin .. end - 1 that a query sees. Both grow with the query's own position.
struct SeenPositions {
  Index begin = 0, end = 0;
};
/// Of the query of position p, where there are `length` positions.
inline SeenPositions seen_positions(const AttentionOptions& o, Index p, Index length) {
  const Index end = o.causal ? p + 1 : length;
  if (o.window == 0) return {0, end};
  return {std::max(p - o.window + 1, Index{0}), o.window < end - p ? p + o.window : end};
}

/// Soft cap and slope for the scores begin .. end - 1 of a query at position p; scores[i] is of position first + i.
inline void adjust_scores(const AttentionOptions& o, float slope, Index p, Index first, Index begin, Index end, float* scores) {
  float counted[static_cast<std::size_t>(simd::width)];
  for (Index i = 0; i < simd::width; ++i) counted[i] = static_cast<float>(i);
  const simd::f32 lanes = simd::load(counted), cap = simd::broadcast(o.soft_cap), per_cap = simd::broadcast(1 / o.soft_cap);
  for (Index i = begin / simd::width * simd::width; i < end; i += simd::width) {
    simd::f32 s = simd::load(scores + i);
    if (o.soft_cap > 0) s = cap * simd::tanh(s * per_cap);
    const simd::f32 distance = simd::abs(lanes + simd::broadcast(static_cast<float>(first + i - p)));
    if (slope != 0) s = simd::fma(simd::broadcast(-slope), distance, s);
    simd::store(scores + i, s);
  }
}

/// Whether (rows, cols) floats are neither infinite nor NaN.
inline bool finite_rows(const float* x, Index rows, Index cols, Index stride) {
  for (Index r = 0; r < rows; ++r)
    if (!all_finite({x + r * stride, static_cast<std::size_t>(cols)})) return false;
  return true;
}

/// Tokens of a tile at most, and the units of work: one tile and head each, the heads of a tile one after the other.
struct AttentionTiles {
  Index first_tile = 0, count = 0, most_tokens = 0;
  explicit AttentionTiles(const AttentionInputs& a)
      : first_tile(a.first / attention_tile),
        count(a.tokens == 0 ? 0 : ceil_div(a.first + a.tokens, attention_tile) - first_tile),
        most_tokens(std::min(a.tokens, attention_tile)) {}
};

/// How many heads from `head` on are taken together in tiles of `tokens`, before `end`: some of one head of keys and values, or
/// all of several.
inline Index heads_together(const AttentionShape& s, Index tokens, Index head, Index end) {
  const Index group = s.heads / s.kv_heads, of_this = std::min((head / group + 1) * group, end) - head;
  if (of_this * tokens > rows_of_one_head) return std::min(of_this, std::max(rows_of_one_head / tokens, Index{1}));
  const Index more = (rows_of_many_heads - of_this * tokens) / (group * tokens);
  return more <= 0 ? of_this : std::min(of_this + more * group, end - head);
}

/// The first multiple of 64 from `p` on.
inline std::byte* next_line(std::byte* p) { return p + (64 - reinterpret_cast<std::uintptr_t>(p) % 64) % 64; }

/// The caller's workspace, cut into parts that begin at multiples of 64 bytes.
struct AttentionWorkspace {
  float *queries = nullptr, *mixed = nullptr, *scores = nullptr, *block = nullptr;
  RunningSoftmax* softmax = nullptr;
  std::uint8_t* bytes = nullptr;  ///< of the source

  /// Bytes, with what it takes to begin at a multiple of 64. Sets no pointer for a null `memory`.
  static Index cut(const AttentionInputs& a, Index source_bytes, std::byte* memory, AttentionWorkspace& w) {
    const Index tokens = AttentionTiles(a).most_tokens, d = a.shape.head_dim, d_padded = round_up(d, 16);
    const Index group = a.shape.heads / a.shape.kv_heads;
    // A chunk of one head of keys and values may have more rows than rows_of_one_head only if one query head has.
    const Index rows = std::min(a.shape.heads * tokens, std::max({rows_of_one_head, rows_of_many_heads, tokens}));
    const Index one_head = std::min(group * tokens, std::max(rows_of_one_head, tokens));
    const Index floats[] = {rows * d, rows * d_padded, one_head * scores_stride, kv_block * d_padded, 2 * rows};
    Index offsets[6] = {}, end = 0;
    for (std::size_t i = 0; i < 5; ++i) offsets[i] = end, end += round_up(floats[i] * Index{sizeof(float)}, 64);
    offsets[5] = end, end += source_bytes;
    if (memory != nullptr) {
      std::byte* const begin = next_line(memory);
      const auto part = [&](std::size_t i) { return reinterpret_cast<float*>(begin + offsets[i]); };
      w.queries = part(0), w.mixed = part(1), w.scores = part(2), w.block = part(3);
      w.softmax = reinterpret_cast<RunningSoftmax*>(begin + offsets[4]);
      w.bytes = reinterpret_cast<std::uint8_t*>(begin + offsets[5]);
    }
    return end + 63;
  }
};

/// Where keys and values come from: all that attention asks of a `Source`.
///   Index first_block_of_rows(Index p)       blocks before it are codes for the query of position p
///   FloatBlock keys(b, head, n, codes, w)    of the first n positions of block b, in place or in w.block; `codes`: from codes
///   FloatBlock values(b, head, n, codes, w)
///   void prefetch(b, head, codes)            what keys() and values() will read
///   void turn(float*), void turn_back(float*)  a rotation of queries and results
///
/// Heads h0 .. h1 - 1 for tokens at positions p0 .. p1 - 1, which lie in one tile.
template <class Source>
void attend(const AttentionInputs& a, const Source& source, Index p0, Index p1, Index h0, Index h1, AttentionWorkspace& w) {
  const AttentionOptions& o = a.options;
  const Index d = a.shape.head_dim, d_padded = round_up(d, 16), group = a.shape.heads / a.shape.kv_heads, tokens = p1 - p0;
  const float scale = o.scale == 0 ? 1.0f / std::sqrt(static_cast<float>(d)) : o.scale;
  const bool adjusted = o.soft_cap > 0 || !o.slopes.empty();
  const SeenPositions first = seen_positions(o, p0, a.length), last = seen_positions(o, p1 - 1, a.length);
  const Index first_block = first.begin / kv_block, end_block = ceil_div(last.end, kv_block);
  const Index rows_from = source.first_block_of_rows(p0);

  // The rows of a head of keys and values: those of its heads that are taken, token after token.
  struct Rows {
    Index kv_head, h0, heads, begin, count;
  };
  const auto rows_of = [&](Index kv_head) {
    const Index from = std::max(kv_head * group, h0), to = std::min((kv_head + 1) * group, h1);
    return Rows{kv_head, from, to - from, (from - h0) * tokens, (to - from) * tokens};
  };
  const Index kv0 = h0 / group, kv1 = (h1 - 1) / group + 1;
  for (Index kv_head = kv0; kv_head < kv1; ++kv_head) {
    const Rows rows = rows_of(kv_head);
    for (Index row = 0; row < rows.count; ++row) {
      const float* from = a.q.at(p0 - a.first + row / rows.heads, rows.h0 + row % rows.heads);
      float* to = w.queries + (rows.begin + row) * d;
      for (Index j = 0; j < d; ++j) to[j] = from[j] * scale;
      source.turn(to);
    }
  }
  std::fill_n(w.softmax, (h1 - h0) * tokens, RunningSoftmax());
  std::fill_n(w.mixed, (h1 - h0) * tokens * d_padded, 0.0f);

  constexpr Index blocks_per_stretch = attention_stretch / kv_block;
  for (Index stretch = first_block / blocks_per_stretch * blocks_per_stretch; stretch < end_block;
       stretch += blocks_per_stretch) {
    const Index b0 = std::max(stretch, first_block), b1 = std::min(stretch + blocks_per_stretch, end_block), from = b0 * kv_block;
    for (Index kv_head = kv0; kv_head < kv1; ++kv_head) {
      const Rows rows = rows_of(kv_head);
      const float* const queries = w.queries + rows.begin * d;
      float* const mixed = w.mixed + rows.begin * d_padded;
      RunningSoftmax* const softmax = w.softmax + rows.begin;
      for (Index b = b0; b < b1; ++b) {
        const Index n = std::min(kv_block, last.end - b * kv_block);
        const FloatBlock keys = source.keys(b, kv_head, n, b < rows_from, w);
        block_product(queries, d, rows.count, keys.data, keys.stride, d, w.scores + b * kv_block - from, scores_stride, kv_block,
                      false);
      }
      for (Index row = 0; row < rows.count; ++row) {
        const Index p = p0 + row / rows.heads;
        const SeenPositions seen = seen_positions(o, p, a.length);
        const Index begin = std::max(seen.begin, from) - from, end = std::min(seen.end, b1 * kv_block) - from;
        float* const scores = w.scores + row * scores_stride;
        if (adjusted) {
          const auto head = static_cast<std::size_t>(rows.h0 + row % rows.heads);
          adjust_scores(o, o.slopes.empty() ? 0 : o.slopes[head], p, from, begin, end, scores);
        }
        const float factor = softmax[row].take(scores, begin, end, (b1 - b0) * kv_block);
        float* const sums = mixed + row * d_padded;
        if (factor != 1)
          for (Index j = 0; j < d_padded; j += simd::width) simd::store(sums + j, simd::load(sums + j) * simd::broadcast(factor));
      }
      for (Index b = b0; b < b1; ++b) {
        // Positions past the last one that is seen may hold anything.
        const Index n = std::min(kv_block, last.end - b * kv_block);
        const FloatBlock values = source.values(b, kv_head, n, b < rows_from, w);
        float* const scores = w.scores + b * kv_block - from;
        const bool by_all = last.begin <= b * kv_block && b * kv_block + n <= first.end;
        if (by_all || finite_rows(values.data, n, d, values.stride)) {
          block_product(scores, scores_stride, rows.count, values.data, values.stride, n, mixed, d_padded, d_padded, true);
          continue;
        }
        // Zero times NaN or infinity would reach tokens that do not see it.
        for (Index row = 0; row < rows.count; ++row) {
          const SeenPositions seen = seen_positions(o, p0 + row / rows.heads, a.length);
          const Index begin = std::max(seen.begin - b * kv_block, Index{0}), end = std::min(seen.end - b * kv_block, kv_block);
          if (begin < end)
            block_product(scores + row * scores_stride + begin, scores_stride, 1, values.data + begin * values.stride,
                          values.stride, end - begin, mixed + row * d_padded, d_padded, d_padded, true);
        }
      }
    }
  }

  for (Index kv_head = kv0; kv_head < kv1; ++kv_head) {
    const Rows rows = rows_of(kv_head);
    for (Index row = 0; row < rows.count; ++row) {
      const float* from = w.mixed + (rows.begin + row) * d_padded;
      const float factor = 1.0f / w.softmax[rows.begin + row].sum;
      float* to = a.out.at(p0 - a.first + row / rows.heads, rows.h0 + row % rows.heads);
      for (Index j = 0; j < d; ++j) to[j] = from[j] * factor;
      source.turn_back(to);
    }
  }
}

/// Units begin .. end - 1. `workspace` has AttentionWorkspace::cut() bytes.
template <class Source>
void attention_units(const AttentionInputs& a, const Source& source, Index begin, Index end, std::byte* workspace) {
  AttentionWorkspace w;
  AttentionWorkspace::cut(a, source.bytes(), workspace, w);
  const Index first_tile = AttentionTiles(a).first_tile;
  for (Index unit = begin; unit < end;) {
    const Index tile = first_tile + unit / a.shape.heads, h0 = unit % a.shape.heads;
    const Index p0 = std::max(tile * attention_tile, a.first), p1 = std::min((tile + 1) * attention_tile, a.first + a.tokens);
    const Index h1 = h0 + heads_together(a.shape, p1 - p0, h0, std::min(a.shape.heads, h0 + end - unit));
    attend(a, source, p0, p1, h0, h1, w);
    unit += h1 - h0;
  }
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
