#pragma once
// Cross-attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3): queries of a decoder, keys and values of what its
// encoder made of the source. Every query sees all of the source, and there are no positions.
//
//   out_t = attention(x_t W_q^T + b_q, M W_k^T + b_k, M W_v^T + b_v) W_o^T + b_o,      M = the encoder's output

#include <anybit/reference/decoder_block.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

struct CrossAttention {
  Matrix q, k, v, o;
  Vector q_bias = {}, k_bias = {}, v_bias = {}, o_bias = {};  ///< empty where the model has none
  Index head_dim = 0;
  double scale = 0;  ///< 0: 1 / sqrt(head_dim)
};

/// x (tokens, dim), memory (source positions, dim).
inline Matrix cross_attention(const CrossAttention& c, const Matrix& x, const Matrix& memory) {
  AttentionOptions o;
  o.causal = false, o.scale = c.scale;
  return linear(attention(linear(x, c.q, c.q_bias), linear(memory, c.k, c.k_bias), linear(memory, c.v, c.v_bias), c.head_dim, o),
                c.o, c.o_bias);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
