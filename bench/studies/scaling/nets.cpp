#include "scaling/nets.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include <anybit/evaluate/perplexity.hpp>
#include <anybit/evaluate/statistics.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/train/random.hpp>
#include <anybit/train/wasq/absorb.hpp>
#include <anybit/train/wasq/fpm.hpp>

namespace study {

using namespace anybit;
namespace wasq = train::wasq;

namespace {

constexpr Index blocks = 2, head_width = 8, inner = 3, vocabulary = 256, longest = 1024;

/// A grid for training, and what d absorbs for it.
Result<wasq::GridModel> grid_of(model::Decoder& d, const Grid& grid) {
  if (grid.use == Use::norms)
    ANYBIT_TRY_STATUS(
        wasq::absorb(d, wasq::Absorption::norms, wasq::AbsorbedScale::largest_on_grid, wasq::SuperfloatGrid{grid.bits}));
  wasq::Fpm method;
  method.bits = grid.bits, method.row_scales = grid.use == Use::rows, method.as_published = grid.use == Use::published;
  return method.make(d);
}

}  // namespace

Corpus corpus_of(std::string_view text) {
  Corpus out;
  for (const char c : text) out.bytes.push_back(static_cast<unsigned char>(c));
  return out;
}

model::Decoder make_net(Index width, std::uint64_t seed) {
  model::DecoderConfig c;
  c.vocabulary = vocabulary, c.dim = width, c.hidden = inner * width, c.blocks = blocks;
  c.heads = c.kv_heads = width / head_width, c.head_dim = c.rotary_dim = head_width, c.context = longest;
  model::Decoder d = make_decoder(model::llama_architecture, c);
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    if (!spec.multiplies()) {
      d.weights[i].values.assign(static_cast<std::size_t>(spec.shape.cols), 1.0f);
      continue;
    }
    const train::Draws draws(seed, i);
    const float reach = 1 / std::sqrt(static_cast<float>(spec.shape.cols));
    Matrix w(spec.shape.rows, spec.shape.cols);
    for (Index j = 0; j < w.extents().size(); ++j) w.data()[j] = reach * (2 * draws.uniform(static_cast<std::uint64_t>(j)) - 1);
    d.weights[i].linear = nn::Linear(std::move(w));
  }
  return d;
}

Index block_weights(Index width) { return blocks * (4 + 3 * inner) * width * width; }

std::string Grid::name() const {
  const std::string of(use_names[static_cast<std::size_t>(use)]);
  return use == Use::floats ? of : of + " SF" + std::to_string(bits);
}

Status train_net(model::Decoder& d, std::span<const model::TokenId> text, const Grid& grid, const Training& how) {
  const auto length = static_cast<std::size_t>(how.context);
  const auto places = static_cast<Index>(text.size() / length);
  if (places == 0)
    return {ErrorCode::insufficient_data, "the text's part of " + std::to_string(text.size()) + " bytes has no piece of " +
                                              std::to_string(length) + ": give a longer text"};
  const Index per_step = std::max<Index>(how.batch / how.context, 1);
  const Index steps = std::max<Index>(static_cast<Index>(how.tokens / static_cast<double>(per_step * how.context)), 1);
  std::vector<train::Example> examples;
  for (Index pass = 0; static_cast<Index>(examples.size()) < steps * per_step; ++pass)
    for (const Index place : train::epoch_order(places, how.seed, static_cast<std::uint64_t>(pass)))
      if (static_cast<Index>(examples.size()) < steps * per_step)
        examples.push_back({text.subspan(static_cast<std::size_t>(place) * length, length), {}});
  train::TrainOptions o;
  o.batch = per_step, o.shuffle = false, o.seed = how.seed, o.loss.recompute_blocks = false;
  o.schedule.decay = how.falls ? train::Decay::cosine : train::Decay::constant;
  o.schedule.peak = how.rate, o.schedule.warm_up = std::max<Index>(steps / 50, 1);
  o.adamw.beta2 = 0.95f, o.adamw.weight_decay = 0.1f;
  if (!how.state.empty()) o.checkpoints.path = how.state, o.checkpoints.every = 500, o.checkpoints.resume = true;
  wasq::GridModel on_grid;
  if (grid.use != Use::floats) {
    ANYBIT_TRY(on_grid, grid_of(d, grid));
    o.reparametrize = wasq::on_grid(on_grid);
  }
  return train::train_decoder(d, examples, how.trained ? how.trained : train::Trained(train::all_weights), o,
                              [&](const train::TrainStep& s) {
                                if (how.behind) how.behind(s.step);
                                return true;
                              });
}

