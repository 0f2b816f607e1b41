#pragma once
// Phi-3 (arXiv:2404.14219) and Phi-4: llama with q, k, v and gate, up each in one tensor, and LongRoPE.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/llama.hpp>

namespace anybit::model::phi3 {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"phi3"};

inline constexpr std::array names{
    TensorNames{"token_embd.weight", {"model.embed_tokens.weight"}},
    TensorNames{"output_norm.weight", {"model.norm.weight"}},
    TensorNames{"output.weight", {"lm_head.weight"}},
    TensorNames{"attn_norm.weight", {"input_layernorm.weight"}},
    TensorNames{"attn_q.weight", {"self_attn.qkv_proj.weight", Part::q}, {"attn_qkv.weight", Part::q}},
    TensorNames{"attn_k.weight", {"self_attn.qkv_proj.weight", Part::k}, {"attn_qkv.weight", Part::k}},
    TensorNames{"attn_v.weight", {"self_attn.qkv_proj.weight", Part::v}, {"attn_qkv.weight", Part::v}},
    TensorNames{"attn_output.weight", {"self_attn.o_proj.weight"}},
    TensorNames{"ffn_norm.weight", {"post_attention_layernorm.weight"}},
    TensorNames{"ffn_gate.weight", {"mlp.gate_up_proj.weight", Part::gate}, {"ffn_up.weight", Part::gate}},
    TensorNames{"ffn_up.weight", {"mlp.gate_up_proj.weight", Part::up}, {"ffn_up.weight", Part::up}},
    TensorNames{"ffn_down.weight", {"mlp.down_proj.weight"}}};

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  ANYBIT_TRY_STATUS(llama::read_common(read, c, 1e-5f));
  ANYBIT_TRY_STATUS(hf_config::read_window(read, "sliding_window", c, [](Index) { return true; }));
  return c;
}

/// Factors of LongRoPE are tensors, rope_factors_short.weight and rope_factors_long.weight.
inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  DecoderConfig c;
  ANYBIT_TRY_STATUS(gguf_config::read_shape(read, c));
  ANYBIT_TRY_STATUS(read.count_or("rope.scaling.original_context_length", 0, c.rope_original_context));
  ANYBIT_TRY_STATUS(read.number_or("rope.scaling.attn_factor", 1, c.rope_magnitude));
  float window = 0;
  ANYBIT_TRY_STATUS(read.number_or("attention.sliding_window", 0, window));
  if (!(window >= 0 && window < 2147483648.0f))
    return read.unsupported("attention.sliding_window", std::to_string(window), "a window has 0 to 2^31 - 1 positions");
  c.form.window = static_cast<Index>(window);
  return c;
}

inline void write_gguf(GgufConfigWriter& w, const DecoderConfig& c) {
  gguf_config::write_shape(w, c);
  if (c.rope_original_context > 0) w.count("rope.scaling.original_context_length", c.rope_original_context);
  if (c.rope_magnitude != 1) w.number("rope.scaling.attn_factor", c.rope_magnitude);
  w.count("attention.sliding_window", c.form.window);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::phi3

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture phi3_architecture = [] {
  Architecture a = decoder_block::architecture("phi3");
  a.model_types = phi3::model_types;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(phi3::names); };
  a.read_gguf = phi3::read_gguf;
  a.write_gguf = phi3::write_gguf;
  a.read_hugging_face = phi3::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
