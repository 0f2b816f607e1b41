#pragma once
// Whisper (Radford et al., arXiv:2212.04356): an encoder of mel features behind two convolutions, and a decoder of text with
// cross-attention. Both have norms in front, learned positions (the encoder's are stored sinusoids), and biases everywhere but on
// keys. GGUF has no such architecture.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::whisper {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"whisper"};

/// `final_layer_norm` of a layer is the MLP's norm.
inline constexpr std::array block_names{TensorNames{"attn_norm.weight", {"self_attn_layer_norm.weight"}},
                                        TensorNames{"attn_norm.bias", {"self_attn_layer_norm.bias"}},
                                        TensorNames{"attn_q.weight", {"self_attn.q_proj.weight"}},
                                        TensorNames{"attn_q.bias", {"self_attn.q_proj.bias"}},
                                        TensorNames{"attn_k.weight", {"self_attn.k_proj.weight"}},
                                        TensorNames{"attn_v.weight", {"self_attn.v_proj.weight"}},
                                        TensorNames{"attn_v.bias", {"self_attn.v_proj.bias"}},
                                        TensorNames{"attn_output.weight", {"self_attn.out_proj.weight"}},
                                        TensorNames{"attn_output.bias", {"self_attn.out_proj.bias"}},
                                        TensorNames{"cross_attn_norm.weight", {"encoder_attn_layer_norm.weight"}},
                                        TensorNames{"cross_attn_norm.bias", {"encoder_attn_layer_norm.bias"}},
                                        TensorNames{"cross_attn_q.weight", {"encoder_attn.q_proj.weight"}},
                                        TensorNames{"cross_attn_q.bias", {"encoder_attn.q_proj.bias"}},
                                        TensorNames{"cross_attn_k.weight", {"encoder_attn.k_proj.weight"}},
                                        TensorNames{"cross_attn_v.weight", {"encoder_attn.v_proj.weight"}},
                                        TensorNames{"cross_attn_v.bias", {"encoder_attn.v_proj.bias"}},
                                        TensorNames{"cross_attn_output.weight", {"encoder_attn.out_proj.weight"}},
                                        TensorNames{"cross_attn_output.bias", {"encoder_attn.out_proj.bias"}},
                                        TensorNames{"ffn_norm.weight", {"final_layer_norm.weight"}},
                                        TensorNames{"ffn_norm.bias", {"final_layer_norm.bias"}},
                                        TensorNames{"ffn_up.weight", {"fc1.weight"}},
                                        TensorNames{"ffn_up.bias", {"fc1.bias"}},
                                        TensorNames{"ffn_down.weight", {"fc2.weight"}},
                                        TensorNames{"ffn_down.bias", {"fc2.bias"}}};

inline constexpr std::array once_names{TensorNames{"enc.conv1.weight", {.name = "model.encoder.conv1.weight", .flattened = true}},
                                       TensorNames{"enc.conv1.bias", {"model.encoder.conv1.bias"}},
                                       TensorNames{"enc.conv2.weight", {.name = "model.encoder.conv2.weight", .flattened = true}},
                                       TensorNames{"enc.conv2.bias", {"model.encoder.conv2.bias"}},
                                       TensorNames{"enc.position_embd.weight", {"model.encoder.embed_positions.weight"}},
                                       TensorNames{"enc.output_norm.weight", {"model.encoder.layer_norm.weight"}},
                                       TensorNames{"enc.output_norm.bias", {"model.encoder.layer_norm.bias"}},
                                       TensorNames{"token_embd.weight", {"model.decoder.embed_tokens.weight"}},
                                       TensorNames{"position_embd.weight", {"model.decoder.embed_positions.weight"}},
                                       TensorNames{"output_norm.weight", {"model.decoder.layer_norm.weight"}},
                                       TensorNames{"output_norm.bias", {"model.decoder.layer_norm.bias"}},
                                       TensorNames{"output.weight", {"proj_out.weight"}}};

inline constexpr auto names = [] {
  std::array<TensorNames, once_names.size() + block_names.size()> all{};
  std::size_t at = 0;
  for (const TensorNames& n : once_names) all[at++] = n;
  for (const TensorNames& n : block_names) all[at++] = n;
  return all;
}();

inline DecoderForm form() {
  DecoderForm f;
  f.norm = NormKind::layer, f.positions = Positions::learned, f.activation = nn::Activation::gelu;
  f.gated = f.k_bias = false;
  f.qkv_bias = f.output_bias = f.mlp_bias = true;
  return f;
}

/// One of the two stacks: `stack` is "encoder" or "decoder", as its keys begin.
inline Status read_stack(HfConfigReader& read, const std::string& stack, std::string_view context, DecoderConfig& c) {
  c.form = form();
  const std::string hidden = stack + "_ffn_dim", blocks = stack + "_layers", heads = stack + "_attention_heads";
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c, {"d_model", hidden, blocks, heads, "", context}));
  ANYBIT_TRY_STATUS(read.activation("activation_function", "gelu", c.form.activation));
  return Ok{};
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c, e;
  read.use("is_encoder_decoder");
  ANYBIT_TRY_STATUS(read_stack(read, "encoder", "max_source_positions", e));
  e.form.causal = e.form.head = false;
  ANYBIT_TRY_STATUS(read.count("num_mel_bins", e.form.feature_bins));
  ANYBIT_TRY_STATUS(read_stack(read, "decoder", "max_target_positions", c));
  ANYBIT_TRY_STATUS(read.read_tie(true));
  c.form.cross_attention = true;
  c.blocks += e.blocks;
  c.encoder.assign(1, std::move(e));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::whisper

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture whisper_architecture = [] {
  Architecture a = decoder_block::architecture("whisper");
  a.model_types = whisper::model_types;
  a.points = decoder_block::encoder_decoder_points;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(whisper::names); };
  a.encoder_names = [](const DecoderConfig&) { return std::span<const TensorNames>(whisper::block_names); };
  a.hugging_face_block = "model.decoder.layers.", a.hugging_face_encoder_block = "model.encoder.layers.";
  a.read_hugging_face = whisper::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
