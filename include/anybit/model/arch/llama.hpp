#pragma once
// Llama (Touvron et al., arXiv:2302.13971): RMSNorm, rotary positions, grouped queries, SwiGLU. Architectures that differ in
// little share its blueprint and its pass.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/architecture.hpp>
#include <anybit/nn/activation.hpp>
#include <anybit/nn/attention.hpp>
#include <anybit/nn/embedding.hpp>
#include <anybit/nn/norm.hpp>

namespace anybit::model::llama {
inline namespace ANYBIT_CODE {

/// Places of a block's weights.
enum Place : std::size_t { attn_norm, attn_q, attn_k, attn_v, attn_output, ffn_norm, ffn_gate, ffn_up, ffn_down, places };

struct Variant {
  bool qkv_bias = false;
};

inline constexpr std::array points{Point::embedding, Point::attn_in,    Point::q,      Point::k,          Point::v,
                                   Point::head_out,  Point::attn_out,   Point::mlp_in, Point::mlp_hidden, Point::mlp_out,
                                   Point::residual,  Point::final_norm, Point::logits};

inline constexpr std::array names{TensorNames{"token_embd.weight", "model.embed_tokens.weight"},
                                  TensorNames{"output_norm.weight", "model.norm.weight"},
                                  TensorNames{"output.weight", "lm_head.weight"},
                                  TensorNames{"attn_norm.weight", "input_layernorm.weight"},
                                  TensorNames{"attn_q.weight", "self_attn.q_proj.weight"},
                                  TensorNames{"attn_k.weight", "self_attn.k_proj.weight"},
                                  TensorNames{"attn_v.weight", "self_attn.v_proj.weight"},
                                  TensorNames{"attn_q.bias", "self_attn.q_proj.bias"},
                                  TensorNames{"attn_k.bias", "self_attn.k_proj.bias"},
                                  TensorNames{"attn_v.bias", "self_attn.v_proj.bias"},
                                  TensorNames{"attn_output.weight", "self_attn.o_proj.weight"},
                                  TensorNames{"ffn_norm.weight", "post_attention_layernorm.weight"},
                                  TensorNames{"ffn_gate.weight", "mlp.gate_proj.weight"},
                                  TensorNames{"ffn_up.weight", "mlp.up_proj.weight"},
                                  TensorNames{"ffn_down.weight", "mlp.down_proj.weight"}};

inline Blueprint blueprint(const DecoderConfig& c, const Variant& variant) {
  Blueprint b;
  const auto add = [&](WeightSpec spec) {
    b.weights.push_back(std::move(spec));
    return static_cast<WeightId>(b.weights.size() - 1);
  };
  b.embedding = add({.name = "token_embd.weight", .shape = {c.vocabulary, c.dim}, .role = Role::table});
  for (Index i = 0; i < c.blocks; ++i) {
    const std::string prefix = "blk." + std::to_string(i) + ".";
    const auto linear = [&](const char* name, Index outputs, Index inputs, bool bias = false, bool clippable = true) {
      return add({.name = prefix + name + ".weight",
                  .shape = {outputs, inputs},
                  .block = i,
                  .bias = bias ? prefix + name + ".bias" : "",
                  .clippable = clippable});
    };
    const auto gain = [&](const char* name) {
      return add({.name = prefix + name + ".weight", .shape = {1, c.dim}, .role = Role::gain, .block = i});
    };
    using Kind = Producer::Kind;
    const WeightId attn_gain = gain("attn_norm");
    const WeightId q = linear("attn_q", c.query_width(), c.dim, variant.qkv_bias, false);
    const WeightId k = linear("attn_k", c.kv_width(), c.dim, variant.qkv_bias, false);
    const WeightId v = linear("attn_v", c.kv_width(), c.dim, variant.qkv_bias);
    const WeightId o = linear("attn_output", c.dim, c.query_width());
    const WeightId ffn_gain = gain("ffn_norm");
    const WeightId gate = linear("ffn_gate", c.hidden, c.dim), up = linear("ffn_up", c.hidden, c.dim);
    const WeightId down = linear("ffn_down", c.dim, c.hidden);
    b.sites.push_back({.block = i,
                       .name = "attn_q",
                       .inputs = c.dim,
                       .readers = {q, k, v},
                       .producer = {Kind::norm, attn_gain},
                       .point = Point::attn_in,
                       .effect = Point::attn_out});
    b.sites.push_back({.block = i,
                       .name = "attn_output",
                       .inputs = c.query_width(),
                       .readers = {o},
                       .producer = {Kind::linear, v, c.heads / c.kv_heads, c.head_dim},
                       .point = Point::head_out,
                       .effect = Point::attn_out,
                       .writes_residual = true});
    b.sites.push_back({.block = i,
                       .name = "ffn_gate",
                       .inputs = c.dim,
                       .readers = {gate, up},
                       .producer = {Kind::norm, ffn_gain},
                       .point = Point::mlp_in,
                       .effect = Point::mlp_out});
    b.sites.push_back({.block = i,
                       .name = "ffn_down",
                       .inputs = c.hidden,
                       .readers = {down},
                       .producer = {Kind::linear, up},
                       .point = Point::mlp_hidden,
                       .effect = Point::mlp_out,
                       .writes_residual = true});
  }
  add({.name = "output_norm.weight", .shape = {1, c.dim}, .role = Role::gain});
  b.head = add({.name = "output.weight", .shape = {c.vocabulary, c.dim}, .optional = true});
  return b;
}

inline void embed(const Decoder& d, std::span<const TokenId> ids, Index, MutableMatrix x, ExecutorRef executor) {
  nn::embed(d.token_embedding(), ids, x);
  if (d.online.residual) d.online.residual->forward(x, executor);
}

inline void run_block(BlockPass& p) {
  enum Number : std::size_t { normed_, delta_, q_, k_, v_, mixed_, gate_, up_ };
  const Decoder& d = p.decoder;
  const DecoderConfig& c = d.config;
  const ExecutorRef executor = p.executor;
  const auto scratch = [&](Number n, Index width) { return p.scratch.at(n, p.x.rows, width); };
  const auto apply = [&](Place which, ConstMatrix in, MutableMatrix out) {
    p.weights[which].linear.apply(in, out, executor, p.scratch.workspace);
  };
  const MutableMatrix normed = scratch(normed_, c.dim), delta = scratch(delta_, c.dim);

  if (p.from <= Point::attn_in) {
    const MutableMatrix q = scratch(q_, c.query_width()), k = scratch(k_, c.kv_width()), v = scratch(v_, c.kv_width()),
                        mixed = scratch(mixed_, c.query_width());
    nn::rms_norm(p.x, p.weights[attn_norm].values, c.norm_epsilon, normed, executor);
    if (!p.at(Point::attn_in, normed)) return;
    apply(attn_q, normed, q), apply(attn_k, normed, k), apply(attn_v, normed, v);
    if (!p.at(Point::q, q) || !p.at(Point::k, k) || !p.at(Point::v, v)) return;
    p.rope.apply(q, c.head_dim, executor);
    p.rope.apply(k, c.head_dim, executor);
    p.cache.append(p.layer, k, v, executor);
    nn::attention({c.heads, c.kv_heads, c.head_dim}, q, p.cache, p.layer, mixed, executor);
    p.cache.settle(p.layer, p.x.rows);
    if (d.online.attn_output) d.online.attn_output->forward(mixed, executor);
    if (!p.at(Point::head_out, mixed)) return;
    apply(attn_output, mixed, delta);
    if (!p.at(Point::attn_out, delta)) return;
    nn::add(delta, p.x, executor);
  }

  const MutableMatrix gate = scratch(gate_, c.hidden), up = scratch(up_, c.hidden);
  nn::rms_norm(p.x, p.weights[ffn_norm].values, c.norm_epsilon, normed, executor);
  if (!p.at(Point::mlp_in, normed)) return;
  apply(ffn_gate, normed, gate), apply(ffn_up, normed, up);
  nn::gated(nn::Activation::silu, gate, up, executor);
  if (d.online.ffn_down) d.online.ffn_down->forward(gate, executor);
  if (!p.at(Point::mlp_hidden, gate)) return;
  apply(ffn_down, gate, delta);
  if (!p.at(Point::mlp_out, delta)) return;
  nn::add(delta, p.x, executor);
  p.at(Point::residual, p.x);
}

inline void finish(const Decoder& d, MutableMatrix x, MutableMatrix normed, ExecutorRef executor) {
  if (d.online.residual) d.online.residual->inverse(x, executor);
  nn::rms_norm(x, d.output_norm(), d.config.norm_epsilon, normed, executor);
}

/// Positions are divided by rope.scaling.factor, in older files rope.scale_linear, where the type is linear or not given; 0
/// means 1.
inline Status read_rope_scaling(GgufConfigReader& read, DecoderConfig& c) {
  ANYBIT_TRY_STATUS(read.number_or("rope.freq_base", 10000, c.rope_base));
  std::string type;
  float older = 1, factor = 1;
  ANYBIT_TRY_STATUS(read.text_or("rope.scaling.type", "linear", type));
  ANYBIT_TRY_STATUS(read.number_or("rope.scale_linear", 1, older));
  ANYBIT_TRY_STATUS(read.number_or("rope.scaling.factor", older, factor));
  if (type != "none" && type != "linear")
    return read.unsupported("rope.scaling.type", io::detail::shown(type),
                            "anybit knows 'none' and 'linear', use a model with one of these");
  c.rope_scale = type == "none" || factor == 0 ? 1 : factor;
  return Ok{};
}

/// The embedding says how large the vocabulary is, and the architecture in which order rows of q and k lie.
inline Result<DecoderConfig> read_config(GgufConfigReader& read) {
  DecoderConfig c;
  ANYBIT_TRY_STATUS(read.count("embedding_length", c.dim));
  ANYBIT_TRY_STATUS(read.count("feed_forward_length", c.hidden));
  ANYBIT_TRY_STATUS(read.count("block_count", c.blocks));
  ANYBIT_TRY_STATUS(read.count("attention.head_count", c.heads));
  ANYBIT_TRY_STATUS(read.count_or("attention.head_count_kv", c.heads, c.kv_heads));
  if (!read.has("attention.key_length") && c.dim % c.heads != 0)
    return {ErrorCode::corrupt_data,
            io::detail::text(read.file(), ": ", read.key("attention.head_count"), " is ", c.heads,
                             ", which does not divide the embedding length ", c.dim, ": convert the model again")};
  ANYBIT_TRY_STATUS(read.count_or("attention.key_length", c.dim / c.heads, c.head_dim));
  Index value_length = 0;
  ANYBIT_TRY_STATUS(read.count_or("attention.value_length", c.head_dim, value_length));
  if (value_length != c.head_dim)
    return read.unsupported("attention.value_length", std::to_string(value_length),
                            io::detail::text("it must equal the key length ", c.head_dim));
  ANYBIT_TRY_STATUS(read.count_or("rope.dimension_count", c.head_dim, c.rotary_dim));
  ANYBIT_TRY_STATUS(read.count("context_length", c.context));
  ANYBIT_TRY_STATUS(read.number_or("attention.layer_norm_rms_epsilon", 1e-5f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read_rope_scaling(read, c));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::llama

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture llama_architecture{
    .name = "llama",
    .points = llama::points,
    .names = llama::names,
    .gguf_order = nn::RopeOrder::pairs,
    .read_config = [](GgufConfigReader& read) { return llama::read_config(read); },
    .blueprint = [](const DecoderConfig& c) { return llama::blueprint(c, {}); },
    .embed = llama::embed,
    .run_block = llama::run_block,
    .finish = llama::finish,
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
