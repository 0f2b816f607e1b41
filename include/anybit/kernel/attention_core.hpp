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
#include <anybit/kernel/attention_bf16.hpp>
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
static_assert(attention_tile <= rows_of_many_heads && rows_of_many_heads <= rows_of_one_head);

/// How many blocks of a head memory is asked for ahead of what is computed.
inline constexpr Index blocks_ahead = 2;

/// Asks for n bytes.
inline void prefetch_bytes(const void* p, Index n) {
  for (Index at = 0; at < n; at += 64) __builtin_prefetch(static_cast<const std::byte*>(p) + at, 0, 2);
  asm volatile("");  // g++ drops calls of a function that has no effect but this
}
/// The same for `rows` runs of n bytes, `stride` apart.
inline void prefetch_rows(const void* p, Index stride, Index rows, Index n) {
  for (Index r = 0; r < rows; ++r) prefetch_bytes(static_cast<const std::byte*>(p) + r * stride, n);
}

/// A block of keys (head_dim, 32) or of values (positions, head_dim rounded up to 16), row k at k * stride: floats, halves, or
/// codes as bytes, of which each run of 32 columns has a scale and an offset.
struct Block {
  enum class Kind : std::uint8_t { f32, f16, bf16, codes };
  const void* data = nullptr;
  Index stride = 0;  ///< in elements
  Kind kind = Kind::f32;
  const float *scales = nullptr, *offsets = nullptr;  ///< (rows, groups)
  Index groups = 0;
};
/// Rows of queries up to which a block is read as it is: with more of them it would be decoded more than once.
inline constexpr Index few_rows = simd::registers == 32 ? 8 : 4;

/// Vector v of those from column j on, of row k.
template <Block::Kind Kind>
struct BlockReader {
  explicit BlockReader(const Block& block) : b(block) {}
  ANYBIT_INLINE simd::f32 operator()(Index k, Index j, Index v) const {
    const Index at = k * b.stride + j + v * simd::width;
    if constexpr (Kind == Block::Kind::f32) return simd::load(static_cast<const float*>(b.data) + at);
    if constexpr (Kind == Block::Kind::f16) return simd::load_f16(static_cast<const std::uint16_t*>(b.data) + at);
    if constexpr (Kind == Block::Kind::bf16) return simd::load_bf16(static_cast<const std::uint16_t*>(b.data) + at);
    if constexpr (Kind == Block::Kind::codes) {
      // Vectors that cross from one group into the next begin with a group.
      const Index group = k * b.groups + j / kv_group + v * simd::width / kv_group;
      return simd::fma(simd::broadcast(b.scales[group]), simd::load_f32(static_cast<const std::uint8_t*>(b.data) + at),
                       simd::broadcast(b.offsets[group]));
    }
  }
  Block b;
};

