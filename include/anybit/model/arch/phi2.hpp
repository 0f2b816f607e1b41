#pragma once
// Phi-1 to Phi-2 (arXiv:2306.11644): attention and MLP side by side behind one LayerNorm, positions rotate the first part of a
// head, biases everywhere, the head included.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::phi2 {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"phi"};

/// GGUF has q, k and v apart or in one.
inline constexpr std::array names{TensorNames{"token_embd.weight", {"model.embed_tokens.weight"}},
                                  TensorNames{"output_norm.weight", {"model.final_layernorm.weight"}},
                                  TensorNames{"output_norm.bias", {"model.final_layernorm.bias"}},
                                  TensorNames{"output.weight", {"lm_head.weight"}},
                                  TensorNames{"output.bias", {"lm_head.bias"}},
                                  TensorNames{"attn_norm.weight", {"input_layernorm.weight"}},
                                  TensorNames{"attn_norm.bias", {"input_layernorm.bias"}},
                                  TensorNames{"attn_q.weight", {"self_attn.q_proj.weight"}},
                                  TensorNames{"attn_q.bias", {"self_attn.q_proj.bias"}},
                                  TensorNames{"attn_k.weight", {"self_attn.k_proj.weight"}},
                                  TensorNames{"attn_k.bias", {"self_attn.k_proj.bias"}},
                                  TensorNames{"attn_v.weight", {"self_attn.v_proj.weight"}},
                                  TensorNames{"attn_v.bias", {"self_attn.v_proj.bias"}},
                                  TensorNames{"attn_q_norm.weight", {"self_attn.q_layernorm.weight"}},
                                  TensorNames{"attn_q_norm.bias", {"self_attn.q_layernorm.bias"}},
                                  TensorNames{"attn_k_norm.weight", {"self_attn.k_layernorm.weight"}},
                                  TensorNames{"attn_k_norm.bias", {"self_attn.k_layernorm.bias"}},
                                  TensorNames{"attn_output.weight", {"self_attn.dense.weight"}},
                                  TensorNames{"attn_output.bias", {"self_attn.dense.bias"}},
                                  TensorNames{"ffn_up.weight", {"mlp.fc1.weight"}},
                                  TensorNames{"ffn_up.bias", {"mlp.fc1.bias"}},
                                  TensorNames{"ffn_down.weight", {"mlp.fc2.weight"}},
                                  TensorNames{"ffn_down.bias", {"mlp.fc2.bias"}},
                                  TensorNames{"attn_q.weight", {}, {"attn_qkv.weight", Part::q}},
                                  TensorNames{"attn_q.bias", {}, {"attn_qkv.bias", Part::q}},
                                  TensorNames{"attn_k.weight", {}, {"attn_qkv.weight", Part::k}},
                                  TensorNames{"attn_k.bias", {}, {"attn_qkv.bias", Part::k}},
                                  TensorNames{"attn_v.weight", {}, {"attn_qkv.weight", Part::v}},
                                  TensorNames{"attn_v.bias", {}, {"attn_qkv.bias", Part::v}}};

inline DecoderForm form() {
  DecoderForm f;
  f.norm = NormKind::layer, f.order = BlockOrder::parallel, f.gated = false, f.activation = nn::Activation::gelu_tanh;
  f.qkv_bias = f.output_bias = f.mlp_bias = f.head_bias = true;
  return f;
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  c.form = form();
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c));
  ANYBIT_TRY_STATUS(read.number_or("layer_norm_eps", 1e-5f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read.activation("hidden_act", "gelu_new", c.form.activation));
  bool head_norm = false;
  ANYBIT_TRY_STATUS(read.flag_or("qk_layernorm", false, head_norm));
  if (head_norm) c.form.head_norm = HeadNorm::layer;
  ANYBIT_TRY_STATUS(read.read_tie(false));
  ANYBIT_TRY_STATUS(hf_config::read_rope(read, c, 10000, "rope_theta", "partial_rotary_factor", 0.5f));
  return c;
}

inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  DecoderConfig c;
  c.form = form();
  ANYBIT_TRY_STATUS(gguf_config::read_shape(read, c));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::phi2

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture phi2_architecture = [] {
  Architecture a = decoder_block::architecture("phi2");
  a.model_types = phi2::model_types;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(phi2::names); };
  a.read_gguf = phi2::read_gguf;
  a.read_hugging_face = phi2::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
