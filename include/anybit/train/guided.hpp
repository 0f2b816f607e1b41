#pragma once
// The Hessians of GuidedQuant (Kim et al. 2025, arXiv:2505.07004) from a model's own backward pass.

#include <anybit/core/macros_begin.hpp>

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/quantize/guided.hpp>
#include <anybit/train/loss.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

struct GuidedOptions {
  Index groups = 4;  ///< of the outputs of each linear
  ExecutorRef executor{};
  /// Told after each example.
  std::function<void(Index done, Index total)> progress{};
};

/// Per linear of the blocks, over the tokens of all examples: gradients of the summed cross entropy of every prediction that
/// counts. Examples run one after the other. Memory: 4 n^2 bytes per group of a linear of n inputs. An error for a model without
/// a backward pass (encoders), for a linear of fewer outputs than groups, and where gradients are not finite. The same bits for
/// any number of threads.
inline Result<model::GuidedHessians> guided_hessians(const model::Decoder& d, std::span<const Example> examples,
                                                     const GuidedOptions& options = {}) {
  if (examples.empty()) return {ErrorCode::insufficient_data, "guided: no examples: give at least one"};
  ANYBIT_TRY(model::GuidedHessians out, model::GuidedHessians::make(d, options.groups));
  Gradients none(d.weights.size());
  Status status = Ok{};
  LossOptions loss;
  loss.executor = options.executor;
  loss.divisor = 1;  // every token counts alike, whatever the length of its example
  loss.on_linear = [&](model::WeightId id, ConstMatrix x, ConstMatrix dy) {
    GuidedHessian* const of = out.find(id);
    if (!of || !status) return;
    if (auto added = of->accumulate(x, dy, options.executor); !added) status = in_context(added.error(), (*d.blueprint)[id].name);
  };
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const auto done = loss_and_gradients(d, examples.subspan(i, 1), none, loss);
    if (!done) return in_context(done.error(), "guided: example " + std::to_string(i));
    if (!status) return in_context(status.error(), "example " + std::to_string(i));
    if (options.progress) options.progress(static_cast<Index>(i) + 1, static_cast<Index>(examples.size()));
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
