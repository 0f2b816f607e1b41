#pragma once
// QuaRot (Ashkboos et al. 2024, arXiv:2404.00456): the residual stream of a model with RMSNorm is rotated, and its logits stay.
//
//   RMSNorm(x Q) = RMSNorm(x) Q   for an orthogonal Q, once the gain g is moved into the linears that read the norm
//
//   readers (q, k, v, gate, up, head)    W <- W diag(g) Q
//   writers (o, down), the embedding     W <- Q^T W,   E <- E Q           then g = 1
//   heads of v and o                     W_v <- H^T-rotated rows of each head, W_o <- its columns of each head times H
//
// Q = H diag(+-1) / sqrt(n). Tied embeddings need a head of their own first. Biases of writers rotate, those of readers do not.

#include <anybit/reference/hadamard.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline Matrix random_signs(Matrix h, const Row<int>& signs) {
  for (Index r = 0; r < h.rows; ++r)
    for (Index c = 0; c < h.cols; ++c) h(r, c) *= signs[c];
  return h;
}

/// W diag(g) Q.
inline Matrix rotated_reader(const Matrix& w, const Vector& gain, const Matrix& q) {
  Matrix folded = w;
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c) folded(r, c) *= gain[c];
  return times_transposed(folded, transposed(q));
}

/// Q^T W.
inline Matrix rotated_writer(const Matrix& w, const Matrix& q) { return times_transposed(transposed(q), transposed(w)); }

/// Rows of an embedding, or any vectors x, times Q.
inline Matrix rotated_rows(const Matrix& x, const Matrix& q) { return times_transposed(x, transposed(q)); }

/// Each run of q.rows values of a row times Q: the heads of queries, keys or values.
inline Matrix rotated_heads(const Matrix& x, const Matrix& q) {
  Matrix out(x.rows, x.cols);
  for (Index t = 0; t < x.rows; ++t)
    for (Index c = 0; c < x.cols; ++c) {
      const Index head = c / q.rows * q.rows;
      for (Index j = 0; j < q.rows; ++j) out(t, c) += x(t, head + j) * q(j, c - head);
    }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
