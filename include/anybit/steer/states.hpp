#pragma once
// Activations of every block, read from a model through taps.

#include <anybit/core/macros_begin.hpp>

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/fingerprint.hpp>
#include <anybit/model/model.hpp>
#include <anybit/steer/control.hpp>
#include <anybit/steer/stimuli.hpp>

namespace anybit::steer {
inline namespace ANYBIT_CODE {

struct StateOptions {
  model::Point point = model::Point::residual;
  Index position = -1;                 ///< of a token of each prompt; negative from the end
  std::span<const model::Tap> taps{};  ///< also run, before the states are read
  ExecutorRef executor{};
  std::function<void(Index done, Index total)> progress{};
};

/// Tells models apart, and a model from its quantized copies not: architecture, dimensions, and the gains of the output norm,
/// which quantization leaves as they are. A model whose residual stream is rotated has other directions and another fingerprint.
inline std::string model_fingerprint(const model::Decoder& d) {
  const model::DecoderConfig& c = d.config;
  Fingerprint f;
  f.add(d.blueprint->architecture->name);
  const Index dims[] = {c.vocabulary, c.dim, c.hidden, c.blocks, c.heads, c.kv_heads, c.head_dim, d.online.residual ? 1 : 0};
  f.add(std::span<const Index>(dims));
  for (std::size_t i = d.weights.size(); i-- > 0;) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    if (spec.role != model::Role::gain || spec.block != model::no_block) continue;
    f.add(std::span<const float>(d.weights[i].values));
    break;
  }
  return f.text();
}

/// Tokens of a prompt, with the token that begins texts where the model wants one.
inline Result<std::vector<model::TokenId>> encode_prompt(const model::Tokenizer& t, std::string_view text) {
  ANYBIT_TRY(std::vector<model::TokenId> ids, t.encode(text, model::Specials::parsed));
  const model::Vocabulary& v = t.vocabulary();
  if (v.add_bos && v.bos && (ids.empty() || ids.front() != *v.bos)) ids.insert(ids.begin(), *v.bos);
  if (ids.empty()) return {ErrorCode::insufficient_data, "steer: a prompt is empty: give a text"};
  return ids;
}

/// The activations of all tokens of one prompt at a point: of each block (tokens, width).
inline Result<std::vector<Matrix>> prompt_states(const model::Decoder& d, std::span<const model::TokenId> ids,
                                                 const StateOptions& o = {}) {
  std::vector<Matrix> out(static_cast<std::size_t>(d.config.blocks));
  std::vector<model::Tap> taps(o.taps.begin(), o.taps.end());
  for (Index b = 0; b < d.config.blocks; ++b)
    taps.push_back({b, o.point, [&out, b](MutableMatrix x, model::TokenRange) { out[static_cast<std::size_t>(b)] = Matrix(x); }});
  if (static_cast<Index>(ids.size()) > d.config.context)
    return {ErrorCode::invalid_argument,
            io::detail::text("steer: a prompt of ", ids.size(), " tokens, the model's context holds ", d.config.context,
                             ": shorten the text")};
  nn::KvCache cache(cache_shape(d.config), static_cast<Index>(ids.size()));
  ANYBIT_TRY_STATUS(hidden_states(d, ids, cache, {.executor = o.executor, .taps = taps}));
  return out;
}

/// The activations of one token of each prompt: of each block (prompts, width).
inline Result<std::vector<Matrix>> states(const model::Decoder& d, std::span<const std::vector<model::TokenId>> prompts,
                                          const StateOptions& o = {}) {
  using io::detail::text;
  if (!model::is_in_blocks(o.point))
    return {ErrorCode::invalid_argument,
            text("steer: ", model::name(o.point), " is once in a model: read a point that every block has, such as residual")};
  const bool mixed = o.point == model::Point::mlp_hidden && !d.config.form.experts.sparse.empty();
  if (model::is_of_expert(o.point) || mixed)
    return {ErrorCode::invalid_argument,
            text("steer: ", model::name(o.point), " has not a row of one width for every token in every block of a model with ",
                 "experts: read another point, such as residual")};
  const auto blocks = static_cast<std::size_t>(d.config.blocks);
  std::vector<Matrix> out;
  for (std::size_t b = 0; b < blocks; ++b) out.emplace_back(static_cast<Index>(prompts.size()), width_at(d, o.point));
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    const auto tokens = static_cast<Index>(prompts[p].size());
    const Index at = o.position < 0 ? tokens + o.position : o.position;
    if (at < 0 || at >= tokens)
      return {ErrorCode::invalid_argument, text("steer: prompt ", p, " has ", tokens, " tokens, position ", o.position,
                                                " is outside: choose a position that every prompt has")};
    std::vector<model::Tap> taps(o.taps.begin(), o.taps.end());
    for (std::size_t b = 0; b < blocks; ++b)
      taps.push_back({static_cast<Index>(b), o.point, [&out, b, p, at](MutableMatrix x, model::TokenRange) {
                        ANYBIT_CHECK(x.cols == out[b].cols(), "steer: activations of another width than width_at()");
                        std::copy_n(x.row(at).data(), x.cols, out[b].data() + static_cast<Index>(p) * x.cols);
                      }});
    if (tokens > d.config.context)
      return {ErrorCode::invalid_argument, text("steer: prompt ", p, " has ", tokens, " tokens, the model's context holds ",
                                                d.config.context, ": shorten the text")};
    nn::KvCache cache(cache_shape(d.config), tokens);
    ANYBIT_TRY_STATUS(hidden_states(d, prompts[p], cache, {.executor = o.executor, .taps = taps}));
    if (o.progress) o.progress(static_cast<Index>(p) + 1, static_cast<Index>(prompts.size()));
  }
  return out;
}

