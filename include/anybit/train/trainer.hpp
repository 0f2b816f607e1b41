#pragma once
// Training of a decoder on examples: batches in a seeded order, gradients by micro-batches, clipping, a schedule, AdamW.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/number_text.hpp>
#include <anybit/train/data_order.hpp>
#include <anybit/train/loss.hpp>
#include <anybit/train/optimizer.hpp>
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
};

/// One step, as on_step is told it.
struct TrainStep {
  Index step = 0, steps = 0;  ///< from 0; of the whole run
  double loss = 0;            ///< mean over the predictions of the batch, before the step
  double gradient_norm = 0;   ///< before clipping
  double rate = 0;
};

/// Trains the tensors of `d` that `trained` names; others stay shared with copies of d. Ends early where on_step returns false. A
/// loss or gradient that is not finite is an error that names the step, which is not taken: the weights are those of the step
/// before. The same bits for any number of threads and for any micro-batch of one size.
inline Status train_decoder(model::Decoder& d, std::span<const Example> examples, const Trained& trained, const TrainOptions& o,
                            const std::function<bool(const TrainStep&)>& on_step = {}) {
  using io::detail::text;
  const auto count = static_cast<Index>(examples.size());
  if (count == 0) return {ErrorCode::insufficient_data, "train: no examples: give at least one"};
  ANYBIT_CHECK(o.batch > 0 && o.epochs >= 0 && o.micro_batch >= 0,
               "train_decoder: batch, epochs and micro-batch must be positive");
  Gradients gradients = make_gradients(d, trained);
  const std::vector<Parameter> all = parameters(d, gradients);
  if (all.empty())
    return {ErrorCode::invalid_argument, "train: nothing is trained: the model has no float weights or adapters of these names"};
  AdamW adam(o.adamw, all);
  const Index per_epoch = ceil_div(count, o.batch);
  TrainStep now{.steps = per_epoch * o.epochs};
  Schedule schedule = o.schedule;
  if (schedule.steps == 0) schedule.steps = now.steps;
  LossOptions loss_options = o.loss;
  std::uint64_t pieces = 0;  // micro-batches so far
  for (Index epoch = 0; epoch < o.epochs; ++epoch) {
    std::vector<Index> order(examples.size());
    std::iota(order.begin(), order.end(), Index{0});
    if (o.shuffle) order = epoch_order(count, o.seed, static_cast<std::uint64_t>(epoch));
    for (Index first = 0; first < count; first += o.batch, ++now.step) {
      std::vector<Example> batch;
      for (Index i = first; i < std::min(first + o.batch, count); ++i)
        batch.push_back(examples[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
      loss_options.divisor = static_cast<double>(std::max<Index>(predictions(batch), 1));
      zero_gradients(all);
      const auto size = static_cast<std::size_t>(o.micro_batch > 0 ? o.micro_batch : o.batch);
      double sum = 0;
      for (std::size_t begin = 0; begin < batch.size(); begin += size) {
        loss_options.dropout.step = pieces++;
        const auto piece = std::span<const Example>(batch).subspan(begin, std::min(size, batch.size() - begin));
        if (predictions(piece) == 0 && predictions(batch) > 0) continue;
        ANYBIT_TRY(const Loss loss, loss_and_gradients(d, piece, gradients, loss_options));
        sum += loss.sum;
      }
      now.loss = sum / loss_options.divisor, now.rate = schedule.rate(now.step);
      now.gradient_norm = global_norm(all, o.loss.executor);
      if (!is_finite(now.loss) || !is_finite(now.gradient_norm))
        return {ErrorCode::not_finite,
                text("train: step ", now.step, " of ", now.steps, ": the loss is ", model::detail::number_text(now.loss),
                     " and the norm of the gradients ", model::detail::number_text(now.gradient_norm),
                     ": lower the learning rate; the weights are those before this step")};
      if (o.clip > 0) scale_gradients(all, now.gradient_norm, o.clip, o.loss.executor);
      adam.step(all, now.rate, o.loss.executor);
      if (on_step && !on_step(now)) return Ok{};
    }
  }
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
