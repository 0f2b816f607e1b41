#pragma once
// Training of a decoder on examples: batches in a seeded order, gradients by micro-batches, clipping, a schedule, AdamW.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/fingerprint.hpp>
#include <anybit/model/number_text.hpp>
#include <anybit/train/checkpoint.hpp>
#include <anybit/train/data_order.hpp>
#include <anybit/train/loss.hpp>
#include <anybit/train/optimizer.hpp>
#include <anybit/train/reparametrization.hpp>
#include <anybit/train/schedule.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

struct TrainOptions {
  Index epochs = 1;
  Index batch = 8;        ///< examples per step; the last step of an epoch takes what is left
  Index micro_batch = 0;  ///< examples whose activations exist at once; 0: the whole batch
  bool shuffle = true;    ///< by epoch_order(seed, epoch); else in the order given
  std::uint64_t seed = 0;
  Schedule schedule{};  ///< its `steps` are set to those of this run where they are 0
  AdamWOptions adamw{};
  double clip = 1;     ///< largest norm of all gradients together; 0: any
  LossOptions loss{};  ///< divisor and the dropout's step are set here
  Checkpoints checkpoints{};
  Reparametrize reparametrize{};  ///< empty: the weights themselves are stepped
};

namespace detail {

inline RunFacts run_facts(const model::Decoder& d, std::span<const Example> examples, const TrainOptions& o,
                          const Schedule& schedule, const Reparametrization& through) {
  using io::detail::text, model::detail::number_text;
  const auto weights_of = [](const model::Decoder& m) {
    Fingerprint f;
    for (const model::Weight& w : m.weights) {
      model::detail::add_linear(f, w.linear);
      f.add(std::span<const float>(w.values));
    }
    const model::DecoderConfig& c = m.config;
    return text(m.blueprint->architecture->name, " of ", c.blocks, " blocks, width ", c.dim, ", vocabulary ", c.vocabulary,
                ", weights ", f.text());
  };
  Fingerprint ids;
  for (const Example& e : examples) ids.add(e.ids).add(e.counted);
  const auto& a = o.adamw;
  return {
      {"build", std::string(model::detail::build_name)},
      {"model", weights_of(d)},
      {"teacher", o.loss.teacher ? text(weights_of(*o.loss.teacher), ", temperature ", number_text(o.loss.temperature)) : "none"},
      {"data", text(examples.size(), " examples, ", ids.text())},
      {"number of epochs", text(o.epochs)},
      {"batch size", text(o.batch)},
      {"micro-batch", text(o.micro_batch)},
      {"order", o.shuffle ? "shuffled" : "as given"},
      {"seed", text(o.seed)},
      {"schedule", text(static_cast<int>(schedule.decay), ", peak ", number_text(schedule.peak), ", warm-up ", schedule.warm_up,
                        ", steps ", schedule.steps, ", last ", number_text(schedule.last))},
      {"optimizer", text("adamw ", number_text(a.beta1), " ", number_text(a.beta2), ", epsilon ", number_text(a.epsilon),
                         ", decay ", number_text(a.weight_decay), ", moments ", static_cast<int>(a.moments), ", seed ", a.seed)},
      {"clipping", number_text(o.clip)},
      {"dropout", text(number_text(o.loss.dropout.rate), ", seed ", o.loss.dropout.seed)},
      {"method", through.description.empty() ? "none" : through.description}};
}

/// Of one step: its examples, their micro-batches, the mean loss.
inline Result<double> batch_loss(const model::Decoder& d, std::span<const Example> batch, Gradients& gradients,
                                 const TrainOptions& o, Index step) {
  LossOptions loss_options = o.loss;
  loss_options.divisor = static_cast<double>(std::max<Index>(predictions(batch), 1));
  const Index size = o.micro_batch > 0 ? o.micro_batch : o.batch;
  double sum = 0;
  for (Index begin = 0, piece_number = 0; begin < static_cast<Index>(batch.size()); begin += size, ++piece_number) {
    loss_options.dropout.step = static_cast<std::uint64_t>(step * ceil_div(o.batch, size) + piece_number);
    const auto first = static_cast<std::size_t>(begin);
    const auto piece = batch.subspan(first, std::min(static_cast<std::size_t>(size), batch.size() - first));
    if (predictions(piece) == 0 && predictions(batch) > 0) continue;
    ANYBIT_TRY(const Loss loss, loss_and_gradients(d, piece, gradients, loss_options));
    sum += loss.sum;
  }
  return sum / loss_options.divisor;
}

}  // namespace detail

