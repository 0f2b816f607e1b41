#pragma once
// One block of a llama (Touvron et al. 2023, arXiv:2302.13971): pre-norm, rotary positions, gated MLP; and the decoder of such
// blocks.
//
//   a = RMSNorm(x, g_1)
//   x <- x + attention(rope(a W_q^T + b_q), rope(a W_k^T + b_k), a W_v^T + b_v) W_o^T
//   f = RMSNorm(x, g_2)
//   x <- x + (silu(f W_gate^T) * f W_up^T) W_down^T
//
//   x = rows of the embedding, all blocks in turn, logits = RMSNorm(x, g) W_head^T
//
// b_q, b_k, b_v: Qwen2 has them, llama has none. All positions are computed together, from the first on.

#include <anybit/reference/attention.hpp>
#include <anybit/reference/norms.hpp>
#include <anybit/reference/rope.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

struct DecoderBlock {
  Vector attn_norm, ffn_norm;
  Matrix q, k, v, o, gate, up, down;
  Vector q_bias = {}, k_bias = {}, v_bias = {};  ///< empty where the model has none
};

/// The inputs of a block's linears, tokens x inputs: of q, k, v; of o; of gate and up; of down.
struct BlockInputs {
  Matrix attn, mixed, ffn, product;
};

/// X W^T + b.
inline Matrix linear(const Matrix& x, const Matrix& w, const Vector& bias = {}) {
  Matrix y = times_transposed(x, w);
  for (Index t = 0; t < y.rows && bias.size(); ++t)
    for (Index r = 0; r < y.cols; ++r) y(t, r) += bias[r];
  return y;
}

inline void add_to(Matrix& x, const Matrix& y) {
  for (Index t = 0; t < x.rows; ++t)
    for (Index j = 0; j < x.cols; ++j) x(t, j) += y(t, j);
}

/// The half of a block that mixes positions: what is added to x.
inline Matrix attention_half(const DecoderBlock& b, const Matrix& a, const Rope& r, Matrix* mixed_out = nullptr) {
  const Matrix mixed =
      attention(rope(linear(a, b.q, b.q_bias), r), rope(linear(a, b.k, b.k_bias), r), linear(a, b.v, b.v_bias), r.head_dim);
  if (mixed_out) *mixed_out = mixed;
  return linear(mixed, b.o);
}
inline Matrix mlp_half(const DecoderBlock& b, const Matrix& f, Matrix* product_out = nullptr) {
  const Matrix product = gated(linear(f, b.gate), linear(f, b.up), silu);
  if (product_out) *product_out = product;
  return linear(product, b.down);
}

inline Matrix decoder_block(const DecoderBlock& b, Matrix x, const Rope& r, double epsilon, BlockInputs* in = nullptr) {
  BlockInputs ignored, &seen = in ? *in : ignored;
  seen.attn = rms_norm(x, b.attn_norm, epsilon);
  add_to(x, attention_half(b, seen.attn, r, &seen.mixed));
  seen.ffn = rms_norm(x, b.ffn_norm, epsilon);
  add_to(x, mlp_half(b, seen.ffn, &seen.product));
  return x;
}

struct Decoder {
  Matrix embedding, head;
  std::vector<DecoderBlock> blocks;
  Vector output_norm;
  Rope rope;
  double epsilon = 1e-5;
};

/// Logits of every position (tokens x vocabulary). `in`, if given, gets the inputs of every block's linears.
template <class Ids>
Matrix decoder_logits(const Decoder& d, const Ids& ids, std::vector<BlockInputs>* in = nullptr) {
  Matrix x(static_cast<Index>(ids.size()), d.embedding.cols);
  Index t = 0;
  for (const auto id : ids) {
    for (Index j = 0; j < x.cols; ++j) x(t, j) = d.embedding(static_cast<Index>(id), j);
    ++t;
  }
  for (const DecoderBlock& b : d.blocks) {
    BlockInputs seen;
    x = decoder_block(b, std::move(x), d.rope, d.epsilon, &seen);
    if (in) in->push_back(std::move(seen));
  }
  return times_transposed(rms_norm(x, d.output_norm, d.epsilon), d.head);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