/// c(r, :) = or += sum over k < n of a(r, k) b(k, :), for Rows rows and Vectors vectors of columns from j on; every sum in the
/// order of k.
template <Index Rows, Index Vectors, class Reader>
ANYBIT_INLINE void outer_products(const float* a, Index a_stride, const Reader& b, Index j, Index n, float* c, Index c_stride,
                                  bool accumulate) {
  constexpr auto R = static_cast<std::size_t>(Rows), V = static_cast<std::size_t>(Vectors);
  simd::f32 sum[R][V];
#pragma GCC unroll 8
  for (Index r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (Index v = 0; v < Vectors; ++v)
      sum[r][v] = accumulate ? simd::load(c + r * c_stride + j + v * simd::width) : simd::zero();
  for (Index k = 0; k < n; ++k) {
    simd::f32 row[V];
#pragma GCC unroll 4
    for (Index v = 0; v < Vectors; ++v) row[v] = b(k, j, v);
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
    for (Index v = 0; v < Vectors; ++v) simd::store(c + r * c_stride + j + v * simd::width, sum[r][v]);
}

/// The same for any number of rows and of columns, the latter a multiple of 16.
template <class Reader>
void block_product(const float* a, Index a_stride, Index rows, const Reader& b, Index n, float* c, Index c_stride, Index cols,
                   bool accumulate) {
  const auto stripe = [&]<Index Vectors, Index Tall>(std::integral_constant<Index, Vectors>, std::integral_constant<Index, Tall>,
                                                     Index j) {
    Index r = 0;
    const auto some = [&]<Index Rows>(std::integral_constant<Index, Rows>) {
      outer_products<Rows, Vectors>(a + r * a_stride, a_stride, b, j, n, c + r * c_stride, c_stride, accumulate);
      r += Rows;
    };
    while (rows - r >= Tall) some(std::integral_constant<Index, Tall>());
    if constexpr (Tall > 4)
      if (rows - r >= 4) some(std::integral_constant<Index, 4>());
    if constexpr (Tall > 2)
      if (rows - r >= 2) some(std::integral_constant<Index, 2>());
    if constexpr (Tall > 1)
      if (rows - r >= 1) some(std::integral_constant<Index, 1>());
  };
  // Sums and operands fill the registers.
  constexpr Index tall = few_rows, wide = 2;
  Index j = 0;
  if (rows == 1)  // more sums than two at a time, which wait for each other
    for (; cols - j >= 4 * simd::width; j += 4 * simd::width)
      stripe(std::integral_constant<Index, 4>(), std::integral_constant<Index, 1>(), j);
  for (; cols - j >= wide * simd::width; j += wide * simd::width)
    stripe(std::integral_constant<Index, wide>(), std::integral_constant<Index, tall>(), j);
  for (; cols - j > 0; j += simd::width) stripe(std::integral_constant<Index, 1>(), std::integral_constant<Index, tall>(), j);
}
inline void block_product(const float* a, Index a_stride, Index rows, const Block& b, Index n, float* c, Index c_stride,
                          Index cols, bool accumulate) {
  using Kind = Block::Kind;
  switch (b.kind) {
    case Kind::f32: return block_product(a, a_stride, rows, BlockReader<Kind::f32>(b), n, c, c_stride, cols, accumulate);
    case Kind::f16: return block_product(a, a_stride, rows, BlockReader<Kind::f16>(b), n, c, c_stride, cols, accumulate);
    case Kind::bf16: return block_product(a, a_stride, rows, BlockReader<Kind::bf16>(b), n, c, c_stride, cols, accumulate);
    case Kind::codes: return block_product(a, a_stride, rows, BlockReader<Kind::codes>(b), n, c, c_stride, cols, accumulate);
  }
}

/// Softmax of a row as it grows: p = e^(score - maximum), the sum of all p, and sums of values under the same maximum.
struct RunningSoftmax {
  float maximum = -std::numeric_limits<float>::infinity(), sum = 0;

  /// Turns scores begin .. end - 1 of `count` into p, the others into 0; count is a multiple of 16. Returns what earlier sums are
  /// to be multiplied by. Without any to turn, does nothing.
  ANYBIT_INLINE float take(float* scores, Index begin, Index end, Index count) {
    if (begin >= end) return 1;
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

/// Adds the numbers of one head by distance to the scores begin .. end - 1 of a query at position p; scores[i] is of position
/// first + i, by_distance[0] of the query's own.
inline void add_distance_bias(const float* by_distance, Index reach, Index p, Index first, Index begin, Index end,
                              float* scores) {
  for (Index i = begin / simd::width * simd::width; i < end; i += simd::width) {
    const Index near = first + i - p, far = near + simd::width - 1;
    simd::f32 bias;
    if (near >= reach || far <= -reach) {
      bias = simd::broadcast(by_distance[near >= reach ? reach : -reach]);
    } else if (near >= -reach && far <= reach) {
      bias = simd::load(by_distance + near);
    } else {
      float lanes[static_cast<std::size_t>(simd::width)];
      for (Index lane = 0; lane < simd::width; ++lane) lanes[lane] = by_distance[std::clamp(near + lane, -reach, reach)];
      bias = simd::load(lanes);
    }
    simd::store(scores + i, simd::load(scores + i) + bias);
  }
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

/// Whether the first `rows` rows of a block of floats are neither infinite nor NaN.
inline bool finite_rows(const Block& b, Index rows, Index cols) {
  for (Index r = 0; r < rows; ++r)
    if (!all_finite({static_cast<const float*>(b.data) + r * b.stride, static_cast<std::size_t>(cols)})) return false;
  return true;
}

/// Units of work: one for each tile of tokens (those of one block of positions) and head. Those of a head of keys and values
/// follow each other, tile after tile, so that its keys and values are still near.
struct AttentionUnits {
  Index heads = 0, group = 0, first_tile = 0, tiles = 0;
  explicit AttentionUnits(const AttentionInputs& a)
      : heads(a.shape.heads),
        group(a.shape.heads / a.shape.kv_heads),
        first_tile(a.first / attention_tile),
        tiles(a.tokens == 0 ? 0 : ceil_div(a.first + a.tokens, attention_tile) - first_tile) {}
  Index count() const { return tiles * heads; }
};
/// Units that are done together: heads h0 .. h1 - 1 in tiles t0 .. t1 - 1.
struct UnitChunk {
  Index h0 = 0, h1 = 0, t0 = 0, t1 = 0;
  Index count() const { return (h1 - h0) * (t1 - t0); }
};
/// The next of them from `unit` on, before `end`: some heads of one head of keys and values, or all of several if there is one
/// tile, or, where all tiles see the same as rows, several tiles with all heads of one head of keys and values.
inline UnitChunk next_chunk(const AttentionUnits& u, Index unit, Index end, Index tokens, bool join_tiles) {
  const Index kv_head = unit / (u.tiles * u.group), tile = unit / u.group % u.tiles, h = unit % u.group;
  const Index h0 = kv_head * u.group + h, of_this = std::min(u.group - h, end - unit);
  const Index tile_tokens = std::min(tokens, attention_tile);
  UnitChunk c{h0, h0 + std::min(of_this, rows_of_one_head / tile_tokens), tile, tile + 1};
  if (c.h1 - c.h0 < of_this) return c;
  if (u.tiles == 1) {
    const Index more = (rows_of_many_heads - of_this * tokens) / (u.group * tokens);
    if (more > 0) c.h1 = std::min(c.h1 + more * u.group, h0 + end - unit);
  } else if (join_tiles && c.h1 - c.h0 == u.group) {
    const Index most = std::max(rows_of_one_head / (attention_tile * u.group), Index{1});
    c.t1 = tile + std::min({most, u.tiles - tile, (end - unit) / u.group});
  }
  return c;
}

/// The first multiple of 64 from `p` on.
inline std::byte* next_line(std::byte* p) { return p + (64 - reinterpret_cast<std::uintptr_t>(p) % 64) % 64; }

/// The caller's workspace, cut into parts that begin at multiples of 64 bytes.
struct AttentionWorkspace {
  float *queries = nullptr, *mixed = nullptr, *scores = nullptr, *block = nullptr;
  RunningSoftmax* softmax = nullptr;
  std::uint16_t *rounded_queries = nullptr, *rounded_scores = nullptr;  ///< for products in bfloat16
  std::uint8_t* pairs = nullptr;                                        ///< of the block, likewise
  std::uint8_t* bytes = nullptr;                                        ///< of the source

  /// Bytes, with what it takes to begin at a multiple of 64. Sets no pointer for a null `memory`.
  static Index cut(const AttentionInputs& a, Index source_bytes, std::byte* memory, AttentionWorkspace& w) {
    const Index d = a.shape.head_dim, d_padded = round_up(d, 16), columns = round_up(d, bf16_columns);
    const Index rows = std::min(a.shape.heads * std::min(a.tokens, rows_of_one_head), rows_of_one_head);  // of a chunk at most
    const bool in_bf16 = a.options.compute == Compute::bf16;
    const Index rows_of_halves = in_bf16 ? rows + bf16_rows_slack : 0, pairs = in_bf16 ? kv_block * columns : 0;
    Index end = 0;
    std::byte* const begin = memory == nullptr ? nullptr : next_line(memory);
    const auto take = [&]<class T>(T*& part, Index count) {
      if (begin != nullptr) part = reinterpret_cast<T*>(begin + end);
      end += round_up(count * Index{sizeof(T)}, 64);
    };
    take(w.queries, rows * d);
    take(w.mixed, rows * columns);
    take(w.scores, rows * scores_stride);
    take(w.block, kv_block * d_padded);
    take(w.softmax, rows);
    take(w.rounded_queries, rows_of_halves * columns);
    take(w.rounded_scores, rows_of_halves * kv_block);
    take(w.pairs, 2 * pairs);
    take(w.bytes, source_bytes);
    return end + 63;
  }
};

/// Codes of one block as a Block: of `any` kind, or as floats in w.block.
inline Block block_of(const KvCodec& codec, int bits, const KvBlockShape& shape, const std::byte* codes, bool any,
                      AttentionWorkspace& w) {
  // The last vector of a row of bytes or halves reads on into the next row.
  if (any && bits == 16) return {.data = codes, .stride = shape.cols, .kind = Block::Kind::f16};
  if (any) {
    const KvBytes b = codec.unpack(shape, codes, w.bytes);
    return {.data = b.codes,
            .stride = shape.cols,
            .kind = Block::Kind::codes,
            .scales = b.scales,
            .offsets = b.offsets,
            .groups = shape.groups_per_row()};
  }
  codec.decode(shape, codes, w.block, w.bytes);
  return {.data = w.block, .stride = shape.stride};
}

/// Where keys and values come from: all that attention asks of a `Source`.
///   Index bytes()                            of scratch in w.bytes
///   bool has_codes()
///   Index first_block_of_rows(Index p)       blocks before it are codes for the query of position p
///   Block keys(b, head, n, codes, any, w)    of the first n positions of block b, in place or in w.block; `codes`: from codes;
///   Block values(b, head, n, codes, any, w)  `any`: in any kind, otherwise as floats
///   void prefetch_keys(b, head, n, codes)    what keys() will read
///   void prefetch_values(b, head, n, codes)
///   void turn(float*), void turn_back(float*)  a rotation of queries and results
///
/// Heads h0 .. h1 - 1 for tokens at positions p0 .. p1 - 1, of which all see the same blocks as rows.
template <class Arch, class Source>
void attend(const AttentionInputs& a, const Source& source, Index p0, Index p1, Index h0, Index h1, AttentionWorkspace& w) {
  const AttentionOptions& o = a.options;
  const Index d = a.shape.head_dim, d_padded = round_up(d, 16), group = a.shape.heads / a.shape.kv_heads, tokens = p1 - p0;
  const Index columns = round_up(d, bf16_columns);  // of w.mixed and w.rounded_queries
  const bool in_bf16 = attends_in_bf16<Arch>(o);
  const TileScope<Arch> tiles(in_bf16);
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
      if (!in_bf16) continue;
      std::uint16_t* const rounded = w.rounded_queries + (rows.begin + row) * columns;
      round_to_bf16<Arch>(to, d, rounded);
      std::fill(rounded + d, rounded + columns, std::uint16_t{0});
    }
  }
  std::fill_n(w.softmax, (h1 - h0) * tokens, RunningSoftmax());
  std::fill_n(w.mixed, (h1 - h0) * tokens * columns, 0.0f);

  // The tokens that see something of a block, the positions of it up to the last one seen (later ones may hold anything), and
  // whether each of these tokens sees all of these positions.
  struct BlockTokens {
    Index begin, end, positions;
    bool all_of_it;
  };
  const auto tokens_seeing = [&](Index b) {
    const Index at = b * kv_block;
    Index t0 = 0, t1 = tokens;
    while (seen_positions(o, p0 + t0, a.length).end <= at) ++t0;
    while (seen_positions(o, p0 + t1 - 1, a.length).begin >= at + kv_block) --t1;
    const SeenPositions front = seen_positions(o, p0 + t0, a.length), back = seen_positions(o, p0 + t1 - 1, a.length);
    const Index n = std::min(kv_block, back.end - at);
    return BlockTokens{t0, t1, n, back.begin <= at && at + n <= front.end};
  };
  // The block that is read next but one: of the next heads, then of the next positions. At the end of a stretch there is none.
  const auto prefetch = [&](bool values, Index b, Index kv_head, Index b1) {
    kv_head += blocks_ahead;
    for (; kv_head >= kv1; kv_head -= kv1 - kv0) ++b;
    if (b >= b1) return;
    const Index n = std::min(kv_block, last.end - b * kv_block);
    values ? source.prefetch_values(b, kv_head, n, b < rows_from) : source.prefetch_keys(b, kv_head, n, b < rows_from);
  };

  constexpr Index blocks_per_stretch = attention_stretch / kv_block;
  for (Index stretch = first_block / blocks_per_stretch * blocks_per_stretch; stretch < end_block;
       stretch += blocks_per_stretch) {
    const Index b0 = std::max(stretch, first_block), b1 = std::min(stretch + blocks_per_stretch, end_block), from = b0 * kv_block;
    // Block after block and not head after head: where the heads of a position lie side by side, memory is read in its order.
    for (Index b = b0; b < b1; ++b) {
      const BlockTokens seeing = tokens_seeing(b);
      for (Index kv_head = kv0; kv_head < kv1; ++kv_head) {
        prefetch(false, b, kv_head, b1);
        const Rows rows = rows_of(kv_head);
        const Index row0 = rows.begin + seeing.begin * rows.heads, count = (seeing.end - seeing.begin) * rows.heads;
        const Block keys = source.keys(b, kv_head, seeing.positions, b < rows_from, !in_bf16 && count <= few_rows, w);
        float* const scores = w.scores + row0 * scores_stride + b * kv_block - from;
        if (!in_bf16) {
          block_product(w.queries + row0 * d, d, count, keys, d, scores, scores_stride, kv_block, false);
          continue;
        }
        pair_rows<Arch>(static_cast<const float*>(keys.data), keys.stride, 0, d, kv_block, w.pairs);
        bf16_block_product<Arch>(w.rounded_queries + row0 * columns, columns, count, w.pairs, columns, scores, scores_stride,
                                 kv_block, false);
      }
    }
    for (Index kv_head = kv0; kv_head < kv1; ++kv_head) {
      const Rows rows = rows_of(kv_head);
      for (Index row = 0; row < rows.count; ++row) {
        const Index p = p0 + row / rows.heads;
        const SeenPositions seen = seen_positions(o, p, a.length);
        const Index begin = std::max(seen.begin, from) - from, end = std::min(seen.end, b1 * kv_block) - from;
        float* const scores = w.scores + (rows.begin + row) * scores_stride;
        if (adjusted) {
          const auto head = static_cast<std::size_t>(rows.h0 + row % rows.heads);
          adjust_scores(o, o.slopes.empty() ? 0 : o.slopes[head], p, from, begin, end, scores);
        }
        if (!o.distance_bias.empty()) {
          const Index reach = o.reach(a.shape.heads);
          const float* const own = o.distance_bias.data() + (rows.h0 + row % rows.heads) * (2 * reach + 1) + reach;
          add_distance_bias(own, reach, p, from, begin, end, scores);
        }
        const float factor = w.softmax[rows.begin + row].take(scores, begin, end, (b1 - b0) * kv_block);
        float* const sums = w.mixed + (rows.begin + row) * columns;
        if (factor != 1)
          for (Index j = 0; j < d_padded; j += simd::width) simd::store(sums + j, simd::load(sums + j) * simd::broadcast(factor));
      }
    }
    for (Index b = b0; b < b1; ++b) {
      const BlockTokens seeing = tokens_seeing(b);
      for (Index kv_head = kv0; kv_head < kv1; ++kv_head) {
        prefetch(true, b, kv_head, b1);
        const Rows rows = rows_of(kv_head);
        const Index row0 = rows.begin + seeing.begin * rows.heads, count = (seeing.end - seeing.begin) * rows.heads;
        const Block values =
            source.values(b, kv_head, seeing.positions, b < rows_from, !in_bf16 && seeing.all_of_it && count <= few_rows, w);
        float* const scores = w.scores + row0 * scores_stride + b * kv_block - from;
        float* const mixed = w.mixed + row0 * columns;
        // Rows of softmax from `scores` on, times the values of positions begin .. end - 1 of the block.
        const auto mix = [&](float* some, Index some_rows, Index begin, Index end, float* to) {
          if (!in_bf16) {
            Block seen = values;
            if (begin > 0) seen.data = static_cast<const float*>(values.data) + begin * values.stride;
            block_product(some + begin, scores_stride, some_rows, seen, end - begin, to, columns, d_padded, true);
            return;
          }
          for (Index row = 0; row < some_rows; ++row)
            round_to_bf16<Arch>(some + row * scores_stride, kv_block, w.rounded_scores + row * kv_block);
          pair_rows<Arch>(static_cast<const float*>(values.data), values.stride, begin, end, d_padded, w.pairs);
          bf16_block_product<Arch>(w.rounded_scores, kv_block, some_rows, w.pairs, kv_block, to, columns, columns, true);
        };
        if (seeing.all_of_it || finite_rows(values, seeing.positions, d)) {
          mix(scores, count, 0, seeing.positions, mixed);
          continue;
        }
        // Zero times NaN or infinity would reach tokens that do not see it.
        for (Index row = 0; row < count; ++row) {
          const SeenPositions seen = seen_positions(o, p0 + seeing.begin + row / rows.heads, a.length);
          const Index begin = std::max(seen.begin - b * kv_block, Index{0}), end = std::min(seen.end - b * kv_block, kv_block);
          mix(scores + row * scores_stride, 1, begin, end, mixed + row * columns);
        }
      }
    }
  }

  for (Index kv_head = kv0; kv_head < kv1; ++kv_head) {
    const Rows rows = rows_of(kv_head);
    for (Index row = 0; row < rows.count; ++row) {
      const float* from = w.mixed + (rows.begin + row) * columns;
      const float factor = 1.0f / w.softmax[rows.begin + row].sum;
      float* to = a.out.at(p0 - a.first + row / rows.heads, rows.h0 + row % rows.heads);
      for (Index j = 0; j < d; ++j) to[j] = from[j] * factor;
      source.turn_back(to);
    }
  }
}

/// Units begin .. end - 1. `workspace` has AttentionWorkspace::cut() bytes.
template <class Arch = native_arch, class Source>
void attention_units(const AttentionInputs& a, const Source& source, Index begin, Index end, std::byte* workspace) {
  AttentionWorkspace w;
  AttentionWorkspace::cut(a, source.bytes(), workspace, w);
  const AttentionUnits units(a);
  while (begin < end) {
    const UnitChunk c = next_chunk(units, begin, end, a.tokens, !source.has_codes());
    const Index p0 = std::max((units.first_tile + c.t0) * attention_tile, a.first),
                p1 = std::min((units.first_tile + c.t1) * attention_tile, a.first + a.tokens);
    attend<Arch>(a, source, p0, p1, c.h0, c.h1, w);
    begin += c.count();
  }
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
