#pragma once
// Gemma (arXiv:2403.08295): llama with scaled embeddings, GELU in the gate, and gains that Hugging Face stores less 1.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/core/half.hpp>
#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::gemma {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"gemma"};

inline constexpr std::array names{TensorNames{"token_embd.weight", {"model.embed_tokens.weight"}},
                                  TensorNames{"output_norm.weight", {"model.norm.weight", Part::whole, false, true}},
                                  TensorNames{"output.weight", {"lm_head.weight"}},
                                  TensorNames{"attn_norm.weight", {"input_layernorm.weight", Part::whole, false, true}},
                                  TensorNames{"attn_q.weight", {"self_attn.q_proj.weight"}},
                                  TensorNames{"attn_k.weight", {"self_attn.k_proj.weight"}},
                                  TensorNames{"attn_v.weight", {"self_attn.v_proj.weight"}},
                                  TensorNames{"attn_output.weight", {"self_attn.o_proj.weight"}},
                                  TensorNames{"ffn_norm.weight", {"post_attention_layernorm.weight", Part::whole, false, true}},
                                  TensorNames{"ffn_gate.weight", {"mlp.gate_proj.weight"}},
                                  TensorNames{"ffn_up.weight", {"mlp.up_proj.weight"}},
                                  TensorNames{"ffn_down.weight", {"mlp.down_proj.weight"}}};

/// sqrt(dim), rounded as a model in bfloat16 rounds it.
inline float embedding_scale(const HfConfigReader& read, Index dim) {
  const float scale = std::sqrt(static_cast<float>(dim));
  const std::string_view key = read.either({"dtype", "torch_dtype"});
  const auto type = read.json().text(key);
  return type && *type == "bfloat16" ? bf16_to_f32(f32_to_bf16(scale)) : scale;
}

/// All Gemmas: `hidden_act` says gelu in old files, and means the tanh form all the same.
inline Status read_common(HfConfigReader& read, DecoderConfig& c) {
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c));
  ANYBIT_TRY_STATUS(read.number_or("rms_norm_eps", 1e-6f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read.activation(read.either({"hidden_activation", "hidden_act"}), "gelu_pytorch_tanh", c.form.activation));
  if (c.form.activation == nn::Activation::gelu) c.form.activation = nn::Activation::gelu_tanh;
  ANYBIT_TRY_STATUS(read.read_tie(true));
  c.form.embedding_scale = embedding_scale(read, c.dim);
  return hf_config::read_rope(read, c);
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  ANYBIT_TRY_STATUS(read_common(read, c));
  return c;
}

inline Status read_gguf_common(GgufConfigReader& read, DecoderConfig& c) {
  c.form.activation = nn::Activation::gelu_tanh;
  ANYBIT_TRY_STATUS(gguf_config::read_shape(read, c));
  c.form.embedding_scale = std::sqrt(static_cast<float>(c.dim));
  return Ok{};
}

inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  DecoderConfig c;
  ANYBIT_TRY_STATUS(read_gguf_common(read, c));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::gemma

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture gemma_architecture = [] {
  Architecture a = decoder_block::architecture("gemma");
  a.model_types = gemma::model_types;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(gemma::names); };
  a.read_gguf = gemma::read_gguf;
  a.read_hugging_face = gemma::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
