#pragma once
// Attention with grouped queries over the KV cache, 32 positions at a time: floats where the cache holds floats, codes decoded
// into the first-level cache. The softmax keeps a running maximum. Readable twin: reference/attention.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/format/format.hpp>
#include <anybit/nn/kv_cache.hpp>
#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::nn {
inline namespace ANYBIT_CODE {

struct AttentionShape {
  Index heads = 0, kv_heads = 0, head_dim = 0;  ///< each key-value head serves heads / kv_heads query heads
};

struct AttentionOptions {
  float scale = 0;                ///< of the products of queries and keys; 0: 1 / sqrt(head_dim)
  float soft_cap = 0;             ///< c > 0: c tanh(s / c) in place of each scaled product s (Gemma 2, arXiv:2408.00118)
  Index window = 0;               ///< w > 0: a query sees positions less than w away from its own, itself included
  std::span<const float> slopes;  ///< of each head: slope * distance is subtracted (ALiBi, arXiv:2108.12409); empty: nothing is
  bool causal = true;             ///< false: a query sees later positions as well, up to the last one given
};

namespace detail {

/// Tokens whose queries meet a block together: those of one block of positions, so that all see the same blocks as floats.
inline constexpr Index attention_tile = kv_block;
/// Positions between two looks at the maximum. Fixed, and counted from position 0, so that no result depends on the pieces in
/// which tokens came.
inline constexpr Index attention_stretch = 8 * kv_block;

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
  constexpr Index tall = simd::width == 16 ? 6 : 3, wide = simd::width == 16 ? 2 : 4;  // sums and operands fill the registers
  constexpr Index step = wide * simd::width;
  Index j = 0;
  const auto columns = [&]<Index Vectors>(std::integral_constant<Index, Vectors>) {
    Index r = 0;
    const auto some = [&]<Index Rows>(std::integral_constant<Index, Rows>) {
      outer_products<Rows, Vectors>(a + r * a_stride, a_stride, b + j, b_stride, n, c + r * c_stride + j, c_stride, accumulate);
      r += Rows;
    };
    while (rows - r >= tall) some(std::integral_constant<Index, tall>());
    if constexpr (tall > 3)
      if (rows - r >= 3) some(std::integral_constant<Index, 3>());
    while (rows - r > 0) some(std::integral_constant<Index, 1>());
    j += Vectors * simd::width;
  };
  while (cols - j >= step) columns(std::integral_constant<Index, wide>());
  while (cols - j > 0) columns(std::integral_constant<Index, 1>());
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

/// Scratch of one thread. It grows and stays, so that a warm thread allocates nothing.
struct AttentionScratch {
  MutableMatrix queries, scores, mixed;
  float* block = nullptr;
  std::uint8_t* bytes = nullptr;
  std::vector<RunningSoftmax> softmax;

  void fit(const KvCache& cache, Index rows, Index head_dim, Index positions) {
    const Index stretch = std::min(round_up(positions, kv_block), attention_stretch), values = cache.value_stride();
    const Index block_floats = cache.config().quantized() ? cache.block_floats() : 0;
    const Index scratch_bytes = cache.config().quantized() ? cache.scratch_bytes() : 0;
    // Each part begins at a multiple of 64 bytes.
    const Index parts[] = {round_up(rows * head_dim, 16), round_up(rows * stretch, 16), round_up(rows * values, 16),
                           round_up(block_floats, 16)};
    const auto needed = static_cast<std::size_t>(4 * (parts[0] + parts[1] + parts[2] + parts[3]) + scratch_bytes);
    if (memory_.size() < needed) memory_ = AlignedBuffer(needed);
    float* at = memory_.as<float>();
    queries = {at, rows, head_dim}, at += parts[0];
    scores = {at, rows, stretch}, at += parts[1];
    mixed = {at, rows, values}, at += parts[2];
    block = at, at += parts[3];
    bytes = reinterpret_cast<std::uint8_t*>(at);
    if (softmax.size() < static_cast<std::size_t>(rows)) softmax.resize(static_cast<std::size_t>(rows));
  }

 private:
  AlignedBuffer memory_;
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

/// Rows of stacked queries (scaled) of tokens at positions p0 .. p0 + tokens - 1, all in one block of positions, against one
/// key-value head: sums of values in scratch.mixed, to be divided by the sums in scratch.softmax. Row i is of token i /
/// rows_per_token and of head head0 + i % rows_per_token.
inline void attend(const AttentionOptions& o, const KvCache& cache, Index layer, Index kv_head, Index head0, Index p0,
                   Index tokens, Index rows_per_token, Index head_dim, Index length, AttentionScratch& s) {
  const Index rows = tokens * rows_per_token, floats_from = cache.first_float_block(p0);
  const Index d_padded = cache.value_stride(), scores_stride = s.scores.stride;
  const SeenPositions first = seen_positions(o, p0, length), last = seen_positions(o, p0 + tokens - 1, length);
  const Index first_block = first.begin / kv_block, end_block = ceil_div(last.end, kv_block);
  const bool adjusted = o.soft_cap > 0 || !o.slopes.empty();
  std::fill_n(s.softmax.begin(), rows, RunningSoftmax());
  std::fill_n(s.mixed.data, rows * d_padded, 0.0f);
  constexpr Index blocks_per_stretch = attention_stretch / kv_block;
  for (Index stretch = first_block / blocks_per_stretch * blocks_per_stretch; stretch < end_block;
       stretch += blocks_per_stretch) {
    const Index b0 = std::max(stretch, first_block), b1 = std::min(stretch + blocks_per_stretch, end_block), from = b0 * kv_block;
    for (Index b = b0; b < b1; ++b) {
      const float* keys = cache.key_block(layer, b, kv_head, b < floats_from, s.block, s.bytes);
      block_product(s.queries.data, head_dim, rows, keys, kv_block, head_dim, s.scores.data + b * kv_block - from, scores_stride,
                    kv_block, false);
    }
    for (Index row = 0; row < rows; ++row) {
      const Index p = p0 + row / rows_per_token;
      const SeenPositions seen = seen_positions(o, p, length);
      const Index begin = std::max(seen.begin, from) - from, end = std::min(seen.end, b1 * kv_block) - from;
      float* const scores = s.scores.data + row * scores_stride;
      if (adjusted) {
        const auto head = static_cast<std::size_t>(head0 + row % rows_per_token);
        adjust_scores(o, o.slopes.empty() ? 0 : o.slopes[head], p, from, begin, end, scores);
      }
      const float factor = s.softmax[static_cast<std::size_t>(row)].take(scores, begin, end, (b1 - b0) * kv_block);
      float* mixed = s.mixed.data + row * d_padded;
      if (factor != 1)
        for (Index j = 0; j < d_padded; j += simd::width) simd::store(mixed + j, simd::load(mixed + j) * simd::broadcast(factor));
    }
    for (Index b = b0; b < b1; ++b) {
      const float* values = cache.value_block(layer, b, kv_head, b < floats_from, s.block, s.bytes);
      float* const scores = s.scores.data + b * kv_block - from;
      // Positions past the last one that is seen may hold anything.
      const Index seen = std::min(kv_block, last.end - b * kv_block);
      const bool by_all = last.begin <= b * kv_block && b * kv_block + seen <= first.end;
      if (by_all || finite_rows(values, seen, head_dim, d_padded)) {
        block_product(scores, scores_stride, rows, values, d_padded, seen, s.mixed.data, d_padded, d_padded, true);
        continue;
      }
      // Zero times NaN or infinity would reach tokens that do not see it.
      for (Index row = 0; row < rows; ++row) {
        const SeenPositions some = seen_positions(o, p0 + row / rows_per_token, length);
        const Index begin = std::max(some.begin - b * kv_block, Index{0}), end = std::min(some.end - b * kv_block, kv_block);
        if (begin < end)
          block_product(scores + row * scores_stride + begin, scores_stride, 1, values + begin * d_padded, d_padded, end - begin,
                        s.mixed.data + row * d_padded, d_padded, d_padded, true);
      }
    }
  }
}

}  // namespace detail

/// out_th = sum_p softmax_p(q_th . k_p / sqrt(head_dim)) v_p over the positions p <= cache.length() + t, or as the options say. q
/// and out are (tokens, heads * head_dim); the cache has the tokens' own keys and values already, by append(). The same bits for
/// any number of threads and, where causal, for tokens in pieces or at once. NaN or infinity in a token reaches only the tokens
/// that see it, and in a cache of codes those that share its group.
inline void attention(const AttentionShape& c, ConstMatrix q, const KvCache& cache, Index layer, MutableMatrix out,
                      ExecutorRef executor, const AttentionOptions& options = {}) {
  ANYBIT_CHECK(options.window >= 0, "nn::attention: a window is a number of positions, 0 for none");
  ANYBIT_CHECK(options.soft_cap >= 0, "nn::attention: a soft cap is positive, 0 for none");
  ANYBIT_CHECK(options.slopes.empty() || static_cast<Index>(options.slopes.size()) == c.heads,
               "nn::attention: one slope for each head of queries");
  const Index tokens = q.rows, group = c.heads / c.kv_heads, d = c.head_dim, first = cache.length();
  const Index tile0 = first / detail::attention_tile, tiles = ceil_div(first + tokens, detail::attention_tile) - tile0;
  const float scale = options.scale == 0 ? 1.0f / std::sqrt(static_cast<float>(d)) : options.scale;
  // The heads of a group share keys and values, so their queries are stacked, unless threads would be idle then.
  const Index parts = tiles * c.kv_heads < executor.concurrency() * 2 && executor.concurrency() > 1 ? group : 1;
  const Index together = group / parts;
  const Hadamard* const rotation = cache.rotation();

  executor.parallel_for(tiles * c.kv_heads * parts, 1, [&](Index begin, Index end) {
    thread_local detail::AttentionScratch s;
    s.fit(cache, std::min(tokens, detail::attention_tile) * together, d, first + tokens);
    for (Index item = begin; item < end; ++item) {
      const Index head0 = item % (c.kv_heads * parts) * together, tile = tile0 + item / (c.kv_heads * parts);
      const Index p0 = std::max(tile * detail::attention_tile, first),
                  p1 = std::min((tile + 1) * detail::attention_tile, first + tokens), rows = (p1 - p0) * together;
      const auto offset = [&](Index row, Index stride) {
        return (p0 - first + row / together) * stride + (head0 + row % together) * d;
      };
      for (Index row = 0; row < rows; ++row) {
        const float* from = q.data + offset(row, q.stride);
        float* to = s.queries.data + row * d;
        for (Index j = 0; j < d; ++j) to[j] = from[j] * scale;
        if (rotation) rotation->forward({to, static_cast<std::size_t>(d)});
      }
      detail::attend(options, cache, layer, head0 / group, head0, p0, p1 - p0, together, d, first + tokens, s);
      for (Index row = 0; row < rows; ++row) {
        const float* from = s.mixed.data + row * s.mixed.stride;
        const float factor = 1.0f / s.softmax[static_cast<std::size_t>(row)].sum;
        float* to = out.data + offset(row, out.stride);
        for (Index j = 0; j < d; ++j) to[j] = from[j] * factor;
        if (rotation) rotation->inverse({to, static_cast<std::size_t>(d)});
      }
    }
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
