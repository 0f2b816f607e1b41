#pragma once
// The blueprint of every form of model and the forward pass of its blocks (model/form.hpp). Architectures differ in their
// configuration and in names; the arithmetic is here and in the files that this includes.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/model/arch/cross_attention.hpp>
#include <anybit/model/arch/expert_block.hpp>
#include <anybit/model/arch/stack_ends.hpp>
#include <anybit/model/architecture.hpp>
#include <anybit/nn/activation.hpp>
#include <anybit/nn/attention.hpp>
#include <anybit/nn/norm.hpp>

namespace anybit::model::decoder_block {
inline namespace ANYBIT_CODE {

/// Weights of a block in their order; a form has some of them.
enum Slot : std::size_t {
  attn_norm,
  attn_norm_bias,
  attn_q,
  attn_k,
  attn_v,
  attn_q_norm,
  attn_q_norm_bias,
  attn_k_norm,
  attn_k_norm_bias,
  attn_output,
  post_attention_norm,
  cross_attn_norm,
  cross_attn_norm_bias,
  cross_attn_q,
  cross_attn_k,
  cross_attn_v,
  cross_attn_output,
  ffn_norm,
  ffn_norm_bias,
  ffn_gate,
  ffn_up,
  ffn_down,
  post_ffw_norm,
  slots
};

inline constexpr std::array<std::string_view, slots> slot_names{"attn_norm.weight",
                                                                "attn_norm.bias",
                                                                "attn_q.weight",
                                                                "attn_k.weight",
                                                                "attn_v.weight",
                                                                "attn_q_norm.weight",
                                                                "attn_q_norm.bias",
                                                                "attn_k_norm.weight",
                                                                "attn_k_norm.bias",
                                                                "attn_output.weight",
                                                                "post_attention_norm.weight",
                                                                "cross_attn_norm.weight",
                                                                "cross_attn_norm.bias",
                                                                "cross_attn_q.weight",
                                                                "cross_attn_k.weight",
                                                                "cross_attn_v.weight",
                                                                "cross_attn_output.weight",
                                                                "ffn_norm.weight",
                                                                "ffn_norm.bias",
                                                                "ffn_gate.weight",
                                                                "ffn_up.weight",
                                                                "ffn_down.weight",
                                                                "post_ffw_norm.weight"};

/// Whether a form has the weight in a block. In BlockOrder::post the norms stand behind attention and MLP, and keep their names.
constexpr bool has(const DecoderForm& f, Slot s, Index block) {
  const bool bias = f.norm == NormKind::layer, sandwich = f.order == BlockOrder::sandwich;
  switch (s) {
    case attn_norm_bias: return bias;
    case attn_q_norm:
    case attn_k_norm: return f.head_norm != HeadNorm::none;
    case attn_q_norm_bias:
    case attn_k_norm_bias: return f.head_norm == HeadNorm::layer;
    case post_attention_norm:
    case post_ffw_norm: return sandwich;
    case cross_attn_norm:
    case cross_attn_q:
    case cross_attn_k:
    case cross_attn_v:
    case cross_attn_output: return f.cross_attention;
    case cross_attn_norm_bias: return bias && f.cross_attention;
    case ffn_norm: return f.order != BlockOrder::parallel;
    case ffn_norm_bias: return bias && f.order != BlockOrder::parallel;
    case ffn_gate: return f.gated && !f.experts.in(block);
    case ffn_up:
    case ffn_down: return !f.experts.in(block);
    default: return true;
  }
}

/// Where each weight of a block stands among those that the form has.
class Places {
 public:
  constexpr Places(const DecoderForm& f, Index block) {
    for (std::size_t s = 0; s < slots; ++s) {
      place_[s] = end_;
      if (has(f, static_cast<Slot>(s), block)) ++end_;
    }
  }
  constexpr std::size_t operator[](Slot s) const { return place_[s]; }
  /// How many there are: behind them stand the weights of experts.
  constexpr std::size_t size() const { return end_; }

 private:
  std::array<std::size_t, slots> place_{};
  std::size_t end_ = 0;
};

inline constexpr std::array points{Point::embedding,     Point::attn_in,    Point::q,       Point::k,        Point::v,
                                   Point::head_out,      Point::attn_out,   Point::mlp_in,  Point::router,   Point::expert_in,
                                   Point::expert_hidden, Point::mlp_hidden, Point::mlp_out, Point::residual, Point::final_norm,
                                   Point::logits};
/// Of models with an encoder in front of a decoder; the points of cross-attention are in the decoder's blocks alone.
inline constexpr std::array encoder_decoder_points{Point::encoder_embedding,
                                                   Point::encoder_out,
                                                   Point::embedding,
                                                   Point::attn_in,
                                                   Point::q,
                                                   Point::k,
                                                   Point::v,
                                                   Point::head_out,
                                                   Point::attn_out,
                                                   Point::cross_in,
                                                   Point::memory,
                                                   Point::cross_head_out,
                                                   Point::cross_out,
                                                   Point::mlp_in,
                                                   Point::mlp_hidden,
                                                   Point::mlp_out,
                                                   Point::residual,
                                                   Point::final_norm,
                                                   Point::logits};

/// What a stack has before its first block, besides the embedding of tokens; `prefix` is "enc." of an encoder in front of a
/// decoder.
template <class Add>
void add_stack_inputs(const DecoderConfig& c, const std::string& prefix, const Add& add) {
  const DecoderForm& f = c.form;
  if (f.feature_bins > 0) {
    // Windows of 3 frames; they stay floats, since no site has them.
    add({.name = prefix + "conv1.weight", .shape = {c.dim, 3 * f.feature_bins}, .bias = prefix + "conv1.bias"});
    add({.name = prefix + "conv2.weight", .shape = {c.dim, 3 * c.dim}, .bias = prefix + "conv2.bias"});
  }
  if (f.positions == Positions::learned)
    add({.name = prefix + "position_embd.weight", .shape = {c.context + f.position_offset, c.dim}, .role = Role::table});
  if (f.positions == Positions::relative)
    add({.name = prefix + "attn_rel_b.weight", .shape = {f.relative_buckets, c.heads}, .role = Role::table});
  if (f.token_types > 0) add({.name = prefix + "token_types.weight", .shape = {f.token_types, c.dim}, .role = Role::table});
  if (f.embedding_norm) {
    add({.name = prefix + "token_embd_norm.weight", .shape = {1, c.dim}, .role = Role::gain});
    if (f.norm == NormKind::layer) add({.name = prefix + "token_embd_norm.bias", .shape = {1, c.dim}, .role = Role::bias});
  }
}
template <class Add>
void add_final_norm(const DecoderConfig& c, const std::string& prefix, const Add& add) {
  if (!c.form.final_norm) return;
  add({.name = prefix + "output_norm.weight", .shape = {1, c.dim}, .role = Role::gain});
  if (c.form.norm == NormKind::layer) add({.name = prefix + "output_norm.bias", .shape = {1, c.dim}, .role = Role::bias});
}

inline Blueprint blueprint(const DecoderConfig& model) {
  using Kind = Producer::Kind;
  Blueprint b;
  const auto add = [&](WeightSpec spec) {
    b.weights.push_back(std::move(spec));
    return static_cast<WeightId>(b.weights.size() - 1);
  };
  b.embedding = add({.name = "token_embd.weight", .shape = {model.vocabulary, model.embedding_width()}, .role = Role::table});
  for (const DecoderConfig& encoder : model.encoder) {
    add_stack_inputs(encoder, "enc.", add);
    add_final_norm(encoder, "enc.", add);
  }
  add_stack_inputs(model, "", add);
  if (model.form.embedding_width > 0) {
    add({.name = "token_embd_proj.weight", .shape = {model.dim, model.form.embedding_width}});
    add({.name = "output_proj.weight", .shape = {model.form.embedding_width, model.dim}});
  }
  for (Index i = 0; i < model.blocks; ++i) {
    const DecoderConfig& c = model.of(i);
    const DecoderForm& f = c.form;
    const std::string prefix = "blk." + std::to_string(i) + ".";
    const std::size_t first = b.weights.size();
    const Places places(f, i);
    for (std::size_t s = 0; s < slots; ++s) {
      const auto slot = static_cast<Slot>(s);
      if (!has(f, slot, i)) continue;
      WeightSpec spec{.name = prefix + std::string(slot_names[s]), .shape = {1, c.dim}, .role = Role::gain, .block = i};
      const auto linear = [&](Index outputs, Index inputs, bool bias, bool clippable = true) {
        spec.role = Role::linear, spec.shape = {outputs, inputs}, spec.clippable = clippable;
        if (bias) spec.bias = spec.name.substr(0, spec.name.size() - 6) + "bias";
      };
      switch (slot) {
        case attn_q: linear(c.query_width(), c.dim, f.qkv_bias, false); break;
        case attn_k: linear(c.kv_width(), c.dim, f.qkv_bias && f.k_bias, false); break;
        case attn_v: linear(c.kv_width(), c.dim, f.qkv_bias); break;
        case attn_output: linear(c.dim, c.query_width(), f.output_bias); break;
        case cross_attn_q: linear(c.query_width(), c.dim, f.qkv_bias, false); break;
        case cross_attn_k: linear(c.kv_width(), c.dim, f.qkv_bias && f.k_bias, false); break;
        case cross_attn_v: linear(c.kv_width(), c.dim, f.qkv_bias); break;
        case cross_attn_output: linear(c.dim, c.query_width(), f.output_bias); break;
        case ffn_gate:
        case ffn_up: linear(c.hidden, c.dim, f.mlp_bias); break;
        case ffn_down: linear(c.dim, c.hidden, f.mlp_bias); break;
        case attn_q_norm_bias:
        case attn_k_norm_bias: spec.role = Role::bias; [[fallthrough]];
        case attn_q_norm:
        case attn_k_norm: spec.shape = {1, c.head_dim}; break;
        case attn_norm_bias:
        case cross_attn_norm_bias:
        case ffn_norm_bias: spec.role = Role::bias; break;
        default: break;
      }
      add(std::move(spec));
    }
    const auto id = [&](Slot s) { return static_cast<WeightId>(first + places[s]); };
    // Behind a norm that the residual stream passes as well, no scale can be folded.
    const auto norm = [&](Slot gain, Slot bias) {
      Producer from;
      if (f.order == BlockOrder::post) return from;
      from.kind = Kind::norm, from.weight = id(gain);
      if (has(f, bias, i)) from.bias = id(bias);
      return from;
    };
    const bool shared = f.order == BlockOrder::parallel;
    const bool sparse = f.experts.in(i);
    std::vector<WeightId> mlp;
    if (!sparse && f.gated) mlp.push_back(id(ffn_gate));
    if (!sparse) mlp.push_back(id(ffn_up));
    std::vector<WeightId> attention{id(attn_q), id(attn_k), id(attn_v)};
    if (shared) attention.insert(attention.end(), mlp.begin(), mlp.end());
    b.sites.push_back({.block = i,
                       .name = "attn_q",
                       .inputs = c.dim,
                       .readers = std::move(attention),
                       .producer = norm(attn_norm, attn_norm_bias),
                       .point = Point::attn_in,
                       .effect = shared ? Point::residual : Point::attn_out});
    b.sites.push_back({.block = i,
                       .name = "attn_output",
                       .inputs = c.query_width(),
                       .readers = {id(attn_output)},
                       .producer = {Kind::linear, id(attn_v), c.heads / c.kv_heads, c.head_dim},
                       .point = Point::head_out,
                       .effect = Point::attn_out,
                       .writes_residual = f.order != BlockOrder::sandwich});
    if (f.cross_attention) {
      b.sites.push_back({.block = i,
                         .name = "cross_attn_q",
                         .inputs = c.dim,
                         .readers = {id(cross_attn_q)},
                         .producer = norm(cross_attn_norm, cross_attn_norm_bias),
                         .point = Point::cross_in,
                         .effect = Point::cross_out});
      // The encoder's last norm feeds these of all blocks, so no block can scale it for itself.
      b.sites.push_back({.block = i,
                         .name = "cross_attn_k",
                         .inputs = c.dim,
                         .readers = {id(cross_attn_k), id(cross_attn_v)},
                         .point = Point::memory,
                         .effect = Point::cross_out});
      b.sites.push_back({.block = i,
                         .name = "cross_attn_output",
                         .inputs = c.query_width(),
                         .readers = {id(cross_attn_output)},
                         .producer = {Kind::linear, id(cross_attn_v), c.heads / c.kv_heads, c.head_dim},
                         .point = Point::cross_head_out,
                         .effect = Point::cross_out,
                         .writes_residual = f.order != BlockOrder::sandwich});
    }
    if (sparse) {
      expert_block::add(b, c, i, first, norm(ffn_norm, ffn_norm_bias));
      continue;
    }
    if (!shared)
      b.sites.push_back({.block = i,
                         .name = f.gated ? "ffn_gate" : "ffn_up",
                         .inputs = c.dim,
                         .readers = std::move(mlp),
                         .producer = norm(ffn_norm, ffn_norm_bias),
                         .point = Point::mlp_in,
                         .effect = Point::mlp_out});
    // A scale above 0 passes through a product and through ReLU, and through no other activation.
    const bool passes = f.gated || f.activation == nn::Activation::relu;
    b.sites.push_back({.block = i,
                       .name = "ffn_down",
                       .inputs = c.hidden,
                       .readers = {id(ffn_down)},
                       .producer = passes ? Producer{Kind::linear, id(ffn_up)} : Producer{},
                       .point = Point::mlp_hidden,
                       .effect = Point::mlp_out,
                       .writes_residual = f.order != BlockOrder::sandwich});
  }
  add_final_norm(model, "", add);
  if (model.form.pooler) add({.name = "pooler.weight", .shape = {model.dim, model.dim}, .bias = "pooler.bias", .optional = true});
  if (model.form.logit_bias) add({.name = "logit_bias", .shape = {1, model.vocabulary}, .role = Role::bias});
  b.head = b.embedding;
  if (model.form.head)
    b.head = add({.name = "output.weight",
                  .shape = {model.vocabulary, model.embedding_width()},
                  .bias = model.form.head_bias ? "output.bias" : "",
                  .optional = true});
  return b;
}

/// Slopes of ALiBi: 2^(-8 i / n) for i = 1 .. n, n the largest power of two up to `heads`; further heads take those of 2 n with
/// odd numbers.
inline std::vector<float> alibi_slopes(Index heads, float scale) {
  Index n = 1;
  while (2 * n <= heads) n *= 2;
  std::vector<float> out;
  const auto slope = [&](Index i, Index of) {
    return static_cast<float>(std::exp2(-8.0 * static_cast<double>(i) / static_cast<double>(of)) * static_cast<double>(scale));
  };
  for (Index i = 1; i <= n; ++i) out.push_back(slope(i, n));
  for (Index i = 1; static_cast<Index>(out.size()) < heads; i += 2) out.push_back(slope(i, 2 * n));
  return out;
}

/// How attention runs in a block; it refers to `slopes`.
inline nn::AttentionOptions attention_options(const DecoderConfig& c, Index block, std::vector<float>& slopes) {
  const DecoderForm& f = c.form;
  nn::AttentionOptions options;
  options.causal = f.causal;
  options.scale = f.attention_scale, options.soft_cap = f.attention_cap, options.window = f.window_of(block);
  if (f.scale_by_layer) {
    const float scale = f.attention_scale > 0 ? f.attention_scale : 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    options.scale = scale / static_cast<float>(block + 1);
  }
  if (f.positions == Positions::alibi) options.slopes = slopes = alibi_slopes(c.heads, f.alibi_scale);
  return options;
}

/// Matrices of one pass in Scratch.
enum Number : std::size_t { normed_, delta_, q_, k_, v_, mixed_, gate_, up_, mlp_in_, mlp_delta_, memory_, cross_k_, cross_v_ };

/// Queries or keys of a block, head by head.
inline void normalize_heads(const DecoderConfig& c, std::span<const Weight> weights, const Places& at, MutableMatrix x, Slot gain,
                            Slot bias, ExecutorRef executor) {
  ANYBIT_CHECK(x.stride == x.cols, "normalize_heads: rows must lie one behind the other");
  const MutableMatrix heads(x.data, x.rows * (x.cols / c.head_dim), c.head_dim);
  const std::vector<float>& g = weights[at[gain]].values;
  if (c.form.head_norm == HeadNorm::rms)
    nn::rms_norm(heads, g, c.norm_epsilon, heads, executor);
  else
    nn::layer_norm(heads, g, weights[at[bias]].values, c.norm_epsilon, heads, executor);
}

/// From `normed` to what attention adds, in `delta`; false where the pass ends.
inline bool attend(BlockPass& p, const Places& at, MutableMatrix normed, MutableMatrix delta) {
  const DecoderConfig& c = p.config;
  const DecoderForm& f = c.form;
  const ExecutorRef executor = p.executor;
  const auto scratch = [&](Number n, Index width) { return p.scratch.at(n, p.x.rows, width); };
  const auto apply = [&](Slot which, ConstMatrix in, MutableMatrix out) {
    p.weights[at[which]].linear.apply(in, out, executor, p.scratch.workspace);
  };
  const MutableMatrix q = scratch(q_, c.query_width()), k = scratch(k_, c.kv_width()), v = scratch(v_, c.kv_width()),
                      mixed = scratch(mixed_, c.query_width());
  const auto linear = [&](Slot which) -> const nn::Linear& { return p.weights[at[which]].linear; };
  const nn::Sibling siblings[] = {{linear(attn_q), q}, {linear(attn_k), k}, {linear(attn_v), v}};
  nn::apply_siblings(siblings, normed, executor, p.scratch.workspace);
  if (!p.at(Point::q, q) || !p.at(Point::k, k) || !p.at(Point::v, v)) return false;
  if (f.head_norm != HeadNorm::none) {
    normalize_heads(c, p.weights, at, q, attn_q_norm, attn_q_norm_bias, executor);
    normalize_heads(c, p.weights, at, k, attn_k_norm, attn_k_norm_bias, executor);
  }
  if (f.positions == Positions::rotary) {
    p.rope.apply(q, c.head_dim, executor);
    p.rope.apply(k, c.head_dim, executor);
  }
  p.cache.append(p.layer, k, v, executor);
  std::vector<float> slopes;
  nn::AttentionOptions options = attention_options(c, p.block, slopes);
  options.distance_bias = p.distance_bias, options.compute = p.attention;
  nn::attention({c.heads, c.kv_heads, c.head_dim}, q, p.cache, p.layer, mixed, executor, options);
  p.cache.settle(p.layer, p.x.rows);
  if (p.decoder.online.attn_output) p.decoder.online.attn_output->forward(mixed, executor);
  if (!p.at(Point::head_out, mixed)) return false;
  apply(attn_output, mixed, delta);
  if (f.order == BlockOrder::sandwich) normalize(c, delta, p.weights[at[post_attention_norm]], nullptr, delta, executor);
  return p.at(Point::attn_out, delta);
}

/// From `normed` to what the feed-forward part adds, in `delta`; false where the pass ends.
inline bool feed_forward(BlockPass& p, const Places& at, MutableMatrix normed, MutableMatrix delta) {
  const DecoderConfig& c = p.config;
  const DecoderForm& f = c.form;
  const ExecutorRef executor = p.executor;
  const auto apply = [&](Slot which, ConstMatrix in, MutableMatrix out) {
    p.weights[at[which]].linear.apply(in, out, executor, p.scratch.workspace);
  };
  if (f.experts.in(p.block)) {
    if (!expert_block::run(p, expert_block::Places(f.experts, at.size()), normed, delta)) return false;
    if (f.order == BlockOrder::sandwich) normalize(c, delta, p.weights[at[post_ffw_norm]], nullptr, delta, executor);
    return p.at(Point::mlp_out, delta);
  }
  const MutableMatrix hidden = p.scratch.at(gate_, p.x.rows, c.hidden);
  if (f.gated) {
    const MutableMatrix up = p.scratch.at(up_, p.x.rows, c.hidden);
    const nn::Sibling siblings[] = {{p.weights[at[ffn_gate]].linear, hidden}, {p.weights[at[ffn_up]].linear, up}};
    nn::apply_siblings(siblings, normed, executor, p.scratch.workspace);
    nn::gated(f.activation, hidden, up, executor);
  } else {
    apply(ffn_up, normed, hidden);
    nn::activate(f.activation, hidden, executor);
  }
  if (p.decoder.online.ffn_down) p.decoder.online.ffn_down->forward(hidden, executor);
  if (!p.at(Point::mlp_hidden, hidden)) return false;
  apply(ffn_down, hidden, delta);
  if (f.order == BlockOrder::sandwich) normalize(c, delta, p.weights[at[post_ffw_norm]], nullptr, delta, executor);
  return p.at(Point::mlp_out, delta);
}

inline void run_block(BlockPass& p) {
  const DecoderConfig& c = p.config;
  const DecoderForm& f = c.form;
  const Places at(f, p.block);
  const bool post = f.order == BlockOrder::post;
  const MutableMatrix normed = p.scratch.at(normed_, p.x.rows, c.dim), delta = p.scratch.at(delta_, p.x.rows, c.dim);
  const auto norm = [&](Slot gain, Slot bias, MutableMatrix to) {
    normalize(c, p.x, p.weights[at[gain]], has(f, bias, p.block) ? &p.weights[at[bias]] : nullptr, to, p.executor);
  };
  // The input of attention or MLP. In BlockOrder::post it is the stream itself, copied so that a tap changes only what they read.
  const auto enter = [&](Slot gain, Slot bias, MutableMatrix to) {
    if (post)
      copy(p.x, to);
    else
      norm(gain, bias, to);
  };

  if (f.parallel()) {
    const bool whole = p.from <= Point::attn_in, shared = f.order == BlockOrder::parallel;
    const MutableMatrix mlp_in = shared ? normed : p.scratch.at(mlp_in_, p.x.rows, c.dim);
    const MutableMatrix mlp_delta = p.scratch.at(mlp_delta_, p.x.rows, c.dim);
    if (whole || shared) norm(attn_norm, attn_norm_bias, normed);
    if (whole && (!p.at(Point::attn_in, normed) || !attend(p, at, normed, delta))) return;
    if (!shared) norm(ffn_norm, ffn_norm_bias, mlp_in);
    if (!p.at(Point::mlp_in, mlp_in) || !feed_forward(p, at, mlp_in, mlp_delta)) return;
    if (whole) nn::add(delta, p.x, p.executor);
    nn::add(mlp_delta, p.x, p.executor);
    p.at(Point::residual, p.x);
    return;
  }
  if (p.from <= Point::attn_in) {
    enter(attn_norm, attn_norm_bias, normed);
    if (!p.at(Point::attn_in, normed) || !attend(p, at, normed, delta)) return;
    nn::add(delta, p.x, p.executor);
    if (post) norm(attn_norm, attn_norm_bias, p.x);
  }
  if (f.cross_attention && p.from <= Point::cross_in) {
    enter(cross_attn_norm, cross_attn_norm_bias, normed);
    const auto linear = [&](Slot which) -> const nn::Linear& { return p.weights[at[which]].linear; };
    const CrossLinears linears{linear(cross_attn_q), linear(cross_attn_k), linear(cross_attn_v), linear(cross_attn_output)};
    if (!cross_attend(p, linears, {memory_, q_, cross_k_, cross_v_, mixed_}, normed, delta)) return;
    nn::add(delta, p.x, p.executor);
    if (post) norm(cross_attn_norm, cross_attn_norm_bias, p.x);
  }
  enter(ffn_norm, ffn_norm_bias, normed);
  if (!p.at(Point::mlp_in, normed) || !feed_forward(p, at, normed, delta)) return;
  nn::add(delta, p.x, p.executor);
  if (post) norm(ffn_norm, ffn_norm_bias, p.x);
  p.at(Point::residual, p.x);
}

/// An architecture that computes so; its file adds names and configuration.
constexpr Architecture architecture(std::string_view name) {
  Architecture a;
  a.name = name, a.points = points;
  a.blueprint = blueprint, a.embed = embed, a.run_block = run_block, a.finish = finish;
  return a;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::decoder_block

#include <anybit/core/macros_end.hpp>
