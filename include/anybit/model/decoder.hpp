#pragma once
// A llama-architecture decoder: RMSNorm, rotary positions, grouped queries, SwiGLU. Readable twin: reference/decoder_block.hpp.

#include <anybit/core/macros_begin.hpp>

#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/attention.hpp>
#include <anybit/model/config.hpp>
#include <anybit/model/kv_cache.hpp>
#include <anybit/model/linear.hpp>
#include <anybit/model/norm.hpp>
#include <anybit/model/rope.hpp>
#include <anybit/model/rotation.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

struct Block {
  std::vector<float> attn_norm, ffn_norm;  ///< gains, dim each
  Linear q, k, v, o, gate, up, down;
};

/// Reads one block of a model from where it lies.
using BlockLoader = std::function<Result<Block>(Index block)>;

/// Copies share the weights of their linears.
struct Decoder {
  DecoderConfig config;
  Linear token_embedding;  ///< (vocabulary, dim); a row is the embedding of a token
  std::vector<Block> blocks;
  std::vector<float> output_norm;  ///< gains, dim
  std::optional<Linear> head;      ///< (vocabulary, dim); absent: tied to token_embedding
  OnlineRotations online{};
  std::optional<RotationOptions> rotation{};  ///< what rotate() was asked for; not saved

  const Linear& output_head() const { return head ? *head : token_embedding; }
};

/// Which input a group of sibling linears shares.
enum class Site {
  attn_qkv,     ///< q, k, v of the attention norm's output
  attn_output,  ///< o of the mixed values
  ffn_gate_up,  ///< gate, up of the feed-forward norm's output
  ffn_down,     ///< down of silu(gate) * up, rotated where the model does so, as for attn_output
};

/// Called during a forward pass with the input (tokens, inputs) of each group of siblings, valid during the call.
using Capture = std::function<void(Index block, Site site, ConstMatrix x)>;

struct ForwardOptions {
  ExecutorRef executor{};
  bool last_only = false;  ///< logits of the last token alone
  Capture capture{};
};

/// Calls f(name, linear) for every linear of block i, by its name in GGUF.
template <class B, class F>
void for_each_linear(B& block, std::size_t i, F&& f) {
  const auto name = [&](std::string_view which) { return io::detail::text("blk.", i, ".", which, ".weight"); };
  f(name("attn_q"), block.q), f(name("attn_k"), block.k), f(name("attn_v"), block.v), f(name("attn_output"), block.o);
  f(name("ffn_gate"), block.gate), f(name("ffn_up"), block.up), f(name("ffn_down"), block.down);
}

/// The same for every linear of all blocks, and the embedding and head.
template <class D, class F>
void for_each_linear(D& decoder, F&& f) {
  f(std::string("token_embd.weight"), decoder.token_embedding);
  for (std::size_t i = 0; i < decoder.blocks.size(); ++i) for_each_linear(decoder.blocks[i], i, f);
  if (decoder.head) f(std::string("output.weight"), *decoder.head);
}

/// Configuration and shapes; the error names the tensor as GGUF does.
inline Status check(const Decoder& d) {
  ANYBIT_TRY_STATUS(check(d.config));
  const DecoderConfig& c = d.config;
  const auto wrong = [](std::string_view name, Extents is, Extents needed) {
    return Error{ErrorCode::shape_mismatch,
                 io::detail::text("tensor ", name, " is ", is.rows, " x ", is.cols, ", the configuration needs ", needed.rows,
                                  " x ", needed.cols, ": convert the model again")};
  };
  if (static_cast<Index>(d.blocks.size()) != c.blocks)
    return {ErrorCode::shape_mismatch, io::detail::text(d.blocks.size(), " blocks, the configuration needs ", c.blocks)};
  Status status = Ok{};
  const auto need = [&](std::string_view name, Extents is, Extents needed) {
    if (status && is != needed) status = wrong(name, is, needed);
  };
  const auto gains = [](const std::vector<float>& g) { return Extents{1, static_cast<Index>(g.size())}; };
  for_each_linear(d, [&](const std::string& name, const Linear& linear) {
    const auto is = [&](std::string_view part) { return name.find(part) != std::string::npos; };
    Extents needed{c.vocabulary, c.dim};
    if (is("attn_q."))
      needed = {c.query_width(), c.dim};
    else if (is("attn_k.") || is("attn_v."))
      needed = {c.kv_width(), c.dim};
    else if (is("attn_output."))
      needed = {c.dim, c.query_width()};
    else if (is("ffn_gate.") || is("ffn_up."))
      needed = {c.hidden, c.dim};
    else if (is("ffn_down."))
      needed = {c.dim, c.hidden};
    need(name, linear.extents(), needed);
  });
  for (std::size_t i = 0; i < d.blocks.size(); ++i) {
    need(io::detail::text("blk.", i, ".attn_norm.weight"), gains(d.blocks[i].attn_norm), {1, c.dim});
    need(io::detail::text("blk.", i, ".ffn_norm.weight"), gains(d.blocks[i].ffn_norm), {1, c.dim});
  }
  need("output_norm.weight", gains(d.output_norm), {1, c.dim});
  const auto need_rotation = [&](std::string_view name, const std::optional<Hadamard>& rotation, Index width) {
    if (rotation) need(name, {1, rotation->size()}, {1, width});
  };
  need_rotation("rotation of the residual stream", d.online.residual, c.dim);
  need_rotation("rotation of attn_output's input", d.online.attn_output, c.query_width());
  need_rotation("rotation of ffn_down's input", d.online.ffn_down, c.hidden);
  return status;
}

