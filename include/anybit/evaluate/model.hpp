#pragma once
// Runs models over windows of a text: the float model once, whose logits are stored, and each quantized model against it.

#include <anybit/core/macros_begin.hpp>

#include <chrono>
#include <random>
#include <string>
#include <vector>

#include <anybit/evaluate/kl.hpp>
#include <anybit/evaluate/layer_error.hpp>
#include <anybit/evaluate/losses.hpp>
#include <anybit/evaluate/perplexity.hpp>
#include <anybit/model/run.hpp>
#include <anybit/quantize/one_shot.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// The reference's logits at every scored position. Its inputs to every linear go into `inputs`, if given.
inline Result<ReferenceLogits> reference_logits(const model::Decoder& d, const Windows& windows, ExecutorRef executor,
                                                model::ModelStats* inputs = nullptr, const OnProgress& progress = {},
                                                ReferenceStorage storage = ReferenceStorage::float32) {
  ANYBIT_TRY_STATUS(model::check_is_decoder(d, "logits of the reference"));
  ReferenceLogits reference(windows.scored(), d.config.vocabulary, storage);
  nn::KvCache cache(model::cache_shape(d.config), windows.length);
  for (Index i = 0; i < windows.count(); ++i) {
    cache.clear();
    ANYBIT_TRY(const Matrix hidden, inputs ? inputs->accumulate(d, windows.window(i), executor)
                                           : model::hidden_states(d, windows.window(i), cache, {executor}));
    const auto targets = windows.targets(i);
    const Index per_window = windows.scored_per_window();
    detail::for_scored_positions(d, windows, i, hidden.view(), executor, [&](Index position, std::span<const float> logits) {
      reference.set(position, logits, targets[static_cast<std::size_t>(position % per_window)]);
    });
    if (progress) progress(i + 1, windows.count());
  }
  return reference;
}

/// A model, with a cache of the kind `kv`, against the remembered reference, position by position.
inline Result<std::vector<TokenComparison>> compare(const ReferenceLogits& reference, const model::Decoder& d,
                                                    const Windows& windows, ExecutorRef executor, const OnProgress& progress = {},
                                                    const nn::KvCacheConfig& kv = {}) {
  ANYBIT_TRY_STATUS(model::check_is_decoder(d, "comparison"));
  ANYBIT_TRY_STATUS(check(kv, model::cache_shape(d.config)));
  std::vector<TokenComparison> tokens(static_cast<std::size_t>(windows.scored()));
  nn::KvCache cache(model::cache_shape(d.config), windows.length, kv);
  for (Index i = 0; i < windows.count(); ++i) {
    cache.clear();
    ANYBIT_TRY(const Matrix hidden, model::hidden_states(d, windows.window(i), cache, {executor}));
    detail::for_scored_positions(d, windows, i, hidden.view(), executor, [&](Index position, std::span<const float> logits) {
      tokens[static_cast<std::size_t>(position)] = reference.compare(position, logits);
    });
    if (progress) progress(i + 1, windows.count());
  }
  return tokens;
}

/// ||y - y_q||_F / ||y||_F of every quantized linear, in the order of `quantized.layers`, for the inputs that the float model
/// gave it (`inputs` keeps samples). What the product itself adds, such as 8-bit activations, is in it.
inline std::vector<double> layer_errors(const model::Decoder& source, const model::QuantizedModel& quantized,
                                        const model::ModelStats& inputs, ExecutorRef executor) {
  std::vector<double> errors(quantized.layers.size());
  const model::Blueprint& blueprint = *source.blueprint;
  executor.parallel_for(static_cast<Index>(errors.size()), 1, [&](Index begin, Index end) {
    Workspace workspace;
    for (Index item = begin; item < end; ++item) {
      const model::QuantizedLayer& layer = quantized.layers[static_cast<std::size_t>(item)];
      const model::WeightId id = blueprint[layer.site].readers[layer.sibling];
      const nn::Linear& exact = source[id].linear;
      const nn::Linear& packed = quantized.decoder[id].linear;
      const ConstMatrix x = inputs.at(layer.site, Needs::samples).samples();
      if (x.rows == 0) continue;  // an expert that no token went to
      Matrix scaled(x), y(x.rows, exact.extents().rows), q(x.rows, exact.extents().rows);
      for (Index t = 0; !layer.input_scale.empty() && t < x.rows; ++t)
        for (Index j = 0; j < x.cols; ++j) scaled(t, j) /= layer.input_scale[static_cast<std::size_t>(j)];
      exact.apply(x, y.view(), {}, workspace);
      packed.apply(scaled.view(), q.view(), {}, workspace);
      for (Index t = 0; !layer.output_scale.empty() && t < x.rows; ++t)
        for (Index r = 0; r < q.cols(); ++r) q(t, r) *= layer.output_scale[static_cast<std::size_t>(r)];
      RelativeError e;
      e.add(y.view(), q.view());
      errors[static_cast<std::size_t>(item)] = e.value();
    }
  });
  return errors;
}

struct SpeedOptions {
  Index prompt_tokens = 128, decode_tokens = 16, repetitions = 3;
  nn::KvCacheConfig kv{};
};
struct Speed {
  double prompt_tokens_per_s = 0, decode_tokens_per_s = 0;
};

/// As llama-bench measures it, with smaller sizes: a prompt of random tokens in one pass of which only the last logits are
/// made, and single random tokens decoded from an empty context. The median of the repetitions, after one to warm up.
inline Result<Speed> measure_speed(const model::Decoder& d, ExecutorRef executor, const SpeedOptions& options = {}) {
  ANYBIT_TRY_STATUS(model::check_is_decoder(d, "speed"));
  ANYBIT_TRY_STATUS(check(options.kv, model::cache_shape(d.config)));
  std::mt19937 random(1);
  std::vector<model::TokenId> ids(static_cast<std::size_t>(std::max(options.prompt_tokens, options.decode_tokens)));
  for (auto& id : ids) id = static_cast<model::TokenId>(random() % static_cast<unsigned long>(d.config.vocabulary));
  nn::KvCache cache(model::cache_shape(d.config), static_cast<Index>(ids.size()), options.kv);
  const model::Run run{.executor = executor, .last_only = true};
  using Clock = std::chrono::steady_clock;
  std::vector<double> prompt, decode;
  for (Index repetition = 0; repetition <= options.repetitions; ++repetition) {
    cache.clear();
    const auto start = Clock::now();
    ANYBIT_TRY(const Matrix last,
               model::forward(d, std::span(ids).first(static_cast<std::size_t>(options.prompt_tokens)), cache, run));
    const auto middle = Clock::now();
    cache.clear();
    for (Index t = 0; t < options.decode_tokens; ++t) {
      ANYBIT_TRY(const Matrix next, model::forward(d, std::span(ids).subspan(static_cast<std::size_t>(t), 1), cache, run));
    }
    const auto end = Clock::now();
    if (repetition == 0) continue;
    prompt.push_back(static_cast<double>(options.prompt_tokens) / std::chrono::duration<double>(middle - start).count());
    decode.push_back(static_cast<double>(options.decode_tokens) / std::chrono::duration<double>(end - middle).count());
  }
  return Speed{percentile(sorted(prompt), 0.5), percentile(sorted(decode), 0.5)};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
