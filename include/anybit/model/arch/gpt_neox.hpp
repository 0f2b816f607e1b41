#pragma once
// GPT-NeoX (arXiv:2204.06745) and Pythia: attention and MLP side by side, each behind a LayerNorm of its own, positions rotate
// the first part of a head. q, k, v lie in one tensor, head by head.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::gpt_neox {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"gpt_neox"};

inline constexpr std::array names{
    TensorNames{"token_embd.weight", {"gpt_neox.embed_in.weight"}},
    TensorNames{"output_norm.weight", {"gpt_neox.final_layer_norm.weight"}},
    TensorNames{"output_norm.bias", {"gpt_neox.final_layer_norm.bias"}},
    TensorNames{"output.weight", {"embed_out.weight"}},
    TensorNames{"attn_norm.weight", {"input_layernorm.weight"}},
    TensorNames{"attn_norm.bias", {"input_layernorm.bias"}},
    TensorNames{"attn_q.weight", {"attention.query_key_value.weight", Part::q}, {"attn_qkv.weight", Part::q}},
    TensorNames{"attn_q.bias", {"attention.query_key_value.bias", Part::q}, {"attn_qkv.bias", Part::q}},
    TensorNames{"attn_k.weight", {"attention.query_key_value.weight", Part::k}, {"attn_qkv.weight", Part::k}},
    TensorNames{"attn_k.bias", {"attention.query_key_value.bias", Part::k}, {"attn_qkv.bias", Part::k}},
    TensorNames{"attn_v.weight", {"attention.query_key_value.weight", Part::v}, {"attn_qkv.weight", Part::v}},
    TensorNames{"attn_v.bias", {"attention.query_key_value.bias", Part::v}, {"attn_qkv.bias", Part::v}},
    TensorNames{"attn_output.weight", {"attention.dense.weight"}},
    TensorNames{"attn_output.bias", {"attention.dense.bias"}},
    TensorNames{"ffn_norm.weight", {"post_attention_layernorm.weight"}},
    TensorNames{"ffn_norm.bias", {"post_attention_layernorm.bias"}},
    TensorNames{"ffn_up.weight", {"mlp.dense_h_to_4h.weight"}},
    TensorNames{"ffn_up.bias", {"mlp.dense_h_to_4h.bias"}},
    TensorNames{"ffn_down.weight", {"mlp.dense_4h_to_h.weight"}},
    TensorNames{"ffn_down.bias", {"mlp.dense_4h_to_h.bias"}}};

inline DecoderForm form() {
  DecoderForm f;
  f.norm = NormKind::layer, f.order = BlockOrder::parallel_two, f.gated = false, f.activation = nn::Activation::gelu;
  f.qkv_bias = f.output_bias = f.mlp_bias = true;
  return f;
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  c.form = form();
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c, {.kv_heads = ""}));
  ANYBIT_TRY_STATUS(read.number_or("layer_norm_eps", 1e-5f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read.activation("hidden_act", "gelu", c.form.activation));
  bool parallel = true;
  ANYBIT_TRY_STATUS(read.flag_or("use_parallel_residual", true, parallel));
  if (!parallel) c.form.order = BlockOrder::pre;
  ANYBIT_TRY_STATUS(read.flag_or("attention_bias", true, c.form.qkv_bias));
  c.form.output_bias = c.form.qkv_bias;
  ANYBIT_TRY_STATUS(read.read_tie(false));
  ANYBIT_TRY_STATUS(hf_config::read_rope(read, c, 10000, read.either({"rotary_emb_base", "rope_theta"}),
                                         read.either({"rotary_pct", "partial_rotary_factor"}), 0.25f));
  return c;
}

inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  DecoderConfig c;
  c.form = form();
  ANYBIT_TRY_STATUS(gguf_config::read_shape(read, c));
  bool parallel = true;
  ANYBIT_TRY_STATUS(read.flag_or("use_parallel_residual", true, parallel));
  if (!parallel) c.form.order = BlockOrder::pre;
  return c;
}

inline void write_gguf(GgufConfigWriter& w, const DecoderConfig& c) {
  gguf_config::write_shape(w, c);
  w.flag("use_parallel_residual", c.form.parallel());
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::gpt_neox

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture gpt_neox_architecture = [] {
  Architecture a = decoder_block::architecture("gptneox");
  a.model_types = gpt_neox::model_types;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(gpt_neox::names); };
  a.hugging_face_root = "gpt_neox.", a.hugging_face_block = "gpt_neox.layers.";
  a.fused_order = FusedOrder::by_head;
  a.read_gguf = gpt_neox::read_gguf;
  a.write_gguf = gpt_neox::write_gguf;
  a.read_hugging_face = gpt_neox::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
