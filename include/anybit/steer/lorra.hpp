#pragma once
// LoRRA, low-rank representation adaptation (Zou et al., arXiv:2310.01405, algorithm 1): adapters of the attention that move the
// activations of chosen blocks to a target, so that a model is steered without taps.
//
//   r_t       = h(x) + alpha v + beta (h(with x) - h(without x))    of the model without adapters; v = sign v / |v|
//   minimize    mean over blocks and tokens of |h_adapted(x) - r_t|

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/model/run.hpp>
#include <anybit/steer/control.hpp>
#include <anybit/train/decoder_tape.hpp>
#include <anybit/train/lora.hpp>
#include <anybit/train/optimizer.hpp>
#include <anybit/train/schedule.hpp>

namespace anybit::steer {
inline namespace ANYBIT_CODE {

/// A text, and the same text behind a prefix that asks for the concept and behind one that asks for its opposite; both empty
/// where there is no contrast. The last `tail` tokens of all three are the same, and these are trained.
struct LorraExample {
  std::vector<model::TokenId> ids{}, with{}, without{};
  Index tail = 0;  ///< 0: all of `ids`
};

struct LorraOptions {
  double alpha = 1;  ///< length of the step along the directions
  double beta = 0;   ///< share of the contrast
  train::LoraOptions lora{.chosen = [](std::string_view name) { return name.find(".attn_") != std::string_view::npos; }};
  Index steps = 40, batch = 4;  ///< examples per step, in turn
  train::Schedule schedule{.decay = train::Decay::linear, .peak = 1e-3};
  train::AdamWOptions adamw{.weight_decay = 0};
  double clip = 1;  ///< largest norm of all gradients together; 0: any
  ExecutorRef executor{};
};

struct LorraStep {
  Index step = 0, steps = 0;
  double loss = 0;  ///< before the step
};

/// A text and the activations that its tokens from `first` on are to have, (tokens - first, dim) for each chosen block.
struct StateTarget {
  std::vector<model::TokenId> ids{};
  Index first = 0;
  std::vector<Matrix> targets{};
};

namespace detail {

/// Activations of the last `tail` tokens of a text behind each of the blocks.
inline Result<std::vector<Matrix>> tail_states(const model::Decoder& d, std::span<const model::TokenId> ids, Index tail,
                                               std::span<const Index> blocks, ExecutorRef executor) {
  std::vector<Matrix> out(blocks.size());
  std::vector<model::Tap> taps;
  for (std::size_t i = 0; i < blocks.size(); ++i)
    taps.push_back({blocks[i], model::Point::residual, [&out, i, tail](MutableMatrix x, model::TokenRange) {
                      out[i] = Matrix(ConstMatrix(x).row_range(x.rows - tail, x.rows));
                    }});
  nn::KvCache cache(cache_shape(d.config), static_cast<Index>(ids.size()));
  ANYBIT_TRY_STATUS(hidden_states(d, ids, cache, {.executor = executor, .taps = taps}));
  return out;
}

inline Status check_example(const model::Decoder& d, const LorraExample& e, std::size_t number, double beta) {
  using io::detail::text;
  const auto bad = [&](ErrorCode code, auto... why) { return Status(code, text("steer: lorra: example ", number, " ", why...)); };
  const auto longest = static_cast<Index>(std::max({e.ids.size(), e.with.size(), e.without.size()}));
  if (e.ids.empty()) return bad(ErrorCode::insufficient_data, "has no tokens: give a text");
  if (longest > d.config.context)
    return bad(ErrorCode::invalid_argument, "has ", longest, " tokens, the model's context ", d.config.context, ": shorten it");
  const auto tail = e.tail > 0 ? static_cast<std::size_t>(e.tail) : e.ids.size();
  if (e.tail < 0 || tail > e.ids.size())
    return bad(ErrorCode::invalid_argument, "trains its last ", e.tail, " of ", e.ids.size(),
               " tokens: train as many as there are");
  if (beta == 0) return Ok{};
  for (const auto* other : {&e.with, &e.without})
    if (other->size() < tail || !std::equal(e.ids.end() - static_cast<std::ptrdiff_t>(tail), e.ids.end(),
                                            other->end() - static_cast<std::ptrdiff_t>(tail)))
      return bad(ErrorCode::shape_mismatch, "does not end with the same ", tail,
                 " tokens behind its prefixes: train fewer of its last tokens");
  return Ok{};
}

}  // namespace detail

/// The targets of the examples, from the model as it is.
inline Result<std::vector<StateTarget>> lorra_targets(const model::Decoder& d, std::span<const LorraExample> examples,
                                                      std::span<const BlockDirection> directions, const LorraOptions& o) {
  std::vector<Index> blocks;
  for (const BlockDirection& b : directions) blocks.push_back(b.block);
  std::vector<StateTarget> out;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const LorraExample& e = examples[i];
    ANYBIT_TRY_STATUS(detail::check_example(d, e, i, o.beta));
    const Index tail = e.tail > 0 ? e.tail : static_cast<Index>(e.ids.size());
    StateTarget t{.ids = e.ids, .first = static_cast<Index>(e.ids.size()) - tail};
    ANYBIT_TRY(t.targets, detail::tail_states(d, e.ids, tail, blocks, o.executor));
    const auto add = [&](std::span<const Matrix> from, double factor) {
      for (std::size_t b = 0; b < blocks.size(); ++b)
        for (Index j = 0; j < from[b].extents().size(); ++j)
          t.targets[b].data()[j] += static_cast<float>(factor) * from[b].data()[j];
    };
    if (o.beta != 0) {
      ANYBIT_TRY(const auto with, detail::tail_states(d, e.with, tail, blocks, o.executor));
      ANYBIT_TRY(const auto without, detail::tail_states(d, e.without, tail, blocks, o.executor));
      add(with, o.beta), add(without, -o.beta);
    }
    for (std::size_t b = 0; b < blocks.size() && o.alpha != 0; ++b) {
      const std::vector<float> v = control_vector(directions[b].direction, o.alpha);
      for (Index r = 0; r < tail; ++r)
        for (std::size_t j = 0; j < v.size(); ++j) t.targets[b](r, static_cast<Index>(j)) += v[j];
    }
    out.push_back(std::move(t));
  }
  return out;
}

/// The mean distance of the activations from their targets, over blocks and tokens, and its gradients added to `g`. `blocks` rise
/// and are those of the targets. Where activation and target are equal the gradient is 0.
inline double state_loss_and_gradients(const model::Decoder& d, std::span<const StateTarget> batch, std::span<const Index> blocks,
                                       train::Gradients& g, ExecutorRef executor = {}) {
  std::vector<Index> lengths;
  Index tokens = 0, counted = 0;
  for (const StateTarget& t : batch) {
    lengths.push_back(static_cast<Index>(t.ids.size()));
    tokens += lengths.back(), counted += lengths.back() - t.first;
  }
  train::DecoderTape tape(d, lengths, {}, {}, executor);
  Matrix x(tokens, d.config.dim);
  Index row = 0;
  for (const StateTarget& t : batch) {
    const Index end = row + static_cast<Index>(t.ids.size());
    d.blueprint->architecture->embed(d, {.ids = t.ids}, x.view().row_range(row, end), executor);
    row = end;
  }
  const Index last = blocks.back();
  std::vector<train::BlockTape> tapes(static_cast<std::size_t>(last) + 1);
  std::vector<Matrix> slopes(tapes.size());  // the loss by the stream behind a block
  const double share = 1 / static_cast<double>(counted * static_cast<Index>(blocks.size()));
  double loss = 0;
  for (Index i = 0; i <= last; ++i) {
    tape.forward(i, x.view(), tapes[static_cast<std::size_t>(i)]);
    const auto at = std::find(blocks.begin(), blocks.end(), i);
    if (at == blocks.end()) continue;
    const auto which = static_cast<std::size_t>(at - blocks.begin());
    Matrix& slope = slopes[static_cast<std::size_t>(i)] = Matrix(tokens, d.config.dim);
    Index begin = 0;
    for (const StateTarget& t : batch) {
      for (Index r = 0; r < t.targets[which].rows(); ++r) {
        const auto h = std::as_const(x).view().row(begin + t.first + r), target = t.targets[which].view().row(r);
        double square = 0;
        for (std::size_t j = 0; j < h.size(); ++j) {
          const double off = static_cast<double>(h[j]) - static_cast<double>(target[j]);
          square += off * off;
        }
        const double distance = std::sqrt(square);
        loss += share * distance;
        for (std::size_t j = 0; j < h.size() && distance > 0; ++j)
          slope(begin + t.first + r, static_cast<Index>(j)) =
              static_cast<float>(share * (static_cast<double>(h[j]) - static_cast<double>(target[j])) / distance);
      }
      begin += static_cast<Index>(t.ids.size());
    }
  }
  Matrix dx(tokens, d.config.dim);
  for (Index i = last; i >= 0; --i) {
    const Matrix& slope = slopes[static_cast<std::size_t>(i)];
    for (Index j = 0; j < slope.extents().size(); ++j) dx.data()[j] += slope.data()[j];
    tape.backward(i, tapes[static_cast<std::size_t>(i)], dx.view(), g);
  }
  return loss;
}

/// Gives the chosen linears of d adapters and trains them. `directions` rise by block; their blocks are those of the targets, and
/// blocks behind the last of them get no gradient. Packed weights stay as they are. Returns the loss before each step.
inline Result<std::vector<double>> train_lorra(model::Decoder& d, std::span<const LorraExample> examples,
                                               std::span<const BlockDirection> directions, const LorraOptions& o = {},
                                               const std::function<bool(const LorraStep&)>& on_step = {}) {
  using io::detail::text;
  if (examples.empty()) return {ErrorCode::insufficient_data, "steer: lorra: no examples: give at least one"};
  if (directions.empty()) return {ErrorCode::insufficient_data, "steer: lorra: no directions: name at least one block"};
  if (!is_finite(o.alpha) || !is_finite(o.beta))
    return {ErrorCode::not_finite, text("steer: lorra: alpha is ", o.alpha, ", beta ", o.beta, ": give finite numbers")};
  if (o.steps < 1 || o.batch < 1)
    return {ErrorCode::invalid_argument,
            text("steer: lorra: ", o.steps, " steps of ", o.batch, " examples: give at least 1 of each")};
  if (d.blueprint->architecture->run_block != model::decoder_block::run_block)
    return {ErrorCode::unsupported, text("steer: lorra: the ", d.blueprint->architecture->name,
                                         " architecture has no backward pass: there is one of decoders with dense blocks")};
  for (std::size_t i = 1; i < directions.size(); ++i)
    if (directions[i].block <= directions[i - 1].block)
      return {ErrorCode::invalid_argument, text("steer: lorra: block ", directions[i].block, " behind block ",
                                                directions[i - 1].block, ": give one direction per block, in rising order")};
  ANYBIT_TRY_STATUS(control_taps(d, directions));  // width, finite, in the model
  for (const model::Weight& w : d.weights)
    if (w.linear.adapter()) return {ErrorCode::unsupported, "steer: lorra: the model has adapters already: merge them first"};
  ANYBIT_TRY(const std::vector<StateTarget> targets, lorra_targets(d, examples, directions, o));

  std::vector<Index> blocks;
  for (const BlockDirection& b : directions) blocks.push_back(b.block);
  train::add_adapters(d, o.lora);
  train::Gradients gradients = train::make_gradients(d, train::is_adapter);
  const std::vector<train::Parameter> all = train::parameters(d, gradients);
  if (all.empty())
    return {ErrorCode::invalid_argument, "steer: lorra: no linear was chosen for an adapter: choose by other names"};
  train::AdamW adam(o.adamw, all);
  train::Schedule schedule = o.schedule;
  if (schedule.steps == 0) schedule.steps = o.steps;
  std::vector<double> losses;
  for (Index step = 0; step < o.steps; ++step) {
    std::vector<StateTarget> batch;
    for (Index i = 0; i < std::min(o.batch, static_cast<Index>(targets.size())); ++i)
      batch.push_back(targets[static_cast<std::size_t>(step * o.batch + i) % targets.size()]);
    train::zero_gradients(all);
    losses.push_back(state_loss_and_gradients(d, batch, blocks, gradients, o.executor));
    const double length = train::global_norm(all, o.executor);
    if (!is_finite(losses.back()) || !is_finite(length))
      return {ErrorCode::not_finite, text("steer: lorra: step ", step, " of ", o.steps, ": the loss is ", losses.back(),
                                          " and the norm of the gradients ", length, ": lower the learning rate")};
    if (o.clip > 0) train::scale_gradients(all, length, o.clip, o.executor);
    adam.step(all, schedule.rate(step), o.executor);
    if (on_step && !on_step({step, o.steps, losses.back()})) break;
  }
  return losses;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
