#pragma once
// Attention patterns: how much each token of a prompt reads from each position, head by head, from taps on queries and keys.
//
//   a_h(t, p) = softmax over the positions p that t sees of scale q_th . k_p,  with cap, window and slopes as the model has them

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include <anybit/model/arch/decoder_block.hpp>
#include <anybit/model/run.hpp>

namespace anybit::steer {
inline namespace ANYBIT_CODE {

namespace detail {

/// Queries or keys as attention multiplies them: behind the norm of heads and the positions.
inline void prepare_heads(const model::Decoder& d, Index block, MutableMatrix x, bool queries) {
  namespace form = model::decoder_block;
  const model::DecoderConfig& c = d.config;
  if (c.form.head_norm != model::HeadNorm::none)
    form::normalize_heads(c, d.block(block), form::Places(c.form, block), x, queries ? form::attn_q_norm : form::attn_k_norm,
                          queries ? form::attn_q_norm_bias : form::attn_k_norm_bias, {});
  if (c.form.positions != model::Positions::rotary) return;
  const bool windowed = c.rope_window_base > 0 && c.form.window_of(block) > 0;
  const nn::RopeOptions rope = windowed ? model::window_rope_options(c) : model::rope_options(c, x.rows);
  nn::RopeTable(rope, 0, x.rows).apply(x, c.head_dim, {});
}

}  // namespace detail

/// The pattern of every head of a block over one prompt: of each head (tokens, tokens). Row t adds up to 1 and is 0 behind t.
inline Result<std::vector<Matrix>> attention_patterns(const model::Decoder& d, std::span<const model::TokenId> ids, Index block,
                                                      ExecutorRef executor = {}) {
  using io::detail::text;
  const model::DecoderConfig& c = d.config;
  if (block < 0 || block >= c.blocks)
    return {ErrorCode::invalid_argument,
            text("steer: block ", block, ", the model has ", c.blocks, ", counted from 0: choose one of these")};
  if (d.blueprint->architecture->run_block != model::decoder_block::run_block)
    return {ErrorCode::unsupported, text("steer: the ", d.blueprint->architecture->name,
                                         " architecture has an attention of its own: patterns are computed for decoders alone")};
  if (static_cast<Index>(ids.size()) > c.context)
    return {ErrorCode::invalid_argument,
            text("steer: a prompt of ", ids.size(), " tokens, the model's context holds ", c.context, ": shorten the text")};
  Matrix q, k;
  const model::Tap taps[] = {{block, model::Point::q, [&q](MutableMatrix x, model::TokenRange) { q = Matrix(x); }},
                             {block, model::Point::k, [&k](MutableMatrix x, model::TokenRange) { k = Matrix(x); }}};
  nn::KvCache cache(cache_shape(c), static_cast<Index>(ids.size()));
  ANYBIT_TRY_STATUS(hidden_states(d, ids, cache, {.executor = executor, .taps = taps}));
  detail::prepare_heads(d, block, q.view(), true), detail::prepare_heads(d, block, k.view(), false);

  std::vector<float> slopes;
  const nn::AttentionOptions o = model::decoder_block::attention_options(c, block, slopes);
  const double scale = o.scale > 0 ? static_cast<double>(o.scale) : 1 / std::sqrt(static_cast<double>(c.head_dim));
  const auto cap = static_cast<double>(o.soft_cap);
  std::vector<Matrix> out;
  for (Index h = 0; h < c.heads; ++h) {
    Matrix& pattern = out.emplace_back(q.rows(), q.rows());
    const double slope = slopes.empty() ? 0 : static_cast<double>(slopes[static_cast<std::size_t>(h)]);
    const Index kv = h / (c.heads / c.kv_heads);
    std::vector<double> score(ids.size());
    for (Index t = 0; t < q.rows(); ++t) {
      const Index begin = o.window > 0 ? std::max<Index>(t - o.window + 1, 0) : 0;
      double most = -1e300, sum = 0;
      for (Index p = begin; p <= t; ++p) {
        double s = 0;
        for (Index j = 0; j < c.head_dim; ++j)
          s += static_cast<double>(q(t, h * c.head_dim + j)) * static_cast<double>(k(p, kv * c.head_dim + j));
        s *= scale;
        if (cap > 0) s = cap * std::tanh(s / cap);
        s -= slope * static_cast<double>(t - p);
        score[static_cast<std::size_t>(p)] = s;
        most = std::max(most, s);
      }
      for (Index p = begin; p <= t; ++p)
        sum += score[static_cast<std::size_t>(p)] = std::exp(score[static_cast<std::size_t>(p)] - most);
      for (Index p = begin; p <= t; ++p) pattern(t, p) = static_cast<float>(score[static_cast<std::size_t>(p)] / sum);
    }
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
