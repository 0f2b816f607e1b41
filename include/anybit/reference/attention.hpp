#pragma once
// Attention with grouped queries (Vaswani et al. 2017, arXiv:1706.03762, equation 1; Ainslie et al. 2023,
// arXiv:2305.13245: several heads of queries share one head of keys and values).
//
//   a = softmax over positions u <= p of  q_p . k_u / sqrt(d),      out_p = sum_u a_u v_u
//
// d is the length of a head. Head h of the queries reads head h / (heads / kv_heads) of keys and values. The options below change
// the products s = q_p . k_u or the positions u.

#include <anybit/reference/activations.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

struct AttentionOptions {
  double scale = 0;     ///< of the products; 0: 1 / sqrt(d)
  double soft_cap = 0;  ///< c > 0: c tanh(scale s / c) instead of scale s (Gemma 2, arXiv:2408.00118)
  Index window = 0;     ///< w > 0: positions u with |p - u| < w only (Mistral 7B, arXiv:2310.06825)
  Vector slopes;        ///< of each head of queries, m: m |p - u| is subtracted (ALiBi, arXiv:2108.12409); empty: nothing is
  bool causal = true;   ///< false: later positions are seen as well
  /// (heads, 2 r + 1): number (h, r + u - p) is added, with u - p cut to -r .. r (T5, arXiv:1910.10683); empty: nothing is
  Matrix distance_bias{};

  bool sees(Index p, Index u) const {
    const Index distance = p > u ? p - u : u - p;
    return (!causal || u <= p) && (window == 0 || distance < window);
  }
};

/// Heads of the query of position p against the rows of keys and values, which are of positions 0, 1, ..
inline Vector attend(const Vector& q, Index p, const Matrix& keys, const Matrix& values, Index head_dim,
                     const AttentionOptions& o = {}) {
  const Index heads = q.size() / head_dim, group = q.size() / keys.cols;
  const double scale = o.scale == 0 ? 1 / std::sqrt(static_cast<double>(head_dim)) : o.scale;
  Row<Index> seen;
  for (Index u = 0; u < keys.rows; ++u)
    if (o.sees(p, u)) seen.values.push_back(u);
  Vector out(q.size());
  for (Index h = 0; h < heads; ++h) {
    const Index from = h * head_dim, shared = h / group * head_dim;
    Vector scores(seen.size());
    for (Index i = 0; i < seen.size(); ++i) {
      double product = 0;
      for (Index j = 0; j < head_dim; ++j) product += q[from + j] * keys(seen[i], shared + j);
      product *= scale;
      if (o.soft_cap > 0) product = o.soft_cap * std::tanh(product / o.soft_cap);
      if (o.slopes.size() > 0) product -= o.slopes[h] * std::abs(static_cast<double>(p - seen[i]));
      if (o.distance_bias.cols > 0) {
        const Index reach = o.distance_bias.cols / 2, ahead = seen[i] - p;
        product += o.distance_bias(h, reach + (ahead < -reach ? -reach : ahead > reach ? reach : ahead));
      }
      scores[i] = product;
    }
    const Vector a = softmax(scores);
    for (Index i = 0; i < seen.size(); ++i)
      for (Index j = 0; j < head_dim; ++j) out[from + j] += a[i] * values(seen[i], shared + j);
  }
  return out;
}

/// Rows of q, k and v are of the same positions 0, 1, ..
inline Matrix attention(const Matrix& q, const Matrix& k, const Matrix& v, Index head_dim, const AttentionOptions& o = {}) {
  Matrix out(q.rows, q.cols);
  for (Index t = 0; t < q.rows; ++t) {
    const Vector row = attend(q.row(t), t, k, v, head_dim, o);
    for (Index j = 0; j < q.cols; ++j) out(t, j) = row[j];
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
