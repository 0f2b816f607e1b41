#pragma once
// Gradients of attention with grouped queries (nn/attention.hpp). Probabilities are computed again, for 64 queries at a time:
// nothing of tokens x tokens is stored. For one head, with scale c:
//
//   z_tu = c q_t . k_u, with a cap C: C tanh(z / C); less a slope times |t - u|;  p_tu = softmax of z_tu over the u that t sees
//   dp_tu = do_t . v_u,  ds_tu = p_tu (dp_tu - sum_w p_tw dp_tw), with a cap: times 1 - tanh(z / C)^2
//   dv_u += sum_t p_tu do_t,  dq_t = c sum_u ds_tu k_u,  dk_u += c sum_t ds_tu q_t

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <anybit/core/eigen_view.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/kernel/attention_core.hpp>
#include <anybit/nn/attention.hpp>

namespace anybit::train::backward {
inline namespace ANYBIT_CODE {

namespace detail {

/// Queries whose scores exist at once.
inline constexpr Index attention_rows = 64;

/// One query head of a sequence; every matrix is (tokens, head_dim). Writes dq and adds to dk and dv. `p_memory` and `ds_memory`
/// are scratch of (attention_rows, tokens).
inline void attention_head(const nn::AttentionOptions& o, float scale, float slope, ConstMatrix q, ConstMatrix k, ConstMatrix v,
                           ConstMatrix out_gradient, MutableMatrix dq, MutableMatrix dk, MutableMatrix dv, Matrix& p_memory,
                           Matrix& ds_memory) {
  Eigen::ArrayXf cap_slope;
  for (Index t0 = 0; t0 < q.rows; t0 += attention_rows) {
    const Index t1 = std::min(t0 + attention_rows, q.rows), rows = t1 - t0;
    // The positions that any of these queries sees.
    const Index first = kernel::detail::seen_positions(o, t0, q.rows).begin,
                end = kernel::detail::seen_positions(o, t1 - 1, q.rows).end;
    const Index width = end - first;
    const MutableMatrix p(p_memory.data(), rows, width), ds(ds_memory.data(), rows, width);
    const ConstMatrix queries = q.row_range(t0, t1), dout = out_gradient.row_range(t0, t1), keys = k.row_range(first, end),
                      values = v.row_range(first, end);
    as_eigen(p).noalias() = as_eigen(queries) * as_eigen(keys).transpose();
    as_eigen(ds).noalias() = as_eigen(dout) * as_eigen(values).transpose();
    for (Index i = 0; i < rows; ++i) {
      const kernel::detail::SeenPositions seen = kernel::detail::seen_positions(o, t0 + i, q.rows);
      const Index begin = seen.begin - first, count = seen.end - seen.begin;
      float *const p_row = p.data + i * width, *const ds_row = ds.data + i * width;
      Eigen::Map<Eigen::ArrayXf> pi(p_row + begin, count), di(ds_row + begin, count);
      pi *= scale;
      if (o.soft_cap > 0) {
        pi = (pi / o.soft_cap).tanh();
        cap_slope = 1.0f - pi.square();
        pi *= o.soft_cap;
      }
      if (slope != 0)
        for (Index u = 0; u < count; ++u) pi[u] -= slope * std::abs(static_cast<float>(seen.begin + u - t0 - i));
      pi = (pi - pi.maxCoeff()).exp();
      pi *= 1.0f / pi.sum();
      di = pi * (di - (pi * di).sum());
      if (o.soft_cap > 0) di *= cap_slope;
      for (float* row : {p_row, ds_row}) std::fill(row, row + begin, 0.0f), std::fill(row + begin + count, row + width, 0.0f);
    }
    const MutableMatrix to = dq.row_range(t0, t1);
    for (Index i = 0; i < rows; ++i) std::fill_n(to.row(i).data(), to.cols, 0.0f);
    dense::add_product(ConstMatrix(ds), keys, to, scale);
    dense::add_transposed_product(ConstMatrix(ds), queries, dk.row_range(first, end), scale);
    dense::add_transposed_product(ConstMatrix(p), dout, dv.row_range(first, end));
  }
}

}  // namespace detail

/// One sequence from position 0 on: q, out_gradient, dq (tokens, heads * head_dim); k, v, dk, dv (tokens, kv_heads * head_dim), q
/// and k behind their positions. Writes dq, dk and dv, which overlap nothing. Each thread takes query heads; the gradients of the
/// heads that share keys are added in the order of the heads.
inline void attention(const nn::AttentionShape& c, ConstMatrix q, ConstMatrix k, ConstMatrix v, ConstMatrix out_gradient,
                      MutableMatrix dq, MutableMatrix dk, MutableMatrix dv, ExecutorRef executor,
                      const nn::AttentionOptions& options = {}) {
  const Index tokens = q.rows, d = c.head_dim, group = c.heads / c.kv_heads;
  ANYBIT_CHECK(q.cols == c.heads * d && k.cols == c.kv_heads * d && k.extents() == v.extents() && k.rows == tokens &&
                   q.extents() == out_gradient.extents() && q.extents() == dq.extents() && k.extents() == dk.extents() &&
                   k.extents() == dv.extents(),
               "backward::attention: shapes differ");
  const float scale = options.scale > 0 ? options.scale : 1.0f / std::sqrt(static_cast<float>(d));
  Matrix dk_heads(tokens, c.heads * d), dv_heads(tokens, c.heads * d);  // of each query head alone
  executor.parallel_for(c.heads, 1, [&](Index begin, Index end) {
    Matrix p(std::min(detail::attention_rows, tokens), tokens), ds(p.rows(), tokens);
    for (Index h = begin; h < end; ++h) {
      const auto of_head = [&](auto m) { return m.col_range(h * d, (h + 1) * d); };
      const auto of_group = [&](auto m) { return m.col_range(h / group * d, (h / group + 1) * d); };
      const float slope = options.slopes.empty() ? 0.0f : options.slopes[static_cast<std::size_t>(h)];
      detail::attention_head(options, scale, slope, of_head(q), of_group(k), of_group(v), of_head(out_gradient), of_head(dq),
                             of_head(dk_heads.view()), of_head(dv_heads.view()), p, ds);
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
