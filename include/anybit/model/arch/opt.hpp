#pragma once
// OPT (arXiv:2205.01068): GPT-2 with ReLU and positions that start at row 2 of their table. The model of 350 million weights has
// its norms behind attention and MLP, and narrow embeddings. GGUF has no such architecture.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::opt {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"opt"};

/// `final_layer_norm` of a layer is the MLP's norm.
inline constexpr std::array names{TensorNames{"token_embd.weight", {"model.decoder.embed_tokens.weight"}},
                                  TensorNames{"position_embd.weight", {"model.decoder.embed_positions.weight"}},
                                  TensorNames{"token_embd_proj.weight", {"model.decoder.project_in.weight"}},
                                  TensorNames{"output_proj.weight", {"model.decoder.project_out.weight"}},
                                  TensorNames{"output_norm.weight", {"model.decoder.final_layer_norm.weight"}},
                                  TensorNames{"output_norm.bias", {"model.decoder.final_layer_norm.bias"}},
                                  TensorNames{"output.weight", {"lm_head.weight"}},
                                  TensorNames{"attn_norm.weight", {"self_attn_layer_norm.weight"}},
                                  TensorNames{"attn_norm.bias", {"self_attn_layer_norm.bias"}},
                                  TensorNames{"attn_q.weight", {"self_attn.q_proj.weight"}},
                                  TensorNames{"attn_q.bias", {"self_attn.q_proj.bias"}},
                                  TensorNames{"attn_k.weight", {"self_attn.k_proj.weight"}},
                                  TensorNames{"attn_k.bias", {"self_attn.k_proj.bias"}},
                                  TensorNames{"attn_v.weight", {"self_attn.v_proj.weight"}},
                                  TensorNames{"attn_v.bias", {"self_attn.v_proj.bias"}},
                                  TensorNames{"attn_output.weight", {"self_attn.out_proj.weight"}},
                                  TensorNames{"attn_output.bias", {"self_attn.out_proj.bias"}},
                                  TensorNames{"ffn_norm.weight", {"final_layer_norm.weight"}},
                                  TensorNames{"ffn_norm.bias", {"final_layer_norm.bias"}},
                                  TensorNames{"ffn_up.weight", {"fc1.weight"}},
                                  TensorNames{"ffn_up.bias", {"fc1.bias"}},
                                  TensorNames{"ffn_down.weight", {"fc2.weight"}},
                                  TensorNames{"ffn_down.bias", {"fc2.bias"}}};

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  DecoderForm& f = c.form;
  f.norm = NormKind::layer, f.positions = Positions::learned, f.position_offset = 2, f.gated = false;
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c, {.hidden = "ffn_dim", .kv_heads = ""}));
  ANYBIT_TRY_STATUS(read.activation("activation_function", "relu", f.activation));
  bool before = true, removed = false, affine = true;
  ANYBIT_TRY_STATUS(read.flag_or("do_layer_norm_before", true, before));
  ANYBIT_TRY_STATUS(read.flag_or("_remove_final_layer_norm", false, removed));
  f.order = before ? BlockOrder::pre : BlockOrder::post;
  f.final_norm = before && !removed;
  ANYBIT_TRY_STATUS(read.flag_or("layer_norm_elementwise_affine", true, affine));
  if (!affine) return read.unsupported("layer_norm_elementwise_affine", "anybit runs norms with gains, use such a model");
  ANYBIT_TRY_STATUS(read.flag_or("enable_bias", true, f.qkv_bias));
  f.output_bias = f.mlp_bias = f.qkv_bias;
  Index width = 0;
  ANYBIT_TRY_STATUS(read.count_or("word_embed_proj_dim", c.dim, width));
  f.embedding_width = width == c.dim ? 0 : width;
  ANYBIT_TRY_STATUS(read.read_tie(true));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::opt

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture opt_architecture = [] {
  Architecture a = decoder_block::architecture("opt");
  a.model_types = opt::model_types;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(opt::names); };
  a.hugging_face_block = "model.decoder.layers.";
  a.read_hugging_face = opt::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
