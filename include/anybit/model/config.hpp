#pragma once
// The dimensions and constants of a decoder.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/checked.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/form.hpp>
#include <anybit/nn/rope_order.hpp>

namespace anybit::model {
inline namespace ANYBIT_ABI {

struct DecoderConfig {
  Index vocabulary = 0;  ///< tokens
  Index dim = 0;         ///< width of the residual stream
  Index hidden = 0;      ///< width inside the feed-forward part
  Index blocks = 0;      ///< those of an encoder come first
  Index heads = 0;       ///< query heads
  Index kv_heads = 0;    ///< key and value heads; each serves heads / kv_heads query heads
  Index head_dim = 0;
  Index rotary_dim = 0;  ///< how many leading values of a head are rotated
  Index context = 0;     ///< positions that the model was made for
  float norm_epsilon = 1e-5f;
  float rope_base = 10000;
  float rope_scale = 1;             ///< positions are divided by this (linear scaling)
  std::vector<float> rope_factors;  ///< empty, or rotary_dim / 2 divisors of the frequencies
  nn::RopeOrder rope_order = nn::RopeOrder::pairs;
  float rope_magnitude = 1;                ///< of cos and sin (YaRN, LongRoPE)
  float rope_dynamic = 0;                  ///< factor f > 0: the base grows with the length beyond `context` (dynamic NTK)
  std::vector<float> rope_long_factors{};  ///< empty, or what `rope_factors` become beyond `rope_original_context` (LongRoPE)
  Index rope_original_context = 0;         ///< positions before the context was extended; 0: not known
  float rope_window_base = 0;              ///< > 0: base in blocks with a window, without scale and factors (Gemma 3)
  DecoderForm form{};
  /// None, or the encoder in front of the decoder: a stack with dimensions and form of its own, as wide as the decoder's. All
  /// else here but `blocks` is of the decoder.
  std::vector<DecoderConfig> encoder{};

  Index encoder_blocks() const { return encoder.empty() ? 0 : encoder.front().blocks; }
  /// The stack that has the block.
  const DecoderConfig& of(Index block) const { return block < encoder_blocks() ? encoder.front() : *this; }
  Index query_width() const { return heads * head_dim; }
  Index kv_width() const { return kv_heads * head_dim; }
  /// Width of embeddings and of what the head reads.
  Index embedding_width() const { return form.embedding_width > 0 ? form.embedding_width : dim; }
  friend bool operator==(const DecoderConfig&, const DecoderConfig&) = default;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::model

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Heads wider than this are damage: it bounds what is allocated per head before a file's tensors are looked at.
inline constexpr Index head_dim_limit = 65536;
/// More experts in a block are damage: it bounds the blueprint before a file's tensors are looked at.
inline constexpr Index expert_limit = 4096;

/// The first contradiction of the experts of a form.
inline Status check(const ExpertForm& e, const DecoderForm& f, Index blocks) {
  using io::detail::text;
  const auto bad = [](std::string what) {
    return Error{ErrorCode::corrupt_data, "model configuration: " + std::move(what) + ": convert the model again"};
  };
  constexpr Index limit = Index{1} << 31;
  if (e.count < 0 || e.count > expert_limit) return bad(text("the number of experts is ", e.count, ", not 0 to ", expert_limit));
  if (e.count == 0) return e == ExpertForm{} ? Status(Ok{}) : bad("sizes of experts are given, but no number of them");
  if (e.used < 1 || e.used > e.count)
    return bad(text(e.used, " experts are used per token, not 1 to the ", e.count, " that there are"));
  if (e.hidden < 1 || e.hidden >= limit) return bad(text("the width inside an expert is ", e.hidden, ", not 1 to ", limit - 1));
  if (e.shared_hidden < 0 || e.shared_hidden >= limit)
    return bad(text("the width inside the shared expert is ", e.shared_hidden, ", not 0 to ", limit - 1));
  if (e.shared_gate && e.shared_hidden == 0) return bad("a gate is given for a shared expert, but no shared expert");
  if (!f.gated || f.mlp_bias || f.order == BlockOrder::parallel)
    return bad("experts without a gate, with biases, or in blocks with one norm for attention and them");
  if (!e.sparse.empty() && static_cast<Index>(e.sparse.size()) < blocks)
    return bad(text("experts are given for ", e.sparse.size(), " of ", blocks, " blocks"));
  return Ok{};
}

/// The first contradiction of a form.
inline Status check(const DecoderForm& f, Index blocks) {
  using io::detail::text;
  const auto bad = [](std::string what) {
    return Error{ErrorCode::corrupt_data, "model configuration: " + std::move(what) + ": convert the model again"};
  };
  if (f.norm > NormKind::layer_gain || f.order > BlockOrder::parallel_two || f.head_norm > HeadNorm::layer ||
      f.positions > Positions::relative || f.activation > nn::Activation::relu ||
      f.experts.weights > nn::RouterWeights::softmax_of_chosen)
    return bad("a kind of norm, order, positions or activation is out of range");
  for (const auto& [name, value] : std::initializer_list<std::pair<std::string_view, float>>{
           {"attention scale", f.attention_scale}, {"cap of attention scores", f.attention_cap}, {"cap of logits", f.logit_cap}})
    if (!is_finite(value) || value < 0) return bad(text(name, " is ", value, ", not 0 or above"));
  if (!is_finite(f.embedding_scale) || f.embedding_scale == 0) return bad(text("embedding scale is ", f.embedding_scale));
  if (!is_finite(f.logit_scale) || f.logit_scale == 0) return bad(text("logit scale is ", f.logit_scale));
  if (!is_finite(f.alibi_scale)) return bad(text("scale of slopes is ", f.alibi_scale));
  constexpr Index limit = Index{1} << 31;
  for (const auto& [name, value] :
       std::initializer_list<std::pair<std::string_view, Index>>{{"window", f.window},
                                                                 {"embedding width", f.embedding_width},
                                                                 {"position offset", f.position_offset},
                                                                 {"number of token types", f.token_types},
                                                                 {"number of features", f.feature_bins}})
    if (value < 0 || value >= limit) return bad(text(name, " is ", value, ", not 0 to ", limit - 1));
  // Half of the buckets are of single distances, and a stack that looks ahead has them for both sides.
  const Index share = f.causal ? 2 : 4;
  constexpr Index farthest = Index{1} << 16;
  if (f.positions == Positions::relative &&
      (f.relative_buckets < share || f.relative_distance <= f.relative_buckets / share || f.relative_distance > farthest))
    return bad(text(f.relative_buckets, " buckets of distances up to ", f.relative_distance, ": at least ", share,
                    " buckets are needed, and distances above ", f.relative_buckets / share, " up to ", farthest));
  ANYBIT_TRY_STATUS(check(f.experts, f, blocks));
  if (!f.windowed.empty() && static_cast<Index>(f.windowed.size()) < blocks)
    return bad(text("windows are given for ", f.windowed.size(), " of ", blocks, " blocks"));
  return Ok{};
}

/// The first contradiction: which number, its value, what it must be.
inline Status check(const DecoderConfig& c) {
  using io::detail::text;
  const auto bad = [](std::string what) {
    return Error{ErrorCode::corrupt_data, "model configuration: " + std::move(what) + ": convert the model again"};
  };
  constexpr Index limit = Index{1} << 31;  // products of two of them stay in range
  for (const auto& [name, value] : std::initializer_list<std::pair<std::string_view, Index>>{{"vocabulary", c.vocabulary},
                                                                                             {"embedding length", c.dim},
                                                                                             {"feed-forward length", c.hidden},
                                                                                             {"block count", c.blocks},
                                                                                             {"head count", c.heads},
                                                                                             {"key-value head count", c.kv_heads},
                                                                                             {"head length", c.head_dim},
                                                                                             {"rotary length", c.rotary_dim},
                                                                                             {"context length", c.context}})
    if (value < 1 || value >= limit) return bad(text(name, " is ", value, ", not 1 to ", limit - 1));
  if (c.head_dim > head_dim_limit) return bad(text("head length is ", c.head_dim, ", more than ", head_dim_limit));
  if (c.heads % c.kv_heads != 0)
    return bad(text("head count ", c.heads, " is no multiple of the key-value head count ", c.kv_heads));
  if (!CheckedSize(static_cast<std::uint64_t>(c.heads) * static_cast<std::uint64_t>(c.head_dim)).get() ||
      c.query_width() >= limit)
    return bad(text(c.heads, " heads of length ", c.head_dim, " are too wide"));
  if (c.form.positions == Positions::rotary && (c.rotary_dim > c.head_dim || c.rotary_dim % 2 != 0))
    return bad(text("rotary length ", c.rotary_dim, " is no even number up to the head length ", c.head_dim));
  for (const auto* factors : {&c.rope_factors, &c.rope_long_factors})
    if (!factors->empty() && static_cast<Index>(factors->size()) != c.rotary_dim / 2)
      return bad(text(factors->size(), " rope factors for ", c.rotary_dim / 2, " frequencies"));
  const auto positive = [](const float& x) { return is_finite(x) && x > 0; };
  if (!positive(c.norm_epsilon)) return bad(text("norm epsilon is ", c.norm_epsilon, ", not above 0"));
  if (!positive(c.rope_base)) return bad(text("rope base is ", c.rope_base, ", not above 0"));
  if (!positive(c.rope_scale)) return bad(text("rope scale is ", c.rope_scale, ", not above 0"));
  for (const auto* factors : {&c.rope_factors, &c.rope_long_factors})
    for (const float f : *factors)
      if (!positive(f)) return bad(text("a rope factor is ", f, ", not above 0"));
  if (!positive(c.rope_magnitude)) return bad(text("rope magnitude is ", c.rope_magnitude, ", not above 0"));
  const auto neutral_or_positive = [&](float x) { return x == 0 || positive(x); };
  if (!neutral_or_positive(c.rope_dynamic) || (c.rope_dynamic > 0 && c.rotary_dim <= 2))
    return bad(text("the factor of dynamic rope scaling is ", c.rope_dynamic, " for ", c.rotary_dim, " rotated values"));
  if (!neutral_or_positive(c.rope_window_base)) return bad(text("rope base of windowed blocks is ", c.rope_window_base));
  if (c.rope_original_context < 0 || c.rope_original_context >= limit)
    return bad(text("original context length is ", c.rope_original_context));
  if (c.encoder.size() > 1) return bad(text(c.encoder.size(), " encoders"));
  if (c.form.cross_attention != !c.encoder.empty())
    return bad("cross-attention and encoder belong together, and only one of them is there");
  for (const DecoderConfig& e : c.encoder) {
    if (e.dim != c.dim) return bad(text("the encoder is ", e.dim, " wide, the decoder ", c.dim));
    if (e.blocks >= c.blocks) return bad(text(e.blocks, " of ", c.blocks, " blocks are the encoder's"));
    if (!e.encoder.empty() || e.form.causal || e.form.embedding_width > 0)
      return bad("the encoder has an encoder of its own, looks back only, or has narrow embeddings");
    ANYBIT_TRY_STATUS(check(e));
  }
  if (c.form.feature_bins > 0 && c.form.causal) return bad("features are for encoders");
  return check(c.form, c.blocks);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
