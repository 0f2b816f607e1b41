// --target-bpw: which matrix gets how many bits.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include <anybit/evaluate/sensitivity.hpp>
#include <anybit/evaluate/widths_svg.hpp>

#include "workbench.hpp"

namespace tool {

using namespace anybit;
using model::ModelRecipe;

namespace {

constexpr Index sensitivity_windows = 2, sensitivity_window = 256, measured_blocks = 6;

/// Short windows, spread over the calibration text, nearly all of whose predictions count.
evaluate::Windows sensitivity_text(const std::vector<model::TokenId>& ids, Index context) {
  const auto tokens = static_cast<Index>(ids.size());
  evaluate::Windows w;
  w.length = std::min({sensitivity_window, context, tokens});
  w.first_scored = std::min<Index>(8, w.length / 4);
  const Index count = std::min(sensitivity_windows, tokens / w.length);
  for (Index i = 0; i < count; ++i) {
    const auto begin = ids.begin() + i * (tokens / count);
    w.tokens.insert(w.tokens.end(), begin, begin + w.length);
  }
  return w;
}

std::string bits_text(double bits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", bits);
  return text;
}

}  // namespace

Result<evaluate::BitCosts> Workbench::find_costs(double bits) {
  const model::Decoder& d = source_.decoder;
  const auto update = [&](Index done, Index total) { progress_.update(static_cast<double>(done), static_cast<double>(total)); };
  const evaluate::Windows text = sensitivity_text(calibration_text_, d.config.context);
  evaluate::BitCosts costs;
  costs.recipes = recipes_;

  // The probe works at the target, where KL and error are to be related.
  const Extents middle = d.blocks.front().gate.extents();
  const auto distance = [&](const ModelRecipe* r) { return std::abs(r->bits_per_weight(middle) - bits); };
  const ModelRecipe& probe = **std::min_element(
      recipes_.begin(), recipes_.end(), [&](const ModelRecipe* a, const ModelRecipe* b) { return distance(a) < distance(b); });
  progress_.begin("finding what each matrix is worth", sensitivity_share, work_);
  model::QuantizeModelOptions options;
  options.strict = options_.strict;
  options.executor = executor_;
  ANYBIT_TRY(const model::QuantizedModel probed,
             model::quantize_model(d, *source_.calibration, probe, source_.embedding, options));
  costs.probe_errors = evaluate::linear_errors(probed);
  ANYBIT_TRY(costs.probe_kl, evaluate::sensitivities(d, probed.decoder, text, executor_, update));
  progress_.end();

  const Index stride = std::max<Index>(1, d.config.blocks / measured_blocks);
  for (const ModelRecipe* r : recipes_) {
    progress_.begin(r->name + ": finding its errors",
                    static_cast<double>(options_.tokens_wanted()) / static_cast<double>(recipes_.size()), work_);
    ANYBIT_TRY(std::vector<double> errors,
               evaluate::recipe_errors(d, *source_.calibration, *r, costs.probe_errors, stride, executor_, update));
    costs.errors.push_back(std::move(errors));
    progress_.end();
  }

  // Errors of the embedding are felt at both ends of the model, so each candidate is measured by itself.
  ANYBIT_TRY(const evaluate::ReferenceLogits reference, evaluate::reference_logits(d, text, executor_));
  std::vector<const ModelRecipe*> candidates = recipes_;
  candidates.push_back(nullptr);
  for (const ModelRecipe* r : candidates) {
    if (r && r->needs != Needs::none && d.head) continue;  // a table of rows that nothing multiplies has no Hessian
    progress_.begin("embedding by " + (r ? r->name : std::string("8 bits")),
                    static_cast<double>(options_.tokens_wanted()) / static_cast<double>(candidates.size()), work_);
    model::ModelPlan plan;
    plan.embedding = r;
    QuantizeOptions of_embedding;
    of_embedding.strict = options_.strict;
    of_embedding.executor = executor_;
    ANYBIT_TRY(const model::PackedEmbedding packed, model::pack_embedding(d, plan, source_.calibration->head(), of_embedding));
    model::Decoder changed = d;
    changed.token_embedding = model::Linear(packed.embedding);
    if (packed.head) changed.head = model::Linear(*packed.head);
    ANYBIT_TRY(const auto tokens, evaluate::compare(reference, changed, text, executor_, update));
    costs.embedding_recipes.push_back(r);
    costs.embedding_kl.push_back(evaluate::kl_statistics(tokens).kl.value);
    progress_.end();
  }
  return costs;
}

Result<evaluate::ReportRow> Workbench::allocated_row(double bits, const std::string& save) {
  ANYBIT_TRY_STATUS(rotate(recipes_.front()->rotation));
  const model::Decoder& d = source_.decoder;
  for (const ModelRecipe* r : recipes_)
    if (r->transforms)
      return Error{ErrorCode::unsupported, "--target-bpw: recipe " + r->name +
                                               " rewrites siblings together, so that none has an error of its own; name "
                                               "recipes without transforms (gptq-..., nearest-...)"};
  for (const ModelRecipe* r : recipes_)
    if (covers(r->needs, Needs::hessian) != covers(recipes_.front()->needs, Needs::hessian))
      return Error{ErrorCode::unsupported, "--target-bpw: the output errors of " + recipes_.front()->name + " and " + r->name +
                                               " cannot be compared, one knows the inputs' Hessian, the other does not; name "
                                               "recipes of one kind"};
  // A target that cannot be had is found before anything is measured.
  evaluate::BitCosts free;
  free.recipes = recipes_;
  free.probe_errors.assign(static_cast<std::size_t>(model::linears_per_block * d.config.blocks), 1.0);
  free.probe_kl = free.probe_errors;
  free.errors.assign(recipes_.size(), free.probe_errors);
  free.embedding_recipes.push_back(nullptr);
  for (const ModelRecipe* r : recipes_)
    if (r->needs == Needs::none || !d.head) free.embedding_recipes.push_back(r);
  free.embedding_kl.assign(free.embedding_recipes.size(), 0.0);
  const Index weights = evaluate::quantized_weights(d);
  const auto budget = static_cast<Index>(std::floor(bits * static_cast<double>(weights) / 8));
  const std::string name = "mixed-" + bits_text(bits);
  if (auto possible = evaluate::choose_bits(d, free, budget, name); !possible)
    return in_context(possible.error(), "--target-bpw " + bits_text(bits));

  ANYBIT_TRY(const evaluate::BitCosts costs, find_costs(bits));
  ANYBIT_TRY(const evaluate::BitChoice choice, evaluate::choose_bits(d, costs, budget, name));
  allocated_ = choice.plan;
  QuantizeOptions options;
  options.strict = options_.strict;
  options.executor = executor_;
  ANYBIT_TRY(const model::PackedEmbedding embedding, model::pack_embedding(d, choice.plan, source_.calibration->head(), options));
  std::map<std::string, Index> count;
  for (const ModelRecipe* r : choice.plan.linears) ++count[r->name];
  std::string shares;
  for (const auto& [recipe, n] : count) shares += (shares.empty() ? "" : ", ") + std::to_string(n) + " by " + recipe;
  const std::string outside = choice.plan.embedding ? choice.plan.embedding->name : "8 bits in groups of 32";
  ANYBIT_TRY(evaluate::ReportRow result,
             row(choice.plan, embedding, name + " (" + shares + "; embedding: " + outside + ")", save));
  char text[200];
  std::snprintf(text, sizeof text, "%.4f bits a weight, %lld bytes for %lld weights; expected KL %.4g.", choice.bits_per_weight(),
                static_cast<long long>(choice.bytes), static_cast<long long>(choice.weights), choice.expected_kl);
  result.remarks.insert(result.remarks.begin(), {"of the linears " + shares + "; embedding: " + outside + ".", text});
  for (const auto& report : {embedding.embedding_report, embedding.head_report})
    for (const std::string& f : report.fallbacks) result.remarks.push_back("embedding: " + f);
  return result;
}

std::string Workbench::widths_picture() const {
  return evaluate::widths_svg(allocated_, source_.decoder, model_->name + ", " + allocated_.name);
}

}  // namespace tool
