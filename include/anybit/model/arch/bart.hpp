#pragma once
// BART (Lewis et al., arXiv:1910.13461): an encoder and a decoder with the norms behind attention, cross-attention and MLP, one
// more behind the embeddings, positions that start at row 2 of their tables, and a bias on the logits. GGUF has no such
// architecture.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include <anybit/model/arch/whisper.hpp>

namespace anybit::model::bart {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"bart"};

/// Of the model; blocks have Whisper's names, and biases on k.
inline constexpr std::array once_names{
    TensorNames{"token_embd.weight", {"model.shared.weight"}},
    TensorNames{"token_embd.weight", {.name = "model.encoder.embed_tokens.weight", .copy = true}},
    TensorNames{"token_embd.weight", {.name = "model.decoder.embed_tokens.weight", .copy = true}},
    TensorNames{"enc.position_embd.weight", {"model.encoder.embed_positions.weight"}},
    TensorNames{"enc.token_embd_norm.weight", {"model.encoder.layernorm_embedding.weight"}},
    TensorNames{"enc.token_embd_norm.bias", {"model.encoder.layernorm_embedding.bias"}},
    TensorNames{"position_embd.weight", {"model.decoder.embed_positions.weight"}},
    TensorNames{"token_embd_norm.weight", {"model.decoder.layernorm_embedding.weight"}},
    TensorNames{"token_embd_norm.bias", {"model.decoder.layernorm_embedding.bias"}},
    TensorNames{"logit_bias", {"final_logits_bias"}},
    TensorNames{"output.weight", {"lm_head.weight"}}};

inline constexpr std::array k_biases{TensorNames{"attn_k.bias", {"self_attn.k_proj.bias"}},
                                     TensorNames{"cross_attn_k.bias", {"encoder_attn.k_proj.bias"}}};

inline constexpr auto names = [] {
  std::array<TensorNames, once_names.size() + k_biases.size() + whisper::block_names.size()> all{};
  std::size_t at = 0;
  for (const TensorNames& n : once_names) all[at++] = n;
  for (const TensorNames& n : k_biases) all[at++] = n;
  for (const TensorNames& n : whisper::block_names) all[at++] = n;
  return all;
}();

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c, e;
  read.use("is_encoder_decoder");
  for (auto [stack, to] : {std::pair{"encoder", &e}, std::pair{"decoder", &c}}) {
    ANYBIT_TRY_STATUS(whisper::read_stack(read, stack, "max_position_embeddings", *to));
    DecoderForm& f = to->form;
    f.order = BlockOrder::post, f.position_offset = 2, f.embedding_norm = f.k_bias = true, f.final_norm = false;
    bool scaled = false;
    ANYBIT_TRY_STATUS(read.flag_or("scale_embedding", false, scaled));
    if (scaled) f.embedding_scale = std::sqrt(static_cast<float>(to->dim));
  }
  e.form.causal = e.form.head = false;
  c.form.cross_attention = c.form.logit_bias = true;
  ANYBIT_TRY_STATUS(read.read_tie(true));
  c.blocks += e.blocks;
  c.encoder.assign(1, std::move(e));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::bart

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture bart_architecture = [] {
  Architecture a = decoder_block::architecture("bart");
  a.model_types = bart::model_types;
  a.points = decoder_block::encoder_decoder_points;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(bart::names); };
  a.encoder_names = a.names;
  a.hugging_face_block = "model.decoder.layers.", a.hugging_face_encoder_block = "model.encoder.layers.";
  a.read_hugging_face = bart::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
