// The workbench's part that uses the layer-wise driver: quantizing block by block, and forecasting.

#include <algorithm>
#include <cstdio>

#include <anybit/quantize/forecast.hpp>

#include "shared/printable.hpp"
#include "shared/text.hpp"
#include "workbench.hpp"

namespace tool {

using namespace anybit;
using model::ModelRecipe;

namespace {

std::vector<std::span<const model::TokenId>> spans(const evaluate::Windows& windows) {
  std::vector<std::span<const model::TokenId>> out;
  for (Index i = 0; i < windows.count(); ++i) out.push_back(windows.window(i));
  return out;
}

}  // namespace

Result<model::QuantizedModel> Workbench::quantize(const model::ModelPlan& plan, const model::PackedEmbedding& embedding,
                                                  std::vector<std::string>& remarks) {
  if (!options_.sequential) {
    model::QuantizeModelOptions options;
    options.strict = options_.strict;
    options.expert_share = options_.expert_share;
    options.executor = executor_;
    if (std::any_of(plan.linears.begin(), plan.linears.end(), [](const ModelRecipe* r) { return model::takes_guidance(*r); }))
      options.guided = source_.guided.get();
    options.progress = [&](Index done, Index total) { progress_.update(done, total); };
    return model::quantize_model(source_.decoder, *source_.calibration, plan, embedding, options);
  }
  model::LayerWiseOptions options;
  options.strict = options_.strict;
  options.expert_share = options_.expert_share;
  options.executor = executor_;
  options.true_sequential = options_.true_sequential;
  options.state = state_folder(options_, plan.name);
  options.progress = [&](const model::LayerWiseProgress& p) {
    progress_.update(p.block, p.blocks);
    return true;
  };
  auto windows = spans(calibration_windows_);
  std::vector<model::Source> sources;
  for (const Prompt& p : calibration_pairs_) windows.push_back(p.ids), sources.push_back(p.as_source());
  options.sources = sources;
  ANYBIT_TRY(model::LayerWiseModel done, model::quantize_layer_wise(source_.decoder, plan, windows, embedding, options));
  char text[200];
  const model::LayerWiseSeconds& s = done.seconds;
  std::snprintf(text, sizeof text, "block by block: %.1f s forward, %.1f s statistics, %.1f s quantizing, %.1f s state",
                s.forward, s.statistics, s.quantize, s.state);
  remarks.emplace_back(text);
  if (done.blocks_taken > 0) remarks.push_back(std::to_string(done.blocks_taken) + " blocks were taken from " + options.state);
  for (std::string& line : model::warnings(done.checks)) remarks.push_back(std::move(line));
  return std::move(done.quantized);
}

Result<std::string> Workbench::forecast(const Options& options, const std::vector<const ModelRecipe*>& recipes,
                                        const OwnRecipes& own, Progress& progress) {
  ANYBIT_TRY(const std::unique_ptr<Workbench> bench, open(options, recipes, own, progress));
  bench->options_.sequential = true;  // no statistics of the whole model
  ANYBIT_TRY_STATUS(bench->pack_embedding());
  std::string out;
  for (const std::string& line : bench->remarks_) out += line + "\n";
  char text[256];
  std::snprintf(text, sizeof text, "%-28s %12s %12s %14s  (%lld calibration tokens, %lld threads, layer by layer)\n", "recipe",
                "file MB", "memory MB", "quantizing", static_cast<long long>(bench->calibration_tokens()),
                static_cast<long long>(bench->threads()));
  out += text;
  for (const ModelRecipe* recipe : recipes) {
    ANYBIT_TRY_STATUS(bench->rotate(recipe->rotation));
    const model::Model source{bench->model_->name, bench->source_.decoder, bench->model_->tokenizer};
    model::LayerWiseOptions how;
    how.executor = bench->executor_;
    how.true_sequential = options.true_sequential;
    how.expert_share = options.expert_share;
    progress.begin(recipe->name + ": trying two blocks", 1, static_cast<double>(recipes.size()));
    const auto cost =
        model::forecast(source, model::uniform_plan(*recipe, source.decoder), spans(bench->calibration_windows_),
                        bench->source_.embedding, {.recipe = recipe->description, .source = utf8(options.model)}, how);
    progress.end();
    if (!cost) return in_context(cost.error(), recipe->name);
    std::snprintf(text, sizeof text, "%-28s %12.2f %12.0f %14s\n", recipe->name.c_str(),
                  static_cast<double>(cost->file_bytes) * 1e-6, static_cast<double>(cost->memory_bytes) * 1e-6,
                  duration_text(cost->seconds).c_str());
    out += text;
  }
  return out;
}

}  // namespace tool
