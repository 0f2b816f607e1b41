#pragma once
// Causal attention with grouped queries (Vaswani et al. 2017, arXiv:1706.03762, equation 1; Ainslie et al. 2023,
// arXiv:2305.13245: several heads of queries share one head of keys and values).
//
//   a = softmax over positions u <= t of  q_t . k_u / sqrt(d),      out_t = sum_u a_u v_u
//
// d is the length of a head. Head h of the queries reads head h / (heads / kv_heads) of keys and values.

#include <anybit/reference/activations.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// Heads of one token's queries against all rows of keys and values.
inline Vector attend(const Vector& q, const Matrix& keys, const Matrix& values, Index head_dim) {
  const Index heads = q.size() / head_dim, group = q.size() / keys.cols;
  Vector out(q.size());
  for (Index h = 0; h < heads; ++h) {
    const Index from = h * head_dim, shared = h / group * head_dim;
    Vector scores(keys.rows);
    for (Index u = 0; u < keys.rows; ++u)
      for (Index j = 0; j < head_dim; ++j)
        scores[u] += q[from + j] * keys(u, shared + j) / std::sqrt(static_cast<double>(head_dim));
    const Vector a = softmax(scores);
    for (Index u = 0; u < keys.rows; ++u)
      for (Index j = 0; j < head_dim; ++j) out[from + j] += a[u] * values(u, shared + j);
  }
  return out;
}

/// Row t of q sees rows 0 .. t of k and v.
inline Matrix attention(const Matrix& q, const Matrix& k, const Matrix& v, Index head_dim) {
  Matrix out(q.rows, q.cols);
  for (Index t = 0; t < q.rows; ++t) {
    Matrix keys(t + 1, k.cols), values(t + 1, v.cols);
    for (Index u = 0; u <= t; ++u)
      for (Index j = 0; j < k.cols; ++j) keys(u, j) = k(u, j), values(u, j) = v(u, j);
    const Vector row = attend(q.row(t), keys, values, head_dim);
    for (Index j = 0; j < q.cols; ++j) out(t, j) = row[j];
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
