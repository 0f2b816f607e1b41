#pragma once
// One block of BERT (Devlin et al. 2019, arXiv:1810.04805): both norms stand behind what they normalize, and every token sees all
// others.
//
//   x <- LayerNorm(x + attention(x W_q^T + b_q, x W_k^T + b_k, x W_v^T + b_v) W_o^T + b_o)
//   x <- LayerNorm(x + gelu(x W_up^T + b_up) W_down^T + b_down)

#include <anybit/reference/decoder_block.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

struct EncoderBlock {
  Matrix q, k, v, o, up, down;
  Vector q_bias, k_bias, v_bias, o_bias, up_bias, down_bias;
  Vector attn_gain, attn_bias, mlp_gain, mlp_bias;  ///< of the norms
  Index head_dim = 0;
};

inline Matrix encoder_block(const EncoderBlock& b, Matrix x, double epsilon) {
  AttentionOptions all;
  all.causal = false;
  const Matrix mixed = attention(linear(x, b.q, b.q_bias), linear(x, b.k, b.k_bias), linear(x, b.v, b.v_bias), b.head_dim, all);
  add_to(x, linear(mixed, b.o, b.o_bias));
  x = layer_norm(x, b.attn_gain, b.attn_bias, epsilon);
  Matrix hidden = linear(x, b.up, b.up_bias);
  for (Index t = 0; t < hidden.rows; ++t)
    for (Index j = 0; j < hidden.cols; ++j) hidden(t, j) = gelu(hidden(t, j));
  add_to(x, linear(hidden, b.down, b.down_bias));
  return layer_norm(x, b.mlp_gain, b.mlp_bias, epsilon);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
