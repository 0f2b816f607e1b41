#pragma once
// Causal attention with grouped queries over the KV cache.

#include <algorithm>
#include <cmath>

#include <anybit/core/eigen_view.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/model/config.hpp>

namespace anybit::model::inline ANYBIT_CODE {

namespace detail {

/// Tokens whose queries go through one product. Fixed, so that no sum depends on the number of threads.
inline constexpr Index attention_tile = 32;

/// Softmax of the first `valid` scores in place; the others, which lie in the future, become 0.
inline void softmax_prefix(float* scores, Index valid, Index all) {
  Eigen::Map<Eigen::ArrayXf> s(scores, valid);
  s = (s - s.maxCoeff()).exp();
  s *= 1.0f / s.sum();
  std::fill(scores + valid, scores + all, 0.0f);
}

/// Scratch of one thread.
struct AttentionTile {
  Matrix queries, scores, mixed;
  AttentionTile(Index rows, Index head_dim, Index positions)
      : queries(rows, head_dim), scores(rows, round_up(positions, 16)), mixed(rows, head_dim) {}
};

}  // namespace detail

/// out_th = sum_p softmax_p(q_th . k_p / sqrt(head_dim)) v_p over the positions p <= first + t. q and out are
/// (tokens, heads * head_dim); keys and values are (at least first + tokens, kv_heads * head_dim).
inline void attention(const DecoderConfig& c, ConstMatrix q, ConstMatrix keys, ConstMatrix values, Index first, MutableMatrix out,
                      ExecutorRef executor) {
  const Index tokens = q.rows, group = c.heads / c.kv_heads, d = c.head_dim;
  const Index tiles = ceil_div(tokens, detail::attention_tile);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));

  executor.parallel_for(tiles * c.kv_heads, 1, [&](Index begin, Index end) {
    detail::AttentionTile scratch(std::min(tokens, detail::attention_tile) * group, d, first + tokens);
    for (Index item = begin; item < end; ++item) {
      const Index kv_head = item % c.kv_heads, t0 = item / c.kv_heads * detail::attention_tile;
      const Index count = std::min(detail::attention_tile, tokens - t0), rows = count * group, positions = first + t0 + count;

      // The heads of a group share keys and values, so their queries are stacked: row t * group + h.
      for (Index row = 0; row < rows; ++row) {
        const float* from = q.data + (t0 + row / group) * q.stride + (kv_head * group + row % group) * d;
        float* to = scratch.queries.data() + row * d;
        for (Index j = 0; j < d; ++j) to[j] = from[j] * scale;
      }
      const ConstMatrix k(keys.data + kv_head * d, positions, d, keys.stride),
          v(values.data + kv_head * d, positions, d, values.stride);
      const MutableMatrix s(scratch.scores.data(), rows, positions, scratch.scores.cols());
      const MutableMatrix mixed(scratch.mixed.data(), rows, d);
      as_eigen(s).noalias() = as_eigen(ConstMatrix(scratch.queries.data(), rows, d)) * as_eigen(k).transpose();
      for (Index row = 0; row < rows; ++row)
        detail::softmax_prefix(s.data + row * s.stride, first + t0 + row / group + 1, positions);
      as_eigen(mixed).noalias() = as_eigen(ConstMatrix(s)) * as_eigen(v);

      for (Index row = 0; row < rows; ++row)
        std::copy_n(mixed.data + row * d, d, out.data + (t0 + row / group) * out.stride + (kv_head * group + row % group) * d);
    }
  });
}

}  // namespace anybit::model::inline ANYBIT_CODE
