#pragma once
// Decoders whose gradients tests compare: random ones, and those of the reference vectors.

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <anybit/model/arch/llama.hpp>
#include <anybit/model/arch/qwen2.hpp>
#include <anybit/reference/decoder_block.hpp>
#include <anybit/reference/perplexity.hpp>
#include <anybit/train/loss.hpp>

#include "train/differences.hpp"

namespace train_tests {

namespace model = anybit::model;
namespace train = anybit::train;
using anybit::Matrix;

/// Random weights: few enough that every one can be moved.
inline model::Decoder small_decoder(const model::Architecture& architecture, bool own_head, Index dim = 6,
                                    const model::DecoderForm& form = {}) {
  model::DecoderConfig c;
  c.vocabulary = 11, c.dim = dim, c.hidden = 10, c.blocks = 2, c.heads = 4, c.kv_heads = 2, c.head_dim = c.rotary_dim = 4;
  c.context = 32, c.norm_epsilon = 1e-3f, c.rope_base = 20, c.rope_order = architecture.gguf_order, c.form = form;
  model::Decoder d = make_decoder(architecture, c);
  unsigned seed = 0;
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    ++seed;
    if (spec.optional && !own_head) continue;
    if (!spec.multiplies()) {
      d.weights[i].values = some_values(seed, spec.shape.cols);
      for (float& g : d.weights[i].values) g = (spec.role == model::Role::gain ? 1.0f : 0.0f) + 0.3f * g;
      continue;
    }
    d.weights[i].linear =
        anybit::nn::Linear(some(seed, spec.shape.rows, spec.shape.cols, 1.2f / std::sqrt(static_cast<float>(spec.shape.cols))));
    if (!spec.bias.empty()) d.weights[i].linear.set_bias(some_values(seed + 100, spec.shape.rows));
  }
  REQUIRE(check(d).ok());
  return d;
}

/// With a head of its own and 12 channels.
inline model::Decoder small_llama() { return small_decoder(model::llama_architecture, true, 12); }
inline model::DecoderForm qwen2_form() {
  model::DecoderForm f;
  f.qkv_bias = true;
  return f;
}

/// The same in double, of llama and Qwen2.
inline ref::Decoder twin(const model::Decoder& d) {
  const auto vector = [](const std::vector<float>& v) {
    ref::Vector out(static_cast<Index>(v.size()));
    for (std::size_t i = 0; i < v.size(); ++i) out[static_cast<Index>(i)] = static_cast<double>(v[i]);
    return out;
  };
  const auto weights = [&](Index b, const char* name) { return ref::matrix_of(*d.linear(b, name).dense()); };
  const auto bias = [&](Index b, const char* name) { return vector(d.linear(b, name).bias()); };
  const model::DecoderConfig& c = d.config;
  ref::Decoder out{
      .embedding = ref::matrix_of(*d.token_embedding().dense()),
      .head = ref::matrix_of(*d.output_head().dense()),
      .blocks = {},
      .output_norm = vector(d.output_norm()),
      .rope = {.head_dim = c.head_dim,
               .rotated = c.rotary_dim,
               .base = static_cast<double>(c.rope_base),
               .layout = c.rope_order == anybit::nn::RopeOrder::pairs ? ref::RopeLayout::pairs : ref::RopeLayout::halves},
      .epsilon = static_cast<double>(c.norm_epsilon)};
  for (Index b = 0; b < c.blocks; ++b)
    out.blocks.push_back({vector(d.values(b, "attn_norm")), vector(d.values(b, "ffn_norm")), weights(b, "attn_q"),
                          weights(b, "attn_k"), weights(b, "attn_v"), weights(b, "attn_output"), weights(b, "ffn_gate"),
                          weights(b, "ffn_up"), weights(b, "ffn_down"), bias(b, "attn_q"), bias(b, "attn_k"), bias(b, "attn_v")});
  return out;
}

/// Mean cross entropy of the predictions that count, in double.
inline double loss_of(const ref::Decoder& d, std::span<const train::Example> batch) {
  double sum = 0;
  Index count = 0;
  for (const train::Example& e : batch) {
    const ref::Matrix logits = ref::decoder_logits(d, e.ids);
    for (Index t = 1; t < static_cast<Index>(e.ids.size()); ++t)
      if (e.counts(t)) sum += ref::log_sum_exp(logits.row(t - 1)) - logits(t - 1, e.ids[static_cast<std::size_t>(t)]), ++count;
  }
  return sum / static_cast<double>(count);
}

}  // namespace train_tests
