#pragma once
// Causal attention with grouped queries over the KV cache, 32 positions at a time: floats where the cache holds floats, codes
// decoded into the first-level cache. The softmax keeps a running maximum. Readable twin: reference/attention.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/nn/kv_cache.hpp>
#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::nn {
inline namespace ANYBIT_CODE {

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

  /// Turns `valid` of `count` scores into p, the others into 0; count is a multiple of 16. Returns what earlier sums are to be
  /// multiplied by.
  ANYBIT_INLINE float take(float* scores, Index valid, Index count) {
    std::fill(scores + valid, scores + count, -std::numeric_limits<float>::infinity());
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

/// Rows of stacked queries (scaled) of tokens at positions p0 .. p0 + tokens - 1, all in one block of positions, against one
/// key-value head: sums of values in scratch.mixed, to be divided by the sums in scratch.softmax. Row i is of token i /
/// rows_per_token.
inline void attend(const KvCache& cache, Index layer, Index kv_head, Index p0, Index tokens, Index rows_per_token, Index head_dim,
                   AttentionScratch& s) {
  const Index rows = tokens * rows_per_token, last_block = p0 / kv_block, floats_from = cache.first_float_block(p0);
  const Index d_padded = cache.value_stride(), scores_stride = s.scores.stride;
  std::fill_n(s.softmax.begin(), rows, RunningSoftmax());
  std::fill_n(s.mixed.data, rows * d_padded, 0.0f);
  constexpr Index blocks_per_stretch = attention_stretch / kv_block;
  for (Index b0 = 0; b0 <= last_block; b0 += blocks_per_stretch) {
    const Index b1 = std::min(b0 + blocks_per_stretch, last_block + 1);
    for (Index b = b0; b < b1; ++b) {
      const float* keys = cache.key_block(layer, b, kv_head, b < floats_from, s.block, s.bytes);
      block_product(s.queries.data, head_dim, rows, keys, kv_block, head_dim, s.scores.data + (b - b0) * kv_block, scores_stride,
                    kv_block, false);
    }
    for (Index row = 0; row < rows; ++row) {
      const Index valid = std::min(p0 + row / rows_per_token + 1, b1 * kv_block) - b0 * kv_block;
      const float factor =
          s.softmax[static_cast<std::size_t>(row)].take(s.scores.data + row * scores_stride, valid, (b1 - b0) * kv_block);
      float* mixed = s.mixed.data + row * d_padded;
      if (factor != 1)
        for (Index j = 0; j < d_padded; j += simd::width) simd::store(mixed + j, simd::load(mixed + j) * simd::broadcast(factor));
    }
    for (Index b = b0; b < b1; ++b) {
      const float* values = cache.value_block(layer, b, kv_head, b < floats_from, s.block, s.bytes);
      // Positions past the last token may hold anything.
      block_product(s.scores.data + (b - b0) * kv_block, scores_stride, rows, values, d_padded,
                    std::min(kv_block, p0 + tokens - b * kv_block), s.mixed.data, d_padded, d_padded, true);
    }
  }
}

}  // namespace detail

struct AttentionShape {
  Index heads = 0, kv_heads = 0, head_dim = 0;  ///< each key-value head serves heads / kv_heads query heads
};

/// out_th = sum_p softmax_p(q_th . k_p / sqrt(head_dim)) v_p over the positions p <= cache.length() + t. q and out are
/// (tokens, heads * head_dim); the cache has the tokens' own keys and values already, by append(). The same bits for any number
/// of threads and for tokens in pieces or at once.
inline void attention(const AttentionShape& c, ConstMatrix q, const KvCache& cache, Index layer, MutableMatrix out,
                      ExecutorRef executor) {
  const Index tokens = q.rows, group = c.heads / c.kv_heads, d = c.head_dim, first = cache.length();
  const Index tile0 = first / detail::attention_tile, tiles = ceil_div(first + tokens, detail::attention_tile) - tile0;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
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
      detail::attend(cache, layer, head0 / group, p0, p1 - p0, together, d, s);
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