namespace detail {

/// gate_tj = silu(gate_tj) * up_tj, silu(z) = z / (1 + e^-z).
inline void swiglu(MutableMatrix gate, ConstMatrix up, ExecutorRef executor) {
  executor.parallel_for(gate.rows, token_grain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      Eigen::Map<Eigen::ArrayXf> g(gate.data + t * gate.stride, gate.cols);
      const Eigen::Map<const Eigen::ArrayXf> u(up.data + t * up.stride, up.cols);
      g = g / (1.0f + (-g).exp()) * u;
    }
  });
}

inline void add(ConstMatrix x, MutableMatrix to, ExecutorRef executor) {
  executor.parallel_for(x.rows, 4 * token_grain,
                        [&](Index begin, Index end) { as_eigen(to.row_range(begin, end)) += as_eigen(x.row_range(begin, end)); });
}

inline Status check_ids(const Decoder& d, std::span<const TokenId> ids) {
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= d.config.vocabulary)
      return {ErrorCode::invalid_argument,
              io::detail::text("forward: token ", i, " has the id ", ids[i], ", outside the vocabulary of ", d.config.vocabulary,
                               ": use the model's own tokenizer")};
  return Ok{};
}

inline Status check_input(const Decoder& d, std::span<const TokenId> ids, const KvCache& cache) {
  ANYBIT_CHECK(cache.blocks() == d.config.blocks && cache.width() == d.config.kv_width(),
               "forward: the KV cache was made for another model");
  const auto tokens = static_cast<Index>(ids.size());
  if (tokens == 0) return {ErrorCode::insufficient_data, "forward: no tokens: give at least one"};
  if (tokens > cache.capacity() - cache.length())
    return {ErrorCode::invalid_argument,
            io::detail::text("forward: ", tokens, " tokens after ", cache.length(), " exceed the KV cache of ", cache.capacity(),
                             " positions: make it larger or clear it")};
  return check_ids(d, ids);
}

}  // namespace detail

/// The residual stream before the first block, (tokens, dim).
inline void embed(const Decoder& d, std::span<const TokenId> ids, MutableMatrix x, ExecutorRef executor) {
  for (std::size_t t = 0; t < ids.size(); ++t) d.token_embedding.read_row(ids[t], x.row(static_cast<Index>(t)));
  if (d.online.residual) d.online.residual->forward(x, executor);
}

/// What a pass through a block writes on its way, of any block of a model.
struct BlockScratch {
  BlockScratch(const DecoderConfig& c, Index tokens)
      : normed(tokens, c.dim),
        delta(tokens, c.dim),
        q(tokens, c.query_width()),
        k(tokens, c.kv_width()),
        v(tokens, c.kv_width()),
        mixed(tokens, c.query_width()),
        gate(tokens, c.hidden),
        up(tokens, c.hidden) {}

  Matrix normed, delta, q, k, v, mixed, gate, up;
  Workspace workspace;
};

/// What attention adds to the residual stream, into s.delta, given its normed input (tokens, dim). Arguments as for run_block();
/// false where on_input ended it.
template <class OnInput>
bool run_attention(const Block& b, const Decoder& d, const RopeTable& rope, Index layer, KvCache& cache, ConstMatrix normed,
                   BlockScratch& s, ExecutorRef executor, OnInput&& on_input) {
  const DecoderConfig& c = d.config;
  if (!on_input(Site::attn_qkv, normed)) return false;
  b.q.apply(normed, s.q.view(), executor, s.workspace);
  b.k.apply(normed, s.k.view(), executor, s.workspace);
  b.v.apply(normed, s.v.view(), executor, s.workspace);
  rope.apply(s.q.view(), c.head_dim, executor);
  rope.apply(s.k.view(), c.head_dim, executor);
  cache.append(layer, s.k.view(), s.v.view(), executor);
  attention(c, s.q.view(), cache, layer, s.mixed.view(), executor);
  cache.settle(layer, normed.rows);
  if (d.online.attn_output) d.online.attn_output->forward(s.mixed.view(), executor);
  if (!on_input(Site::attn_output, s.mixed.view())) return false;
  b.o.apply(s.mixed.view(), s.delta.view(), executor, s.workspace);
  return true;
}

