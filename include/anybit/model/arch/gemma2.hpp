#pragma once
// Gemma 2 (arXiv:2408.00118): norms before and behind attention and MLP, soft caps, a window in every other block.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/gemma.hpp>

namespace anybit::model::gemma2 {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"gemma2"};

inline constexpr std::array names{
    TensorNames{"token_embd.weight", {"model.embed_tokens.weight"}},
    TensorNames{"output_norm.weight", {"model.norm.weight", Part::whole, false, true}},
    TensorNames{"output.weight", {"lm_head.weight"}},
    TensorNames{"attn_norm.weight", {"input_layernorm.weight", Part::whole, false, true}},
    TensorNames{"attn_q.weight", {"self_attn.q_proj.weight"}},
    TensorNames{"attn_k.weight", {"self_attn.k_proj.weight"}},
    TensorNames{"attn_v.weight", {"self_attn.v_proj.weight"}},
    TensorNames{"attn_output.weight", {"self_attn.o_proj.weight"}},
    TensorNames{"attn_q_norm.weight", {"self_attn.q_norm.weight", Part::whole, false, true}},
    TensorNames{"attn_k_norm.weight", {"self_attn.k_norm.weight", Part::whole, false, true}},
    TensorNames{"post_attention_norm.weight", {"post_attention_layernorm.weight", Part::whole, false, true}},
    TensorNames{"ffn_norm.weight", {"pre_feedforward_layernorm.weight", Part::whole, false, true}},
    TensorNames{"post_ffw_norm.weight", {"post_feedforward_layernorm.weight", Part::whole, false, true}},
    TensorNames{"ffn_gate.weight", {"mlp.gate_proj.weight"}},
    TensorNames{"ffn_up.weight", {"mlp.up_proj.weight"}},
    TensorNames{"ffn_down.weight", {"mlp.down_proj.weight"}}};

/// Of Gemma 2 and 3.
inline Status read_common(HfConfigReader& read, DecoderConfig& c) {
  c.form.order = BlockOrder::sandwich;
  ANYBIT_TRY_STATUS(gemma::read_common(read, c));
  float per_head = 0;
  ANYBIT_TRY_STATUS(read.number_or("query_pre_attn_scalar", 256, per_head));
  if (!(per_head > 0)) return read.contradiction("query_pre_attn_scalar", "not above 0");
  c.form.attention_scale = 1 / std::sqrt(per_head);
  ANYBIT_TRY_STATUS(read.number_or("attn_logit_softcapping", 0, c.form.attention_cap));
  return read.number_or("final_logit_softcapping", 0, c.form.logit_cap);
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  ANYBIT_TRY_STATUS(read_common(read, c));
  ANYBIT_TRY_STATUS(hf_config::read_window(read, "sliding_window", c, [](Index i) { return i % 2 == 0; }));
  return c;
}

/// GGUF does not store query_pre_attn_scalar: it is head_dim but in the model of 27 billion weights, 46 blocks of width 4608.
inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  DecoderConfig c;
  c.form.order = BlockOrder::sandwich;
  ANYBIT_TRY_STATUS(gemma::read_gguf_common(read, c));
  if (c.blocks == 46 && c.dim == 4608)
    c.form.attention_scale = 1 / std::sqrt(static_cast<float>(c.dim) / static_cast<float>(c.heads));
  ANYBIT_TRY_STATUS(read.number_or("attn_logit_softcapping", 50, c.form.attention_cap));
  ANYBIT_TRY_STATUS(read.number_or("final_logit_softcapping", 30, c.form.logit_cap));
  ANYBIT_TRY_STATUS(read.count_or("attention.sliding_window", 4096, c.form.window));
  c.form.set_windowed(c.blocks, [](Index i) { return i % 2 == 0; });
  return c;
}

inline void write_gguf(GgufConfigWriter& w, const DecoderConfig& c) {
  gguf_config::write_shape(w, c);
  w.number("attn_logit_softcapping", c.form.attention_cap);
  w.number("final_logit_softcapping", c.form.logit_cap);
  w.count("attention.sliding_window", c.form.window);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::gemma2

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture gemma2_architecture = [] {
  Architecture a = decoder_block::architecture("gemma2");
  a.model_types = gemma2::model_types;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(gemma2::names); };
  a.read_gguf = gemma2::read_gguf;
  a.write_gguf = gemma2::write_gguf;
  a.read_hugging_face = gemma2::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
