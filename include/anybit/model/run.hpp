#pragma once
// The forward pass, whole or in pieces.

#include <anybit/core/macros_begin.hpp>

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/model/architecture.hpp>
#include <anybit/model/distance_bias.hpp>
#include <anybit/model/encoded.hpp>
#include <anybit/nn/activation.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Commands and functions that run one causal sequence through a model say so by this, before they start.
inline Status check_is_decoder(const Decoder& d, std::string_view what) {
  const auto bad = [&](std::string_view why) {
    return Error{ErrorCode::unsupported,
                 io::detail::text(what, ": the model is of the architecture ", d.blueprint->architecture->name, ", ", why)};
  };
  if (!d.config.encoder.empty()) return bad("an encoder-decoder, which needs a source for each text: use a decoder");
  if (!d.config.form.causal) return bad("an encoder, which predicts no next token: use a decoder");
  return Ok{};
}

/// How a pass runs. Without taps it costs nothing more than its arithmetic.
struct Run {
  ExecutorRef executor{};
  std::span<const Tap> taps{};
  bool last_only = false;  ///< logits of the last token alone
  /// What encode() made of the source, of a model with an encoder in front of its decoder. Its keys and values are made by the
  /// first pass.
  Encoded* encoded = nullptr;
  std::span<const TokenId> types{};  ///< of the tokens, of a model with token types; empty: all 0
  Compute attention = Compute::f32;  ///< f32 or bf16: AttentionOptions::compute
};

/// Taps that tell f(SiteId, ConstMatrix) what enters each site; that of an expert is told the rows of its tokens, which may be
/// none. f is copied.
template <class F>
std::vector<Tap> site_taps(const Blueprint& b, std::span<const SiteId> sites, const F& f) {
  std::vector<Tap> taps;
  for (const SiteId s : sites)
    taps.push_back({b[s].block, b[s].point, [s, f](MutableMatrix x, TokenRange) { f(s, ConstMatrix(x)); },
                    b[s].routed ? b[s].expert : Tap::every_expert});
  return taps;
}
template <class F>
std::vector<Tap> site_taps(const Blueprint& b, const F& f) {
  std::vector<SiteId> all;
  for (std::size_t i = 0; i < b.sites.size(); ++i) all.push_back(static_cast<SiteId>(i));
  return site_taps(b, all, f);
}

namespace detail {

/// Types that the model has, one per token.
inline Status check_types(const DecoderForm& f, std::span<const TokenId> ids, std::span<const TokenId> types) {
  if (types.empty()) return Ok{};
  if (f.token_types == 0)
    return {ErrorCode::invalid_argument, "forward: types are given, but the model knows no types of tokens: leave them out"};
  if (types.size() != ids.size())
    return {ErrorCode::invalid_argument,
            io::detail::text("forward: ", types.size(), " types for ", ids.size(), " tokens: give one each")};
  for (std::size_t i = 0; i < types.size(); ++i)
    if (types[i] < 0 || types[i] >= f.token_types)
      return {ErrorCode::invalid_argument, io::detail::text("forward: token ", i, " has the type ", types[i],
                                                            ", the model knows ", f.token_types, " types, counted from 0")};
  return Ok{};
}

/// The encoded source of a model that reads one, and none of others.
inline Status check_encoded(const Decoder& d, const Encoded* encoded) {
  if (d.config.encoder.empty()) {
    ANYBIT_CHECK(!encoded, "forward: an encoded source, but the model has no encoder in front of a decoder");
    return Ok{};
  }
  if (!encoded || encoded->states.rows() == 0)
    return {ErrorCode::invalid_argument,
            io::detail::text("forward: ", d.blueprint->architecture->name,
                             " is an encoder-decoder and no source was given: give one to encode() and the result to the pass")};
  ANYBIT_CHECK(encoded->states.cols() == d.config.dim && encoded->cross.shape() == cache_shape(d.config) &&
                   (encoded->cross.length() == 0 || encoded->cross.length() == encoded->states.rows()),
               "forward: the source was encoded by another model");
  return Ok{};
}

inline Status check_input(const Decoder& d, std::span<const TokenId> ids, const nn::KvCache& cache, const Run& run) {
  ANYBIT_CHECK(cache.shape() == cache_shape(d.config), "forward: the KV cache was made for another model");
  const auto tokens = static_cast<Index>(ids.size());
  if (tokens == 0) return {ErrorCode::insufficient_data, "forward: no tokens: give at least one"};
  if (tokens > cache.capacity() - cache.length())
    return {ErrorCode::invalid_argument,
            io::detail::text("forward: ", tokens, " tokens after ", cache.length(), " exceed the KV cache of ", cache.capacity(),
                             " positions: make it larger or clear it")};
  if (d.config.form.positions == Positions::learned && cache.length() + tokens > d.config.context)
    return {ErrorCode::invalid_argument, io::detail::text("forward: ", tokens, " tokens after ", cache.length(), " exceed the ",
                                                          d.config.context, " positions that the model has learned: give fewer")};
  if (!d.config.form.causal && cache.length() > 0)
    return {ErrorCode::invalid_argument,
            io::detail::text("forward: ", d.blueprint->architecture->name,
                             " is an encoder, which sees a whole sequence at once: clear the KV cache and give all tokens")};
  ANYBIT_TRY_STATUS(check_types(d.config.form, ids, run.types));
  ANYBIT_TRY_STATUS(check_encoded(d, run.encoded));
  return check_ids(d, ids);
}

inline void call_taps(std::span<const Tap> taps, Point point, MutableMatrix m, TokenRange positions) {
  for (const Tap& t : taps)
    if (t.point == point) t.apply(m, positions);
}

}  // namespace detail

