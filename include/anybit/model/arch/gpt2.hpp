#pragma once
// GPT-2 (Radford et al., 2019): LayerNorm, learned positions, GELU, biases everywhere. Hugging Face stores its weights transposed
// and q, k, v in one.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::gpt2 {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"gpt2"};

inline constexpr std::array names{
    TensorNames{"token_embd.weight", {"transformer.wte.weight"}},
    TensorNames{"position_embd.weight", {"transformer.wpe.weight"}},
    TensorNames{"output_norm.weight", {"transformer.ln_f.weight"}},
    TensorNames{"output_norm.bias", {"transformer.ln_f.bias"}},
    TensorNames{"output.weight", {"lm_head.weight"}},
    TensorNames{"attn_norm.weight", {"ln_1.weight"}},
    TensorNames{"attn_norm.bias", {"ln_1.bias"}},
    TensorNames{"attn_q.weight", {"attn.c_attn.weight", Part::q, true}, {"attn_qkv.weight", Part::q}},
    TensorNames{"attn_q.bias", {"attn.c_attn.bias", Part::q}, {"attn_qkv.bias", Part::q}},
    TensorNames{"attn_k.weight", {"attn.c_attn.weight", Part::k, true}, {"attn_qkv.weight", Part::k}},
    TensorNames{"attn_k.bias", {"attn.c_attn.bias", Part::k}, {"attn_qkv.bias", Part::k}},
    TensorNames{"attn_v.weight", {"attn.c_attn.weight", Part::v, true}, {"attn_qkv.weight", Part::v}},
    TensorNames{"attn_v.bias", {"attn.c_attn.bias", Part::v}, {"attn_qkv.bias", Part::v}},
    TensorNames{"attn_output.weight", {"attn.c_proj.weight", Part::whole, true}},
    TensorNames{"attn_output.bias", {"attn.c_proj.bias"}},
    TensorNames{"ffn_norm.weight", {"ln_2.weight"}},
    TensorNames{"ffn_norm.bias", {"ln_2.bias"}},
    TensorNames{"ffn_up.weight", {"mlp.c_fc.weight", Part::whole, true}},
    TensorNames{"ffn_up.bias", {"mlp.c_fc.bias"}},
    TensorNames{"ffn_down.weight", {"mlp.c_proj.weight", Part::whole, true}},
    TensorNames{"ffn_down.bias", {"mlp.c_proj.bias"}}};

inline DecoderForm form() {
  DecoderForm f;
  f.norm = NormKind::layer, f.positions = Positions::learned, f.gated = false, f.activation = nn::Activation::gelu_tanh;
  f.qkv_bias = f.output_bias = f.mlp_bias = true;
  return f;
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  c.form = form();
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c, {"n_embd", "n_inner", "n_layer", "n_head", "", "n_positions"}));
  ANYBIT_TRY_STATUS(read.number_or("layer_norm_epsilon", 1e-5f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read.activation("activation_function", "gelu_new", c.form.activation));
  ANYBIT_TRY_STATUS(read.flag_or("scale_attn_by_inverse_layer_idx", false, c.form.scale_by_layer));
  bool scaled = true;
  ANYBIT_TRY_STATUS(read.flag_or("scale_attn_weights", true, scaled));
  if (!scaled) c.form.attention_scale = 1;
  ANYBIT_TRY_STATUS(read.read_tie(true));
  return c;
}

inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  DecoderConfig c;
  c.form = form();
  ANYBIT_TRY_STATUS(gguf_config::read_shape(read, c));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::gpt2

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture gpt2_architecture = [] {
  Architecture a = decoder_block::architecture("gpt2");
  a.model_types = gpt2::model_types;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(gpt2::names); };
  a.hugging_face_root = "transformer.", a.hugging_face_block = "transformer.h.";
  a.read_gguf = gpt2::read_gguf;
  a.read_hugging_face = gpt2::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
