#pragma once
// GPT-J (Wang and Komatsuzaki, 2021): attention and MLP side by side behind one LayerNorm, positions rotate pairs of the first
// part of a head, a bias on the head. GGUF has no such architecture.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::gptj {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"gptj"};

inline constexpr std::array names{TensorNames{"token_embd.weight", {"transformer.wte.weight"}},
                                  TensorNames{"output_norm.weight", {"transformer.ln_f.weight"}},
                                  TensorNames{"output_norm.bias", {"transformer.ln_f.bias"}},
                                  TensorNames{"output.weight", {"lm_head.weight"}},
                                  TensorNames{"output.bias", {"lm_head.bias"}},
                                  TensorNames{"attn_norm.weight", {"ln_1.weight"}},
                                  TensorNames{"attn_norm.bias", {"ln_1.bias"}},
                                  TensorNames{"attn_q.weight", {"attn.q_proj.weight"}},
                                  TensorNames{"attn_k.weight", {"attn.k_proj.weight"}},
                                  TensorNames{"attn_v.weight", {"attn.v_proj.weight"}},
                                  TensorNames{"attn_output.weight", {"attn.out_proj.weight"}},
                                  TensorNames{"ffn_up.weight", {"mlp.fc_in.weight"}},
                                  TensorNames{"ffn_up.bias", {"mlp.fc_in.bias"}},
                                  TensorNames{"ffn_down.weight", {"mlp.fc_out.weight"}},
                                  TensorNames{"ffn_down.bias", {"mlp.fc_out.bias"}}};

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  DecoderForm& f = c.form;
  f.norm = NormKind::layer, f.order = BlockOrder::parallel, f.gated = false;
  f.mlp_bias = f.head_bias = true;
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c, {"n_embd", "n_inner", "n_layer", "n_head", "", "n_positions"}));
  ANYBIT_TRY_STATUS(read.number_or("layer_norm_epsilon", 1e-5f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read.activation("activation_function", "gelu_new", f.activation));
  ANYBIT_TRY_STATUS(read.count_or("rotary_dim", c.head_dim, c.rotary_dim));
  ANYBIT_TRY_STATUS(read.read_tie(false));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::gptj

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture gptj_architecture = [] {
  Architecture a = decoder_block::architecture("gptj");
  a.model_types = gptj::model_types;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(gptj::names); };
  a.hugging_face_root = "transformer.", a.hugging_face_block = "transformer.h.";
  a.hugging_face_order = nn::RopeOrder::pairs;
  a.read_hugging_face = gptj::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