Result<model::Decoder> rounded(const model::Decoder& d, const Grid& grid) {
  model::Decoder out = d;
  const wasq::SuperfloatGrid levels{grid.bits};
  switch (grid.use) {
    case Use::floats: return out;
    case Use::rows:
      for (const model::WeightId id : d.blueprint->linears) {
        const MutableMatrix w = out[id].linear.own_dense();
        wasq::GridLayer l{(*d.blueprint)[id].name, w.rows, w.cols, levels};
        wasq::search_row_scales(l, w);
        const std::vector<float> values(w.data, w.data + w.rows * w.cols);
        wasq::detail::round_layer(l, values, {w.data, values.size()});
      }
      return out;
    case Use::plain:
    case Use::norms:
    case Use::exact: {
      const auto mode = grid.use == Use::plain   ? wasq::Absorption::none
                        : grid.use == Use::norms ? wasq::Absorption::norms
                                                 : wasq::Absorption::exact;
      ANYBIT_TRY(const wasq::Absorbed absorbed, wasq::absorb(out, mode, wasq::AbsorbedScale::largest_on_grid, levels));
      wasq::round_to_grid(out, absorbed, levels);
      return out;
    }
    case Use::published: break;
  }
  return Error{ErrorCode::unsupported, "the published method trains: it does not round alone"};
}

Result<Measured> measure(const model::Decoder& d, std::span<const model::TokenId> text, Index length, Index windows) {
  const auto size = static_cast<std::size_t>(length);
  if (text.size() < size)
    return Error{ErrorCode::insufficient_data, "the text's part of " + std::to_string(text.size()) + " bytes has no window of " +
                                                   std::to_string(length) + ": give a longer text"};
  Measured out;
  Index best = 0, all = 0;
  nn::KvCache cache(model::cache_shape(d.config), length);
  for (Index i = 0; i < windows; ++i) {
    const std::size_t first = (text.size() - size) * static_cast<std::size_t>(i) / static_cast<std::size_t>(windows);
    const auto ids = text.subspan(first, size);
    cache.clear();
    ANYBIT_TRY(const Matrix logits, model::forward(d, ids, cache));
    std::vector<double> losses;
    for (Index t = 0; t + 1 < length; ++t) {
      const auto row = logits.view().row(t);
      const auto next = ids[static_cast<std::size_t>(t) + 1];
      losses.push_back(evaluate::negative_log_likelihood(row, next));
      best += std::max_element(row.begin(), row.end()) - row.begin() == next ? 1 : 0;
    }
    all += length - 1;
    out.by_window.push_back(evaluate::mean(losses));
  }
  out.loss = evaluate::mean(out.by_window);
  out.accuracy = static_cast<double>(best) / static_cast<double>(all);
  return out;
}

double dead_share(const model::Decoder& d) {
  Index dead = 0, all = 0;
  for (const model::WeightId id : d.blueprint->linears) {
    const Matrix& w = *d[id].linear.dense();
    dead += std::count(w.data(), w.data() + w.extents().size(), 0.0f), all += w.extents().size();
  }
  return static_cast<double>(dead) / static_cast<double>(all);
}

}  // namespace study