/// Of texts in a template.
inline Result<std::vector<Matrix>> states(const model::Model& m, std::span<const std::string> texts, std::string_view pattern,
                                          const StateOptions& o = {}) {
  std::vector<std::vector<model::TokenId>> prompts;
  for (const std::string& t : texts) {
    ANYBIT_TRY(const std::string prompt, fill_template(pattern, t));
    ANYBIT_TRY(prompts.emplace_back(), encode_prompt(m.tokenizer, prompt));
  }
  return states(m.decoder, prompts, o);
}

/// One block's direction and what it is worth on pairs that it was not fitted on.
struct BlockReading {
  BlockDirection direction{};
  double train_pairs = 0, test_pairs = 0;  ///< pair_accuracy()
  double test_rows = 0;                    ///< row_accuracy() at the threshold of the fit
};

/// A direction for each block; both lists hold one matrix per block, rows in pairs.
inline Result<std::vector<BlockReading>> read_blocks(ReadingMethod method, std::span<const Matrix> train,
                                                     std::span<const Label> train_labels, std::span<const Matrix> test,
                                                     std::span<const Label> test_labels, std::uint64_t seed = 42) {
  ANYBIT_CHECK(train.size() == test.size(), "steer::read_blocks: as many blocks to fit as to test");
  std::vector<BlockReading> out;
  for (std::size_t b = 0; b < train.size(); ++b) {
    const std::string where = io::detail::text("block ", b);
    auto direction = read_direction(method, train[b].view(), train_labels, seed + b);
    if (!direction) return in_context(direction.error(), where);
    if (const auto fit = check_rows("steer: test", test[b].view(), test_labels); !fit) return in_context(fit.error(), where);
    const std::vector<double> own = scores(*direction, train[b].view()), other = scores(*direction, test[b].view());
    BlockReading r{.train_pairs = pair_accuracy(own, train_labels),
                   .test_pairs = pair_accuracy(other, test_labels),
                   .test_rows = row_accuracy(other, test_labels, direction->threshold)};
    r.direction = {static_cast<Index>(b), *std::move(direction), r.test_pairs};
    out.push_back(std::move(r));
  }
  return out;
}

/// Scores of every token of a prompt in the blocks of the directions, (directions, tokens): the rows of a heat map.
inline Result<Matrix> token_scores(const model::Decoder& d, std::span<const model::TokenId> ids,
                                   std::span<const BlockDirection> directions, const StateOptions& o = {}) {
  ANYBIT_TRY(const std::vector<Matrix> all, prompt_states(d, ids, o));
  Matrix out(static_cast<Index>(directions.size()), static_cast<Index>(ids.size()));
  for (std::size_t i = 0; i < directions.size(); ++i) {
    const BlockDirection& b = directions[i];
    if (b.block < 0 || b.block >= d.config.blocks || b.direction.width() != all[static_cast<std::size_t>(b.block)].cols())
      return {ErrorCode::shape_mismatch, io::detail::text("steer: the direction of block ", b.block, " has ", b.direction.width(),
                                                          " values: it was read from another model or point")};
    const std::vector<double> s = scores(b.direction, all[static_cast<std::size_t>(b.block)].view());
    for (std::size_t t = 0; t < s.size(); ++t) out(static_cast<Index>(i), static_cast<Index>(t)) = static_cast<float>(s[t]);
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