/// Trains the tensors of `d` that `trained` names; others stay shared with copies of d. Ends early where on_step returns false. A
/// loss or gradient that is not finite is an error that names the step, which is not taken: the weights are those of the step
/// before, and so is the last checkpoint. The same bits for any number of threads and for any micro-batch of one size.
inline Status train_decoder(model::Decoder& d, std::span<const Example> examples, const Trained& trained, const TrainOptions& o,
                            const std::function<bool(const TrainStep&)>& on_step = {}) {
  using io::detail::text;
  const auto count = static_cast<Index>(examples.size());
  if (count == 0) return {ErrorCode::insufficient_data, "train: no examples: give at least one"};
  ANYBIT_CHECK(o.batch > 0 && o.epochs >= 0 && o.micro_batch >= 0 && o.checkpoints.every >= 0,
               "train_decoder: batch, epochs, micro-batch and steps between checkpoints must not be negative");
  Gradients gradients = make_gradients(d, trained);
  const std::vector<Parameter> weights = parameters(d, gradients);
  if (weights.empty())
    return {ErrorCode::invalid_argument, "train: nothing is trained: the model has no float weights or adapters of these names"};
  const Reparametrization through = o.reparametrize ? o.reparametrize(weights) : Reparametrization{};
  const std::vector<Parameter>& stepped = o.reparametrize ? through.stepped : weights;
  AdamW adam(o.adamw, stepped);
  const Index per_epoch = ceil_div(count, o.batch), steps = per_epoch * o.epochs;
  Schedule schedule = o.schedule;
  if (schedule.steps == 0) schedule.steps = steps;

  const Checkpoints& checkpoints = o.checkpoints;
  const bool keeps = !checkpoints.path.empty();
  const RunFacts facts = keeps ? detail::run_facts(d, examples, o, schedule, through) : RunFacts{};
  std::vector<TrainStep> log;
  Index saved = 0;  // steps in the checkpoint
  if (std::error_code ignored; keeps && checkpoints.resume && std::filesystem::exists(checkpoints.path, ignored)) {
    ANYBIT_TRY(log, detail::load_checkpoint(checkpoints.path, facts, stepped, adam));
    if (static_cast<Index>(log.size()) > steps)
      return {ErrorCode::corrupt_data,
              text(checkpoints.path, ": holds ", log.size(), " steps, the run has ", steps, ": name another file")};
    saved = static_cast<Index>(log.size());
    for (TrainStep& s : log) {
      s.steps = steps;
      if (on_step) on_step(s);
    }
  }
  const auto save = [&]() -> Status {
    if (!keeps || saved == static_cast<Index>(log.size())) return Ok{};
    ANYBIT_TRY_STATUS(detail::save_checkpoint(checkpoints, facts, log, stepped, adam));
    saved = static_cast<Index>(log.size());
    return Ok{};
  };

  std::vector<Index> order(examples.size());
  std::iota(order.begin(), order.end(), Index{0});
  Index ordered = -1;  // the epoch that `order` is of
  std::vector<Example> batch;
  bool goes_on = true;
  for (Index step = saved; step < steps && goes_on; ++step) {
    const Index epoch = step / per_epoch, first = step % per_epoch * o.batch;
    if (o.shuffle && epoch != ordered) ordered = epoch, order = epoch_order(count, o.seed, static_cast<std::uint64_t>(epoch));
    batch.clear();
    for (Index i = first; i < std::min(first + o.batch, count); ++i)
      batch.push_back(examples[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
    if (through.to_weights) through.to_weights();
    zero_gradients(weights);
    if (o.reparametrize) zero_gradients(stepped);
    TrainStep now{.step = step, .steps = steps, .rate = schedule.rate(step)};
    ANYBIT_TRY(now.loss, detail::batch_loss(d, batch, gradients, o, step));
    if (through.gradients_from_weights) through.gradients_from_weights();
    now.gradient_norm = global_norm(stepped, o.loss.executor);
    if (!is_finite(now.loss) || !is_finite(now.gradient_norm))
      return {ErrorCode::not_finite,
              text("train: step ", step, " of ", steps, ": the loss is ", model::detail::number_text(now.loss),
                   " and the norm of the gradients ", model::detail::number_text(now.gradient_norm),
                   ": lower the learning rate; the weights are those before this step",
                   saved > 0 ? text(", and ", checkpoints.path, " holds step ", saved - 1) : std::string())};
    if (o.clip > 0) scale_gradients(stepped, now.gradient_norm, o.clip, o.loss.executor);
    adam.step(stepped, now.rate, o.loss.executor);
    if (through.after_step) through.after_step();
    log.push_back(now);
    if (checkpoints.every > 0 && (step + 1) % checkpoints.every == 0) ANYBIT_TRY_STATUS(save());
    goes_on = !on_step || on_step(now);
  }
  if (through.to_weights) through.to_weights();
  return save();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
