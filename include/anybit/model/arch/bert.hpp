#pragma once
// BERT (Devlin et al., arXiv:1810.04805), also MiniLM and other sentence encoders: an encoder with its norms behind attention and
// MLP, learned positions and types of tokens. It gives states, and by model/pooling.hpp one vector per text.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::bert {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"bert"};

inline constexpr std::array names{
    TensorNames{"token_embd.weight", {"embeddings.word_embeddings.weight"}},
    TensorNames{"position_embd.weight", {"embeddings.position_embeddings.weight"}},
    TensorNames{"token_types.weight", {"embeddings.token_type_embeddings.weight"}},
    TensorNames{"token_embd_norm.weight", {"embeddings.LayerNorm.weight"}},
    TensorNames{"token_embd_norm.bias", {"embeddings.LayerNorm.bias"}},
    TensorNames{"pooler.weight", {"pooler.dense.weight"}, {"cls.weight"}},
    TensorNames{"pooler.bias", {"pooler.dense.bias"}, {"cls.bias"}},
    TensorNames{"attn_norm.weight", {"attention.output.LayerNorm.weight"}, {"attn_output_norm.weight"}},
    TensorNames{"attn_norm.bias", {"attention.output.LayerNorm.bias"}, {"attn_output_norm.bias"}},
    TensorNames{"attn_q.weight", {"attention.self.query.weight"}}, TensorNames{"attn_q.bias", {"attention.self.query.bias"}},
    TensorNames{"attn_k.weight", {"attention.self.key.weight"}}, TensorNames{"attn_k.bias", {"attention.self.key.bias"}},
    TensorNames{"attn_v.weight", {"attention.self.value.weight"}}, TensorNames{"attn_v.bias", {"attention.self.value.bias"}},
    TensorNames{"attn_output.weight", {"attention.output.dense.weight"}},
    TensorNames{"attn_output.bias", {"attention.output.dense.bias"}},
    TensorNames{"ffn_norm.weight", {"output.LayerNorm.weight"}, {"layer_output_norm.weight"}},
    TensorNames{"ffn_norm.bias", {"output.LayerNorm.bias"}, {"layer_output_norm.bias"}},
    TensorNames{"ffn_up.weight", {"intermediate.dense.weight"}}, TensorNames{"ffn_up.bias", {"intermediate.dense.bias"}},
    TensorNames{"ffn_down.weight", {"output.dense.weight"}}, TensorNames{"ffn_down.bias", {"output.dense.bias"}},
    // As files that came from TensorFlow call gains and biases.
    TensorNames{"token_embd_norm.weight", {.name = "embeddings.LayerNorm.gamma", .copy = true}},
    TensorNames{"token_embd_norm.bias", {.name = "embeddings.LayerNorm.beta", .copy = true}},
    TensorNames{"attn_norm.weight", {.name = "attention.output.LayerNorm.gamma", .copy = true}},
    TensorNames{"attn_norm.bias", {.name = "attention.output.LayerNorm.beta", .copy = true}},
    TensorNames{"ffn_norm.weight", {.name = "output.LayerNorm.gamma", .copy = true}},
    TensorNames{"ffn_norm.bias", {.name = "output.LayerNorm.beta", .copy = true}}};

inline DecoderForm form() {
  DecoderForm f;
  f.norm = NormKind::layer, f.order = BlockOrder::post, f.positions = Positions::learned, f.activation = nn::Activation::gelu;
  f.gated = f.causal = f.final_norm = f.head = false;
  f.qkv_bias = f.output_bias = f.mlp_bias = f.embedding_norm = f.pooler = true;
  return f;
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  c.form = form();
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c, {.kv_heads = "", .context = "max_position_embeddings"}));
  ANYBIT_TRY_STATUS(read.number_or("layer_norm_eps", 1e-12f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read.activation("hidden_act", "gelu", c.form.activation));
  ANYBIT_TRY_STATUS(read.count_or("type_vocab_size", 2, c.form.token_types));
  std::string positions;
  ANYBIT_TRY_STATUS(read.text_or("position_embedding_type", "absolute", positions));
  if (positions != "absolute")
    return read.unsupported("position_embedding_type", "anybit runs BERT with absolute positions, use such a model");
  bool decoder = false;
  ANYBIT_TRY_STATUS(read.flag_or("is_decoder", false, decoder));
  if (decoder) return read.unsupported("is_decoder", "anybit runs BERT as an encoder, use such a model");
  ANYBIT_TRY_STATUS(read.read_tie(true));
  return c;
}

inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  DecoderConfig c;
  c.form = form();
  ANYBIT_TRY_STATUS(gguf_config::read_shape(read, c));
  bool causal = true;
  ANYBIT_TRY_STATUS(read.flag_or("attention.causal", false, causal));
  if (causal) return read.unsupported("attention.causal", "true", "anybit runs BERT as an encoder, convert it again");
  float pooling = 0;  // how programs make one vector of the states: 0 none, 1 mean, 2 first token
  ANYBIT_TRY_STATUS(read.number_or("pooling_type", 0, pooling));
  c.form.token_types = read.rows_of("token_types.weight");
  return c;
}

inline void write_gguf(GgufConfigWriter& w, const DecoderConfig& c) {
  gguf_config::write_shape(w, c);
  w.flag("attention.causal", false);
  w.tokenizer_count("token_type_count", c.form.token_types);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::bert

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture bert_architecture = [] {
  Architecture a = decoder_block::architecture("bert");
  a.model_types = bert::model_types;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(bert::names); };
  a.hugging_face_left_out = "cls.";
  a.hugging_face_root = "", a.hugging_face_prefix = "bert.", a.hugging_face_block = "encoder.layer.";
  a.read_gguf = bert::read_gguf;
  a.write_gguf = bert::write_gguf;
  a.read_hugging_face = bert::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
