// The workbench's part that runs backward passes: --guided.

#include <anybit/train/guided.hpp>

#include "workbench.hpp"

namespace tool {

using namespace anybit;
using model::ModelRecipe;

Status check_guidance(const Options& options, const std::vector<const ModelRecipe*>& recipes) {
  if (options.guided == 0) return Ok{};
  model::ModelPlan all;
  all.linears = recipes;
  if (auto possible = model::check_guided(all, options.guided); !possible) return in_context(possible.error(), "--guided");
  return Ok{};
}

Status Workbench::guide() {
  if (options_.guided == 0) return Ok{};
  if (!calibration_pairs_.empty())
    return Error{ErrorCode::unsupported,
                 options_.model + ": is an encoder-decoder, whose gradients are not known here: leave out --guided"};
  std::vector<train::Example> examples;
  for (Index i = 0; i < calibration_windows_.count(); ++i) examples.push_back({calibration_windows_.window(i)});
  progress_.begin("finding gradients", guided_share * static_cast<double>(calibration_text_.size()), work_);
  train::GuidedOptions how;
  how.groups = options_.guided, how.executor = executor_;
  how.progress = [&](Index done, Index total) { progress_.update(done, total); };
  auto found = train::guided_hessians(source_.decoder, examples, how);
  if (!found) return in_context(found.error(), "--guided");
  source_.guided = std::make_unique<model::GuidedHessians>(*std::move(found));
  progress_.end();
  return Ok{};
}

}  // namespace tool
