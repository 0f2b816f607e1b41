#pragma once
// A mixture of experts (Shazeer et al. 2017, arXiv:1701.06538; Mixtral, arXiv:2401.04088; Qwen2-MoE's shared expert, Dai et al.
// 2024, arXiv:2401.06066). With C(x) the k experts of the largest logits z = W_r x:
//
//   y = sum over e in C(x) of w_e E_e(x) + sigmoid(g x) S(x),   E(x) = W_down (silu(W_gate x) * W_up x), S likewise
//   w_e = softmax(z)_e                                  over all experts
//   w_e = softmax(z)_e / sum over C(x) of softmax(z)    renormalized: the softmax of the chosen logits alone

#include <cmath>

#include <anybit/reference/decoder_block.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

struct Expert {
  Matrix gate, up, down;
};

struct Experts {
  Matrix router;  ///< experts x inputs
  std::vector<Expert> experts;
  Index used = 1;
  bool renormalized = true;
  std::vector<Expert> shared = {};  ///< none or one
  Matrix shared_gate = {};          ///< 1 x inputs; empty: S is added as it is
};

/// The weight of every expert in one token, 0 for those that are not chosen. Of equal logits the first is taken.
inline Vector router_weights(const Vector& z, Index used, bool renormalized) {
  Vector p(z.size()), w(z.size());
  double sum = 0, of_chosen = 0;
  for (Index e = 0; e < z.size(); ++e) sum += p[e] = std::exp(z[e]);
  for (Index k = 0; k < used; ++k) {
    Index best = -1;
    for (Index e = 0; e < z.size(); ++e)
      if (w[e] == 0 && (best < 0 || z[e] > z[best])) best = e;
    w[best] = p[best] / sum;
    of_chosen += w[best];
  }
  for (Index e = 0; e < z.size() && renormalized; ++e) w[e] /= of_chosen;
  return w;
}

inline Matrix expert(const Expert& e, const Matrix& x) {
  return times_transposed(gated(linear(x, e.gate), linear(x, e.up), silu), e.down);
}

/// tokens x width. Every expert computes every token; weights of 0 leave it out.
inline Matrix experts(const Experts& m, const Matrix& x) {
  const Matrix z = times_transposed(x, m.router);
  Matrix y(x.rows, x.cols);
  for (Index e = 0; e < m.router.rows; ++e) {
    const Matrix out = expert(m.experts[static_cast<std::size_t>(e)], x);
    for (Index t = 0; t < x.rows; ++t) {
      const double w = router_weights(z.row(t), m.used, m.renormalized)[e];
      for (Index j = 0; j < x.cols && w > 0; ++j) y(t, j) += w * out(t, j);
    }
  }
  for (const Expert& s : m.shared) {
    const Matrix out = expert(s, x);
    const Matrix g = m.shared_gate.rows > 0 ? times_transposed(x, m.shared_gate) : Matrix();
    for (Index t = 0; t < x.rows; ++t)
      for (Index j = 0; j < x.cols; ++j) y(t, j) += out(t, j) * (g.rows > 0 ? 1 / (1 + std::exp(-g(t, 0))) : 1.0);
  }
  return y;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
