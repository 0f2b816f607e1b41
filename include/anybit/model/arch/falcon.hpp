#pragma once
// Falcon (arXiv:2311.16867) in its three forms: one LayerNorm for attention and MLP side by side (7B), one for each (40B, 180B),
// or one after the other with ALiBi (RW). q, k, v lie in one tensor, by key-value head.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::falcon {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 2> model_types{"falcon", "RefinedWebModel"};

inline constexpr std::array names{
    TensorNames{"token_embd.weight", {"transformer.word_embeddings.weight"}},
    TensorNames{"output_norm.weight", {"transformer.ln_f.weight"}},
    TensorNames{"output_norm.bias", {"transformer.ln_f.bias"}},
    TensorNames{"output.weight", {"lm_head.weight"}},
    TensorNames{"attn_q.weight", {"self_attention.query_key_value.weight", Part::q}, {"attn_qkv.weight", Part::q}},
    TensorNames{"attn_q.bias", {"self_attention.query_key_value.bias", Part::q}, {"attn_qkv.bias", Part::q}},
    TensorNames{"attn_k.weight", {"self_attention.query_key_value.weight", Part::k}, {"attn_qkv.weight", Part::k}},
    TensorNames{"attn_k.bias", {"self_attention.query_key_value.bias", Part::k}, {"attn_qkv.bias", Part::k}},
    TensorNames{"attn_v.weight", {"self_attention.query_key_value.weight", Part::v}, {"attn_qkv.weight", Part::v}},
    TensorNames{"attn_v.bias", {"self_attention.query_key_value.bias", Part::v}, {"attn_qkv.bias", Part::v}},
    TensorNames{"attn_output.weight", {"self_attention.dense.weight"}},
    TensorNames{"attn_output.bias", {"self_attention.dense.bias"}},
    TensorNames{"ffn_up.weight", {"mlp.dense_h_to_4h.weight"}},
    TensorNames{"ffn_up.bias", {"mlp.dense_h_to_4h.bias"}},
    TensorNames{"ffn_down.weight", {"mlp.dense_4h_to_h.weight"}},
    TensorNames{"ffn_down.bias", {"mlp.dense_4h_to_h.bias"}},
    TensorNames{"attn_norm.weight", {"input_layernorm.weight"}},
    TensorNames{"attn_norm.bias", {"input_layernorm.bias"}},
    TensorNames{"ffn_norm.weight", {"post_attention_layernorm.weight"}},
    TensorNames{"ffn_norm.bias", {"post_attention_layernorm.bias"}}};
/// With a norm for attention and one for the MLP.
inline constexpr std::array two_norm_names = [] {
  constexpr TensorNames norms[] = {{"attn_norm.weight", {"ln_attn.weight"}, {"attn_norm_2.weight"}},
                                   {"attn_norm.bias", {"ln_attn.bias"}, {"attn_norm_2.bias"}},
                                   {"ffn_norm.weight", {"ln_mlp.weight"}, {"attn_norm.weight"}},
                                   {"ffn_norm.bias", {"ln_mlp.bias"}, {"attn_norm.bias"}}};
  auto all = names;
  for (TensorNames& n : all)
    for (const TensorNames& norm : norms)
      if (n.name == norm.name) n = norm;
  return all;
}();

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  DecoderForm& f = c.form;
  f.norm = NormKind::layer, f.gated = false;
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c,
                                          {.hidden = "ffn_hidden_size",
                                           .blocks = read.either({"num_hidden_layers", "n_layer"}),
                                           .heads = read.either({"num_attention_heads", "n_head"}),
                                           .kv_heads = ""}));
  ANYBIT_TRY_STATUS(read.number_or("layer_norm_epsilon", 1e-5f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read.activation("activation", "gelu", f.activation));
  bool multi_query = true, grouped = false, parallel = true, bias = false, alibi = false;
  ANYBIT_TRY_STATUS(read.flag_or("multi_query", true, multi_query));
  ANYBIT_TRY_STATUS(read.flag_or("new_decoder_architecture", false, grouped));
  ANYBIT_TRY_STATUS(read.flag_or("parallel_attn", true, parallel));
  ANYBIT_TRY_STATUS(read.flag_or("bias", false, bias));
  ANYBIT_TRY_STATUS(read.flag_or("alibi", false, alibi));
  f.qkv_bias = f.output_bias = f.mlp_bias = bias;
  // The number of key-value heads counts only in the new form: the configuration of 7B says 71 and has one.
  c.kv_heads = multi_query ? 1 : c.heads;
  if (grouped) ANYBIT_TRY_STATUS(read.count_or(read.either({"num_kv_heads", "n_head_kv"}), c.heads, c.kv_heads));
  Index norms = 2;
  ANYBIT_TRY_STATUS(read.count_or("num_ln_in_parallel_attn", 2, norms));
  f.order = grouped    ? norms == 1 ? BlockOrder::parallel : BlockOrder::parallel_two
            : parallel ? BlockOrder::parallel
                       : BlockOrder::pre;
  ANYBIT_TRY_STATUS(read.read_tie(true));
  if (alibi) {
    f.positions = Positions::alibi;
    f.alibi_scale = 1 / std::sqrt(static_cast<float>(c.head_dim));  // slopes are added before scores are scaled
    return c;
  }
  ANYBIT_TRY_STATUS(hf_config::read_rope(read, c));
  return c;
}

/// GGUF says by its tensors which form a model has, and has none with ALiBi.
inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  DecoderConfig c;
  DecoderForm& f = c.form;
  f.norm = NormKind::layer, f.gated = false, f.activation = nn::Activation::gelu;
  f.order = read.has_tensor("blk.0.attn_norm_2.weight") ? BlockOrder::parallel_two : BlockOrder::parallel;
  ANYBIT_TRY_STATUS(gguf_config::read_shape(read, c));
  // feed_forward_length is written as 4 times the width whatever the model has.
  if (const Index rows = read.rows_of("blk.0.ffn_up.weight"); rows > 0) c.hidden = rows;
  return c;
}

/// The layout names the order of the rows of fused q, k and v: all q, all k, all v.
inline void write_gguf(GgufConfigWriter& w, const DecoderConfig& c) {
  gguf_config::write_shape(w, c);
  w.text("tensor_data_layout", "jploski");
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::falcon

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture falcon_architecture = [] {
  Architecture a = decoder_block::architecture("falcon");
  a.model_types = falcon::model_types;
  a.names = [](const DecoderConfig& c) {
    return c.form.order == BlockOrder::parallel_two ? std::span<const TensorNames>(falcon::two_norm_names)
                                                    : std::span<const TensorNames>(falcon::names);
  };
  a.hugging_face_root = "transformer.", a.hugging_face_block = "transformer.h.";
  a.fused_order = FusedOrder::by_head;
  a.read_gguf = falcon::read_gguf;
  a.write_gguf = falcon::write_gguf;
  a.read_hugging_face = falcon::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
