#pragma once
// T5 (Raffel et al., arXiv:1910.10683) and Flan-T5: an encoder and a decoder with cross-attention, RMSNorm, no biases, distances
// in buckets in place of positions, and products of queries and keys that are not scaled. Version 1.0 has ReLU and a head that is
// the embedding, 1.1 a gate of GELU and a head of its own.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::t5 {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 2> model_types{"t5", "mt5"};

/// Of the model and of the decoder's blocks. Both stacks keep their distances in the first block.
constexpr auto decoder_names(bool gated) {
  return std::array{
      TensorNames{"token_embd.weight", {"shared.weight"}},
      TensorNames{"token_embd.weight", {.name = "encoder.embed_tokens.weight", .copy = true}},
      TensorNames{"token_embd.weight", {.name = "decoder.embed_tokens.weight", .copy = true}},
      TensorNames{"enc.attn_rel_b.weight",
                  {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"},
                  {"enc.blk.0.attn_rel_b.weight"}},
      TensorNames{"enc.output_norm.weight", {"encoder.final_layer_norm.weight"}},
      TensorNames{"attn_rel_b.weight",
                  {"decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"},
                  {"dec.blk.0.attn_rel_b.weight"}},
      TensorNames{"output_norm.weight", {"decoder.final_layer_norm.weight"}, {"dec.output_norm.weight"}},
      TensorNames{"output.weight", {"lm_head.weight"}},
      TensorNames{"attn_norm.weight", {"layer.0.layer_norm.weight"}},
      TensorNames{"attn_q.weight", {"layer.0.SelfAttention.q.weight"}},
      TensorNames{"attn_k.weight", {"layer.0.SelfAttention.k.weight"}},
      TensorNames{"attn_v.weight", {"layer.0.SelfAttention.v.weight"}},
      TensorNames{"attn_output.weight", {"layer.0.SelfAttention.o.weight"}, {"attn_o.weight"}},
      TensorNames{"cross_attn_norm.weight", {"layer.1.layer_norm.weight"}},
      TensorNames{"cross_attn_q.weight", {"layer.1.EncDecAttention.q.weight"}},
      TensorNames{"cross_attn_k.weight", {"layer.1.EncDecAttention.k.weight"}},
      TensorNames{"cross_attn_v.weight", {"layer.1.EncDecAttention.v.weight"}},
      TensorNames{"cross_attn_output.weight", {"layer.1.EncDecAttention.o.weight"}, {"cross_attn_o.weight"}},
      TensorNames{"ffn_norm.weight", {"layer.2.layer_norm.weight"}},
      TensorNames{"ffn_gate.weight", {"layer.2.DenseReluDense.wi_0.weight"}},
      TensorNames{"ffn_up.weight", {gated ? "layer.2.DenseReluDense.wi_1.weight" : "layer.2.DenseReluDense.wi.weight"}},
      TensorNames{"ffn_down.weight", {"layer.2.DenseReluDense.wo.weight"}}};
}
/// Of the encoder's blocks.
constexpr auto encoder_names(bool gated) {
  return std::array{
      TensorNames{"attn_norm.weight", {"layer.0.layer_norm.weight"}},
      TensorNames{"attn_q.weight", {"layer.0.SelfAttention.q.weight"}},
      TensorNames{"attn_k.weight", {"layer.0.SelfAttention.k.weight"}},
      TensorNames{"attn_v.weight", {"layer.0.SelfAttention.v.weight"}},
      TensorNames{"attn_output.weight", {"layer.0.SelfAttention.o.weight"}, {"attn_o.weight"}},
      TensorNames{"ffn_norm.weight", {"layer.1.layer_norm.weight"}},
      TensorNames{"ffn_gate.weight", {"layer.1.DenseReluDense.wi_0.weight"}},
      TensorNames{"ffn_up.weight", {gated ? "layer.1.DenseReluDense.wi_1.weight" : "layer.1.DenseReluDense.wi.weight"}},
      TensorNames{"ffn_down.weight", {"layer.1.DenseReluDense.wo.weight"}}};
}
inline constexpr auto gated_names = decoder_names(true), plain_names = decoder_names(false);
inline constexpr auto gated_encoder_names = encoder_names(true), plain_encoder_names = encoder_names(false);

inline DecoderForm form() {
  DecoderForm f;
  f.positions = Positions::relative, f.attention_scale = 1, f.cross_attention = true;
  return f;
}

/// Puts `blocks` of an encoder of the same dimensions in front of the decoder's.
inline void add_encoder(DecoderConfig& c, Index blocks) {
  DecoderConfig e = c;
  e.blocks = blocks, e.form.causal = e.form.cross_attention = e.form.head = false, e.form.logit_scale = 1;
  c.blocks += blocks;
  c.encoder.assign(1, std::move(e));
}

/// "relu" or "gated-gelu", whose GELU is the form with tanh.
inline Status read_activation(HfConfigReader& read, DecoderForm& f) {
  std::string kind;
  ANYBIT_TRY_STATUS(read.text_or("feed_forward_proj", "relu", kind));
  f.gated = kind == "gated-gelu" || kind == "gated-silu";
  if (kind == "relu")
    f.activation = nn::Activation::relu;
  else if (kind == "gated-gelu")
    f.activation = nn::Activation::gelu_tanh;
  else if (kind == "gated-silu")
    f.activation = nn::Activation::silu;
  else
    return read.unsupported("feed_forward_proj",
                            "anybit computes relu, gated-gelu and gated-silu, use a model with one of these");
  return Ok{};
}

/// `wo`, whose inputs outgrow half floats in trained models, stays at 8 bits or above.
inline Blueprint blueprint(const DecoderConfig& c) {
  Blueprint b = decoder_block::blueprint(c);
  for (WeightSpec& w : b.weights)
    if (w.name.ends_with(".ffn_down.weight")) w.least_bits = 8;
  return b;
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  c.form = form();
  read.use("is_encoder_decoder");
  ANYBIT_TRY_STATUS(read.count("vocab_size", c.vocabulary));
  ANYBIT_TRY_STATUS(read.count("d_model", c.dim));
  ANYBIT_TRY_STATUS(read.count("d_ff", c.hidden));
  ANYBIT_TRY_STATUS(read.count("num_heads", c.heads));
  ANYBIT_TRY_STATUS(read.count("d_kv", c.head_dim));
  c.kv_heads = c.heads, c.rotary_dim = c.head_dim;
  ANYBIT_TRY_STATUS(read.count_or("n_positions", 512, c.context));
  ANYBIT_TRY_STATUS(read.number_or("layer_norm_epsilon", 1e-6f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read.count_or("relative_attention_num_buckets", 32, c.form.relative_buckets));
  ANYBIT_TRY_STATUS(read.count_or("relative_attention_max_distance", 128, c.form.relative_distance));
  ANYBIT_TRY_STATUS(read_activation(read, c.form));
  ANYBIT_TRY_STATUS(read.read_tie(true));
  // transformers 5 calls every T5 tied and says apart whether the decoder's output is scaled.
  bool scaled = read.tied();
  ANYBIT_TRY_STATUS(read.flag_or("scale_decoder_outputs", scaled, scaled));
  if (scaled) c.form.logit_scale = 1 / std::sqrt(static_cast<float>(c.dim));
  Index encoder_blocks = 0;
  ANYBIT_TRY_STATUS(read.count("num_layers", encoder_blocks));
  ANYBIT_TRY_STATUS(read.count_or("num_decoder_layers", encoder_blocks, c.blocks));
  add_encoder(c, encoder_blocks);
  return c;
}

inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  DecoderConfig c;
  c.form = form();
  ANYBIT_TRY_STATUS(gguf_config::read_shape(read, c));
  // Both epsilons are written, and the start token is not the model's affair.
  float ignored = 0;
  for (const char* key : {"attention.layer_norm_epsilon", "decoder_start_token_id"})
    ANYBIT_TRY_STATUS(read.number_or(key, 0, ignored));
  ANYBIT_TRY_STATUS(read.count_or("attention.relative_buckets_count", 32, c.form.relative_buckets));
  c.form.relative_distance = 128;  // as of all published models; files do not say
  c.form.gated = read.has_tensor("dec.blk.0.ffn_gate.weight");
  c.form.activation = c.form.gated ? nn::Activation::gelu_tanh : nn::Activation::relu;
  if (!read.has_tensor("output.weight")) c.form.logit_scale = 1 / std::sqrt(static_cast<float>(c.dim));
  const Index encoder_blocks = c.blocks;
  ANYBIT_TRY_STATUS(read.count_or("decoder_block_count", encoder_blocks, c.blocks));
  add_encoder(c, encoder_blocks);
  return c;
}

/// As converters write it: dimensions with the encoder's blocks, the decoder's beside them, both epsilons.
inline void write_gguf(GgufConfigWriter& w, const DecoderConfig& c) {
  DecoderConfig shape = c;
  shape.blocks = c.encoder_blocks();
  gguf_config::write_shape(w, shape);
  w.count("decoder_block_count", c.blocks - c.encoder_blocks());
  w.number("attention.layer_norm_epsilon", c.norm_epsilon);
  w.count("attention.relative_buckets_count", c.form.relative_buckets);
  w.count("decoder_start_token_id", 0);  // the padding token, of every T5
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::t5

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture t5_architecture = [] {
  Architecture a = decoder_block::architecture("t5");
  a.model_types = t5::model_types;
  a.points = decoder_block::encoder_decoder_points;
  a.names = [](const DecoderConfig& c) { return std::span<const TensorNames>(c.form.gated ? t5::gated_names : t5::plain_names); };
  a.encoder_names = [](const DecoderConfig& c) {
    return std::span<const TensorNames>(c.form.gated ? t5::gated_encoder_names : t5::plain_encoder_names);
  };
  a.hugging_face_root = "", a.hugging_face_block = "decoder.block.", a.hugging_face_encoder_block = "encoder.block.";
  a.blueprint = t5::blueprint;
  a.read_gguf = t5::read_gguf;
  a.write_gguf = t5::write_gguf;
  a.read_hugging_face = t5::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
