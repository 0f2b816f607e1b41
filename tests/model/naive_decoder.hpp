#pragma once
// The library's decoder as reference/decoder_block.hpp takes it, and what that computes: the truth of the tests of models.

#include <cstddef>
#include <vector>

#include <anybit/model/run.hpp>
#include <anybit/reference/decoder_block.hpp>

#include "model/llama_block.hpp"

namespace test_support {

using Vector = std::vector<double>;

inline anybit::reference::Matrix weights_of(const anybit::nn::Linear& l) { return anybit::reference::matrix_of(*l.dense()); }

inline anybit::reference::Rope rope_of(const anybit::model::DecoderConfig& c) {
  return {.head_dim = c.head_dim,
          .rotated = c.rotary_dim,
          .base = static_cast<double>(c.rope_base),
          .scale = static_cast<double>(c.rope_scale),
          .factors = anybit::reference::Vector(c.rope_factors)};
}

inline anybit::reference::DecoderBlock block_of(const LlamaBlock& b) {
  return {.attn_norm = anybit::reference::Vector(b.attn_norm),
          .ffn_norm = anybit::reference::Vector(b.ffn_norm),
          .q = weights_of(b.q),
          .k = weights_of(b.k),
          .v = weights_of(b.v),
          .o = weights_of(b.o),
          .gate = weights_of(b.gate),
          .up = weights_of(b.up),
          .down = weights_of(b.down)};
}

inline anybit::reference::Decoder reference_of(const anybit::model::Decoder& d) {
  anybit::reference::Decoder out{weights_of(d.token_embedding()),
                                 weights_of(d.output_head()),
                                 {},
                                 anybit::reference::Vector(d.output_norm()),
                                 rope_of(d.config),
                                 static_cast<double>(d.config.norm_epsilon)};
  for (anybit::Index i = 0; i < d.config.blocks; ++i) out.blocks.push_back(block_of(llama_block(d, i)));
  return out;
}

/// The inputs of block `block`'s four groups of linears, one row per token.
struct NaiveInputs {
  std::size_t block = 0;
  std::vector<Vector> attn, mixed, ffn, product;
};

inline std::vector<Vector> rows_of(const anybit::reference::Matrix& m) {
  std::vector<Vector> rows;
  for (anybit::Index r = 0; r < m.rows; ++r) rows.push_back(m.row(r).values);
  return rows;
}

/// Logits of every position.
inline std::vector<Vector> naive_forward(const anybit::model::Decoder& d, const std::vector<anybit::model::TokenId>& ids,
                                         NaiveInputs* inputs = nullptr) {
  std::vector<anybit::reference::BlockInputs> seen;
  const auto logits = anybit::reference::decoder_logits(reference_of(d), ids, &seen);
  if (inputs) {
    const auto& block = seen[inputs->block];
    inputs->attn = rows_of(block.attn), inputs->mixed = rows_of(block.mixed);
    inputs->ffn = rows_of(block.ffn), inputs->product = rows_of(block.product);
  }
  return rows_of(logits);
}

}  // namespace test_support