/// The same of the feed-forward part.
template <class OnInput>
bool run_mlp(const Block& b, const Decoder& d, ConstMatrix normed, BlockScratch& s, ExecutorRef executor, OnInput&& on_input) {
  if (!on_input(Site::ffn_gate_up, normed)) return false;
  b.gate.apply(normed, s.gate.view(), executor, s.workspace);
  b.up.apply(normed, s.up.view(), executor, s.workspace);
  detail::swiglu(s.gate.view(), s.up.view(), executor);
  if (d.online.ffn_down) d.online.ffn_down->forward(s.gate.view(), executor);
  if (!on_input(Site::ffn_down, s.gate.view())) return false;
  b.down.apply(s.gate.view(), s.delta.view(), executor, s.workspace);
  return true;
}

/// Adds to the residual stream x, (tokens, dim), what the block makes of it. The tokens, as many as the scratch and `rope` are
/// for, continue the sequence in layer `layer` of the cache, which the caller advances. `d` gives configuration and rotations;
/// the block need not be one of its own. on_input(Site, ConstMatrix) is told the input of each group of siblings, valid during
/// the call; where it returns false the pass ends, with x of no meaning.
template <class OnInput>
void run_block(const Block& b, const Decoder& d, const RopeTable& rope, Index layer, KvCache& cache, MutableMatrix x,
               BlockScratch& s, ExecutorRef executor, OnInput&& on_input) {
  const float epsilon = d.config.norm_epsilon;
  rms_norm(x, b.attn_norm, epsilon, s.normed.view(), executor);
  if (!run_attention(b, d, rope, layer, cache, s.normed.view(), s, executor, on_input)) return;
  detail::add(s.delta.view(), x, executor);
  rms_norm(x, b.ffn_norm, epsilon, s.normed.view(), executor);
  if (!run_mlp(b, d, s.normed.view(), s, executor, on_input)) return;
  detail::add(s.delta.view(), x, executor);
}

/// What a cache of one block is made for.
inline DecoderConfig one_block(DecoderConfig c) {
  c.blocks = 1;
  return c;
}

/// The residual stream behind the output norm, (tokens, dim): what the head multiplies. `ids` continue the sequence in `cache`,
/// which grows by them. The same bits for any number of threads.
inline Result<Matrix> hidden_states(const Decoder& d, std::span<const TokenId> ids, KvCache& cache,
                                    const ForwardOptions& options = {}) {
  ANYBIT_TRY_STATUS(detail::check_input(d, ids, cache));
  const DecoderConfig& c = d.config;
  const ExecutorRef executor = options.executor;
  const auto tokens = static_cast<Index>(ids.size());
  const RopeTable rope(c, cache.length(), tokens);
  BlockScratch scratch(c, tokens);
  Matrix x(tokens, c.dim), normed(tokens, c.dim);

  embed(d, ids, x.view(), executor);
  for (Index i = 0; i < c.blocks; ++i)
    run_block(d.blocks[static_cast<std::size_t>(i)], d, rope, i, cache, x.view(), scratch, executor,
              [&](Site site, ConstMatrix input) {
                if (options.capture) options.capture(i, site, input);
                return true;
              });
  cache.advance(tokens);
  if (d.online.residual) d.online.residual->inverse(x.view(), executor);
  rms_norm(x.view(), d.output_norm, c.norm_epsilon, normed.view(), executor);
  return normed;
}

/// Logits (rows of `hidden`, vocabulary) of what hidden_states() gave, or of some of its rows: all logits of a long text at
/// once would take 4 * vocabulary bytes a token.
inline Matrix logits(const Decoder& d, ConstMatrix hidden, ExecutorRef executor = {}) {
  Workspace workspace;
  Matrix out(hidden.rows, d.config.vocabulary);
  d.output_head().apply(hidden, out.view(), executor, workspace);
  return out;
}

/// Logits (tokens, vocabulary) of `ids`, which continue the sequence in `cache`; with last_only (1, vocabulary).
inline Result<Matrix> forward(const Decoder& d, std::span<const TokenId> ids, KvCache& cache,
                              const ForwardOptions& options = {}) {
  ANYBIT_TRY(const Matrix hidden, hidden_states(d, ids, cache, options));
  const Index begin = options.last_only ? hidden.rows() - 1 : 0;
  return logits(d, hidden.view().row_range(begin, hidden.rows()), options.executor);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