/// A pass of some tokens through one stack, which can start and stop at any block. It keeps what blocks write on their way, for
/// the next pass of as many tokens at the same positions. The decoder must outlive it; it gives configuration and rotations.
class Pass {
 public:
  Pass(const Decoder& d, Index tokens, Index first_position = 0, Stack stack = Stack::last)
      : d_(d),
        stack_(stack),
        config_(stack == Stack::encoder ? d.config.encoder.front() : d.config),
        positions_{first_position, first_position + tokens},
        rope_(is_rotary() ? rope_options(config_, first_position + tokens) : nn::RopeOptions(), first_position, tokens) {
    if (config_.form.positions == Positions::relative) distance_bias_ = distance_bias(d, stack);
    if (is_rotary() && config_.rope_window_base > 0) window_rope_.emplace(window_rope_options(config_), first_position, tokens);
  }

  Index tokens() const { return positions_.end - positions_.begin; }

  /// The residual stream before the first block, into x, (tokens, dim).
  void embed(std::span<const TokenId> ids, MutableMatrix x, const Run& run) {
    embed(StackInput{.stack = stack_, .ids = ids, .types = run.types, .position = positions_.begin}, x, run);
  }
  void embed(const StackInput& input, MutableMatrix x, const Run& run) {
    architecture().embed(d_, input, x, run.executor);
    detail::call_taps(run.taps, stack_ == Stack::encoder ? Point::encoder_embedding : Point::embedding, x, positions_);
  }
  /// From block `number` to the next. `weights` need not be the decoder's own; `layer` is that of the cache, which the caller
  /// advances. `from` and `until` as in BlockPass. A block with cross-attention needs run.encoded, and writes the same layer of
  /// its cross cache while that is empty.
  void block(std::span<const Weight> weights, Index number, Index layer, nn::KvCache& cache, MutableMatrix x, const Run& run,
             Point from = Point::attn_in, Point until = Point::residual) {
    const bool windowed = window_rope_ && config_.form.window_of(number) > 0;
    BlockPass pass{d_,    config_, weights,       number,       layer,    windowed ? *window_rope_ : rope_,
                   cache, x,       scratch_,      run.executor, run.taps, positions_,
                   from,  until,   distance_bias_};
    pass.attention = run.attention;
    if (config_.form.cross_attention && run.encoded) pass.memory = run.encoded->states.view(), pass.cross = &run.encoded->cross;
    architecture().run_block(pass);
  }
  /// Writes the head's input to `normed`, or what the decoder reads; x, the residual stream behind the last block, may change.
  void finish(MutableMatrix x, MutableMatrix normed, const Run& run) {
    architecture().finish(d_, stack_, x, normed, run.executor);
    detail::call_taps(run.taps, stack_ == Stack::encoder ? Point::encoder_out : Point::final_norm, normed, positions_);
  }

 private:
  bool is_rotary() const { return config_.form.positions == Positions::rotary; }
  const Architecture& architecture() const { return *d_.blueprint->architecture; }

  const Decoder& d_;
  Stack stack_;
  const DecoderConfig& config_;
  TokenRange positions_;
  nn::RopeTable rope_;
  std::optional<nn::RopeTable> window_rope_;
  std::vector<float> distance_bias_;
  Scratch scratch_;
};

