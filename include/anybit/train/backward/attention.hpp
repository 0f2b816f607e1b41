#pragma once
// Gradients of causal attention with grouped queries (nn/attention.hpp). Probabilities are computed again, for 64 queries at a
// time: nothing of tokens x tokens is stored. For one head, with the scale c = 1 / sqrt(head_dim):
//
//   p_tu = softmax over u <= t of c q_t . k_u             dv_u += sum_t p_tu do_t
//   dp_tu = do_t . v_u,  ds_tu = p_tu (dp_tu - sum_w p_tw dp_tw)
//   dq_t = c sum_u ds_tu k_u                              dk_u += c sum_t ds_tu q_t

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <anybit/core/eigen_view.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/nn/attention.hpp>

namespace anybit::train::backward {
inline namespace ANYBIT_CODE {

namespace detail {

/// Queries whose scores exist at once.
inline constexpr Index attention_rows = 64;

/// One query head: q, out_gradient, dq (tokens, head_dim); k, v, dk, dv likewise, dk and dv are added to. `p` and `ds` are
/// scratch of (attention_rows, tokens).
inline void attention_head(ConstMatrix q, ConstMatrix k, ConstMatrix v, ConstMatrix out_gradient, MutableMatrix dq,
                           MutableMatrix dk, MutableMatrix dv, float scale, Matrix& p_memory, Matrix& ds_memory) {
  for (Index t0 = 0; t0 < q.rows; t0 += attention_rows) {
    const Index seen = std::min(t0 + attention_rows, q.rows), rows = seen - t0;  // positions that the last of these queries sees
    const MutableMatrix p(p_memory.data(), rows, seen), ds(ds_memory.data(), rows, seen);
    const ConstMatrix queries = q.row_range(t0, seen), dout = out_gradient.row_range(t0, seen);
    as_eigen(p).noalias() = as_eigen(queries) * as_eigen(k.row_range(0, seen)).transpose();
    as_eigen(ds).noalias() = as_eigen(dout) * as_eigen(v.row_range(0, seen)).transpose();
    for (Index i = 0; i < rows; ++i) {
      const Index valid = t0 + i + 1;
      Eigen::Map<Eigen::ArrayXf> pi(p.data + i * seen, valid), di(ds.data + i * seen, valid);
      pi = (scale * (pi - pi.maxCoeff())).exp();
      pi *= 1.0f / pi.sum();
      di = pi * (di - (pi * di).sum());
      std::fill(p.data + i * seen + valid, p.data + (i + 1) * seen, 0.0f);
      std::fill(ds.data + i * seen + valid, ds.data + (i + 1) * seen, 0.0f);
    }
    const MutableMatrix to = dq.row_range(t0, seen);
    for (Index i = 0; i < rows; ++i) std::fill_n(to.row(i).data(), to.cols, 0.0f);
    dense::add_product(ConstMatrix(ds), k.row_range(0, seen), to, scale);
    dense::add_transposed_product(ConstMatrix(ds), queries, dk.row_range(0, seen), scale);
    dense::add_transposed_product(ConstMatrix(p), dout, dv.row_range(0, seen));
  }
}

}  // namespace detail

/// One sequence from position 0 on: q, out_gradient, dq (tokens, heads * head_dim); k, v, dk, dv (tokens, kv_heads * head_dim), q
/// and k behind their positions. Writes dq, dk and dv, which overlap nothing. Each thread takes query heads; the gradients of the
/// heads that share keys are added in the order of the heads.
inline void attention(const nn::AttentionShape& c, ConstMatrix q, ConstMatrix k, ConstMatrix v, ConstMatrix out_gradient,
                      MutableMatrix dq, MutableMatrix dk, MutableMatrix dv, ExecutorRef executor) {
  const Index tokens = q.rows, d = c.head_dim, group = c.heads / c.kv_heads;
  ANYBIT_CHECK(q.cols == c.heads * d && k.cols == c.kv_heads * d && k.extents() == v.extents() && k.rows == tokens &&
                   q.extents() == out_gradient.extents() && q.extents() == dq.extents() && k.extents() == dk.extents() &&
                   k.extents() == dv.extents(),
               "backward::attention: shapes differ");
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  Matrix dk_heads(tokens, c.heads * d), dv_heads(tokens, c.heads * d);  // of each query head alone
  executor.parallel_for(c.heads, 1, [&](Index begin, Index end) {
    Matrix p(std::min(detail::attention_rows, tokens), tokens), ds(p.rows(), tokens);
    for (Index h = begin; h < end; ++h) {
      const auto of_head = [&](auto m) { return m.col_range(h * d, (h + 1) * d); };
      const auto of_group = [&](auto m) { return m.col_range(h / group * d, (h / group + 1) * d); };
      detail::attention_head(of_head(q), of_group(k), of_group(v), of_head(out_gradient), of_head(dq), of_head(dk_heads.view()),
                             of_head(dv_heads.view()), scale, p, ds);
    }
  });
  executor.parallel_for(tokens, 16, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index j = 0; j < dk.cols; ++j) {
        const Index first = j / d * group * d + j % d;
        float key = 0, value = 0;
        for (Index h = 0; h < group; ++h) key += dk_heads(t, first + h * d), value += dv_heads(t, first + h * d);
        dk(t, j) = key, dv(t, j) = value;
      }
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::backward

#include <anybit/core/macros_end.hpp>
