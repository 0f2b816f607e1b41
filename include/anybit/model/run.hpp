#pragma once
// The forward pass, whole or in pieces.

#include <anybit/core/macros_begin.hpp>

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/model/architecture.hpp>
#include <anybit/nn/activation.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// How a pass runs. Without taps it costs nothing more than its arithmetic.
struct Run {
  ExecutorRef executor{};
  std::span<const Tap> taps{};
  bool last_only = false;  ///< logits of the last token alone
};

/// Taps that tell f(SiteId, ConstMatrix) what enters each site. f is copied.
template <class F>
std::vector<Tap> site_taps(const Blueprint& b, std::span<const SiteId> sites, const F& f) {
  std::vector<Tap> taps;
  for (const SiteId s : sites)
    taps.push_back({b[s].block, b[s].point, [s, f](MutableMatrix x, TokenRange) { f(s, ConstMatrix(x)); }});
  return taps;
}
template <class F>
std::vector<Tap> site_taps(const Blueprint& b, const F& f) {
  std::vector<SiteId> all;
  for (std::size_t i = 0; i < b.sites.size(); ++i) all.push_back(static_cast<SiteId>(i));
  return site_taps(b, all, f);
}

namespace detail {

inline Status check_ids(const Decoder& d, std::span<const TokenId> ids) {
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= d.config.vocabulary)
      return {ErrorCode::invalid_argument,
              io::detail::text("forward: token ", i, " has the id ", ids[i], ", outside the vocabulary of ", d.config.vocabulary,
                               ": use the model's own tokenizer")};
  return Ok{};
}

inline Status check_input(const Decoder& d, std::span<const TokenId> ids, const nn::KvCache& cache) {
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
  return check_ids(d, ids);
}

inline void call_taps(std::span<const Tap> taps, Point point, MutableMatrix m, TokenRange positions) {
  for (const Tap& t : taps)
    if (t.point == point) t.apply(m, positions);
}

}  // namespace detail

/// A pass over some tokens, which can start and stop at any block. It keeps what blocks write on their way, for the next pass of
/// as many tokens at the same positions. The decoder must outlive it; it gives configuration and rotations.
class Pass {
 public:
  Pass(const Decoder& d, Index tokens, Index first_position = 0)
      : d_(d),
        positions_{first_position, first_position + tokens},
        rope_(rope_options(d.config, first_position + tokens), first_position, tokens) {
    if (d.config.rope_window_base > 0) window_rope_.emplace(window_rope_options(d.config), first_position, tokens);
  }

  Index tokens() const { return positions_.end - positions_.begin; }

  /// The residual stream before the first block, into x, (tokens, dim).
  void embed(std::span<const TokenId> ids, MutableMatrix x, const Run& run) {
    architecture().embed(d_, ids, positions_.begin, x, run.executor);
    detail::call_taps(run.taps, Point::embedding, x, positions_);
  }
  /// From block `number` to the next. `weights` need not be the decoder's own; `layer` is that of the cache, which the caller
  /// advances. `from` and `until` as in BlockPass.
  void block(std::span<const Weight> weights, Index number, Index layer, nn::KvCache& cache, MutableMatrix x, const Run& run,
             Point from = Point::attn_in, Point until = Point::residual) {
    const bool windowed = window_rope_ && d_.config.form.window_of(number) > 0;
    BlockPass pass{d_,       weights,    number, layer, windowed ? *window_rope_ : rope_, cache, x, scratch_, run.executor,
                   run.taps, positions_, from,   until};
    architecture().run_block(pass);
  }
  /// Writes the head's input to `normed`; x, the residual stream behind the last block, may change.
  void finish(MutableMatrix x, MutableMatrix normed, const Run& run) {
    architecture().finish(d_, x, normed, run.executor);
    detail::call_taps(run.taps, Point::final_norm, normed, positions_);
  }

 private:
  const Architecture& architecture() const { return *d_.blueprint->architecture; }

  const Decoder& d_;
  TokenRange positions_;
  nn::RopeTable rope_;
  std::optional<nn::RopeTable> window_rope_;
  Scratch scratch_;
};

/// The residual stream behind the output norm, (tokens, embedding width): what the head multiplies. `ids` continue the sequence
/// in `cache`, which grows by them. The same bits for any number of threads.
inline Result<Matrix> hidden_states(const Decoder& d, std::span<const TokenId> ids, nn::KvCache& cache, const Run& run = {}) {
  ANYBIT_TRY_STATUS(detail::check_input(d, ids, cache));
  ANYBIT_TRY_STATUS(check(d, run.taps));
  const auto tokens = static_cast<Index>(ids.size());
  Pass pass(d, tokens, cache.length());
  Matrix x(tokens, d.config.dim), normed(tokens, d.config.embedding_width());
  pass.embed(ids, x.view(), run);
  for (Index i = 0; i < d.config.blocks; ++i) pass.block(d.block(i), i, i, cache, x.view(), run);
  cache.advance(tokens);
  pass.finish(x.view(), normed.view(), run);
  return normed;
}

/// Logits (rows of `hidden`, vocabulary), of what the head reads.
inline void apply_head(const Decoder& d, ConstMatrix hidden, MutableMatrix logits, ExecutorRef executor, Workspace& workspace) {
  d.output_head().apply(hidden, logits, executor, workspace);
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