/// What the encoder in front of a decoder makes of a source, for Run::encoded. The same bits for any number of threads.
inline Result<Encoded> encode(const Decoder& d, const Source& source, const Run& run = {}) {
  ANYBIT_TRY_STATUS(detail::check(source, d));
  ANYBIT_TRY_STATUS(check(d, run.taps));
  const DecoderConfig& c = d.config.encoder.front();
  const Index positions =
      c.form.feature_bins > 0 ? positions_of_frames(source.features.rows) : static_cast<Index>(source.ids.size());
  Pass pass(d, positions, 0, Stack::encoder);
  Matrix x(positions, c.dim);
  Encoded out{Matrix(positions, c.dim), nn::KvCache(cache_shape(d.config), positions)};
  nn::KvCache cache({1, c.kv_heads, c.head_dim}, positions);  // never advanced: each block writes its own keys and values
  pass.embed(StackInput{.stack = Stack::encoder, .ids = source.ids, .features = source.features}, x.view(), run);
  for (Index i = 0; i < c.blocks; ++i) pass.block(d.block(i), i, 0, cache, x.view(), run);
  pass.finish(x.view(), out.states.view(), run);
  return out;
}

/// The residual stream behind the output norm, (tokens, embedding width): what the head multiplies. `ids` continue the sequence
/// in `cache`, which grows by them. The same bits for any number of threads.
inline Result<Matrix> hidden_states(const Decoder& d, std::span<const TokenId> ids, nn::KvCache& cache, const Run& run = {}) {
  ANYBIT_TRY_STATUS(detail::check_input(d, ids, cache, run));
  ANYBIT_TRY_STATUS(check(d, run.taps));
  const auto tokens = static_cast<Index>(ids.size());
  Pass pass(d, tokens, cache.length());
  Matrix x(tokens, d.config.dim), normed(tokens, d.config.embedding_width());
  pass.embed(ids, x.view(), run);
  const Index first = d.config.encoder_blocks();
  for (Index i = first; i < d.config.blocks; ++i) pass.block(d.block(i), i, i - first, cache, x.view(), run);
  cache.advance(tokens);
  if (run.encoded && run.encoded->cross.length() == 0) run.encoded->cross.advance(run.encoded->states.rows());
  pass.finish(x.view(), normed.view(), run);
  return normed;
}

/// Logits (rows of `hidden`, vocabulary), of what the head reads. The model must have one.
inline void apply_head(const Decoder& d, ConstMatrix hidden, MutableMatrix logits, ExecutorRef executor, Workspace& workspace) {
  ANYBIT_CHECK(d.config.form.head, "apply_head: the model is an encoder without a head, its hidden states are the result");
  d.output_head().apply(hidden, logits, executor, workspace);
  if (const float scale = d.config.form.logit_scale; scale != 1) as_eigen(logits) *= scale;
  if (d.config.form.logit_bias) nn::add_bias(d[d.weight("logit_bias")].values, logits, executor);
  if (const float cap = d.config.form.logit_cap; cap > 0) nn::soft_cap(cap, logits, executor);
}

/// Logits (rows of `hidden`, vocabulary) of what hidden_states() gave, or of some of its rows: all logits of a long text at
/// once would take 4 * vocabulary bytes per token.
inline Matrix logits(const Decoder& d, ConstMatrix hidden, ExecutorRef executor = {}) {
  Workspace workspace;
  Matrix out(hidden.rows, d.config.vocabulary);
  apply_head(d, hidden, out.view(), executor, workspace);
  return out;
}

/// Logits (tokens, vocabulary) of `ids`, which continue the sequence in `cache`; with last_only (1, vocabulary).
inline Result<Matrix> forward(const Decoder& d, std::span<const TokenId> ids, nn::KvCache& cache, const Run& run = {}) {
  if (!d.config.form.head)
    return {ErrorCode::unsupported, io::detail::text("forward: ", d.blueprint->architecture->name,
                                                     " is an encoder and has no head for logits: take its hidden states")};
  const Index first = cache.length();
  ANYBIT_TRY(const Matrix hidden, hidden_states(d, ids, cache, run));
  const Index begin = run.last_only ? hidden.rows() - 1 : 0;
  Matrix out = logits(d, hidden.view().row_range(begin, hidden.rows()), run.executor);
  detail::call_taps(run.taps, Point::logits, out.view(), {first + begin, first + hidden.rows()});
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
