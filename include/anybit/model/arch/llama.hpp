#pragma once
// Llama 1 to 3 (Touvron et al., arXiv:2302.13971), Mistral (arXiv:2310.06825) and Mixtral: RMSNorm, rotary positions, grouped
// queries, SwiGLU; Mistral has a window, Mixtral experts (arch/mixtral.hpp). Architectures that differ in little share its names
// and configuration.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/mixtral.hpp>

namespace anybit::model::llama {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 3> model_types{"llama", "mistral", "mixtral"};

inline constexpr std::array names{TensorNames{"token_embd.weight", {"model.embed_tokens.weight"}},
                                  TensorNames{"output_norm.weight", {"model.norm.weight"}},
                                  TensorNames{"output.weight", {"lm_head.weight"}},
                                  TensorNames{"attn_norm.weight", {"input_layernorm.weight"}},
                                  TensorNames{"attn_q.weight", {"self_attn.q_proj.weight"}},
                                  TensorNames{"attn_k.weight", {"self_attn.k_proj.weight"}},
                                  TensorNames{"attn_v.weight", {"self_attn.v_proj.weight"}},
                                  TensorNames{"attn_q.bias", {"self_attn.q_proj.bias"}},
                                  TensorNames{"attn_k.bias", {"self_attn.k_proj.bias"}},
                                  TensorNames{"attn_v.bias", {"self_attn.v_proj.bias"}},
                                  TensorNames{"attn_q_norm.weight", {"self_attn.q_norm.weight"}},
                                  TensorNames{"attn_k_norm.weight", {"self_attn.k_norm.weight"}},
                                  TensorNames{"attn_output.weight", {"self_attn.o_proj.weight"}},
                                  TensorNames{"attn_output.bias", {"self_attn.o_proj.bias"}},
                                  TensorNames{"ffn_norm.weight", {"post_attention_layernorm.weight"}},
                                  TensorNames{"ffn_gate.weight", {"mlp.gate_proj.weight"}},
                                  TensorNames{"ffn_up.weight", {"mlp.up_proj.weight"}},
                                  TensorNames{"ffn_down.weight", {"mlp.down_proj.weight"}},
                                  TensorNames{"ffn_gate.bias", {"mlp.gate_proj.bias"}},
                                  TensorNames{"ffn_up.bias", {"mlp.up_proj.bias"}},
                                  TensorNames{"ffn_down.bias", {"mlp.down_proj.bias"}}};

/// The names of an architecture of this family with those of its experts.
template <std::size_t N>
constexpr std::array<TensorNames, names.size() + N> names_with(const std::array<TensorNames, N>& experts) {
  std::array<TensorNames, names.size() + N> out{};
  std::copy(names.begin(), names.end(), out.begin());
  std::copy(experts.begin(), experts.end(), out.begin() + names.size());
  return out;
}
inline constexpr auto mixtral_names = names_with(mixtral::expert_names);

inline Result<DecoderConfig> read_gguf(GgufConfigReader& read, DecoderForm form = {}) {
  DecoderConfig c;
  c.form = std::move(form);
  ANYBIT_TRY_STATUS(gguf_config::read_shape(read, c));
  return c;
}

/// Dimensions, epsilon, activation, rotary positions and the tie of the head: what all of the family have.
inline Status read_common(HfConfigReader& read, DecoderConfig& c, float epsilon = 1e-6f) {
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c));
  ANYBIT_TRY_STATUS(read.number_or("rms_norm_eps", epsilon, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read.activation("hidden_act", "silu", c.form.activation));
  ANYBIT_TRY_STATUS(read.read_tie(false));
  return hf_config::read_rope(read, c);
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  ANYBIT_TRY_STATUS(read_common(read, c));
  ANYBIT_TRY_STATUS(read.flag_or("attention_bias", false, c.form.qkv_bias));
  c.form.output_bias = c.form.qkv_bias;
  ANYBIT_TRY_STATUS(read.flag_or("mlp_bias", false, c.form.mlp_bias));
  if (read.model_type() == "mixtral") ANYBIT_TRY_STATUS(mixtral::read_hugging_face(read, c));
  if (read.model_type() != "llama")
    ANYBIT_TRY_STATUS(hf_config::read_window(read, "sliding_window", c, [](Index) { return true; }));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::llama

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture llama_architecture = [] {
  Architecture a = decoder_block::architecture("llama");
  a.model_types = llama::model_types;
  a.names = [](const DecoderConfig& c) {
    return c.form.experts.count > 0 ? std::span<const TensorNames>(llama::mixtral_names)
                                    : std::span<const TensorNames>(llama::names);
  };
  a.gguf_order = nn::RopeOrder::pairs;
  a.read_gguf = [](GgufConfigReader& read) -> Result<DecoderConfig> {
    ANYBIT_TRY(DecoderConfig c, llama::read_gguf(read));
    ANYBIT_TRY_STATUS(mixtral::read_gguf(read, c));
    return c;
  };
  a.write_gguf = mixtral::write_gguf;
  a.read_hugging_face = llama::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
