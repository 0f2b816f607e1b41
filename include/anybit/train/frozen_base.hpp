#pragma once
// The linears of a model as packed codes and back: the frozen base of QLoRA (Dettmers et al., arXiv:2305.14314), and what becomes
// of it when adapters are merged.

#include <anybit/core/macros_begin.hpp>

#include <memory>
#include <utility>

#include <anybit/calibrate/stats.hpp>
#include <anybit/model/decoder.hpp>
#include <anybit/quantize/any_recipe.hpp>
#include <anybit/train/lora.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

/// Every float linear of the blocks by a recipe that needs no calibration; biases and adapters stay. Embedding, head and norms
/// stay floats, as in QLoRA.
inline Status pack_blocks(model::Decoder& d, const model::ModelRecipe& recipe, ExecutorRef executor = {}) {
  using io::detail::text;
  if (recipe.needs != Needs::none || recipe.rotation || recipe.transforms || rounds_to_int8(recipe.compute))
    return {ErrorCode::unsupported,
            text("recipe ", recipe.name,
                 " rounds activations, or changes more than the weights of a linear: give one that rounds "
                 "weights to nearest, such as nearest nf4/g64/dq256")};
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    nn::Linear& l = d.weights[i].linear;
    if (spec.role != model::Role::linear || !spec.quantizable || spec.block == model::no_block || !l.dense()) continue;
    const ConstMatrix weights[] = {l.dense()->view()};
    auto packed =
        recipe.quantize(model::Upstream::nothing, weights, Stats(l.extents().cols, Needs::none), {.executor = executor});
    if (!packed) return in_context(packed.error(), spec.name);
    l = l.with_weights(nn::Linear(std::move(packed->packed.front()), recipe.compute));
  }
  return Ok{};
}

/// Every packed linear as the floats that its codes mean.
inline void unpack_all(model::Decoder& d, ExecutorRef executor = {}) {
  for (model::Weight& w : d.weights) {
    if (!w.linear.packed()) continue;
    Matrix floats(w.linear.extents().rows, w.linear.extents().cols);
    executor.parallel_for(floats.rows(), 8, [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) w.linear.read_row(r, floats.view().row(r));
    });
    w.linear = w.linear.with_weights(nn::Linear(std::move(floats)));
  }
}

/// Adapters added to what the codes mean: a float model with the same answers, which pack_blocks() can round again.
inline Status merge_into_floats(model::Decoder& d, ExecutorRef executor = {}) {
  unpack_all(d, executor);
  return merge_adapters(d, executor);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
