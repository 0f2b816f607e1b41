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

constexpr Index measured_blocks = 6;

Index measured_stride(const model::Decoder& d) { return std::max<Index>(1, d.config.blocks / measured_blocks); }

Index bytes_for(const model::Decoder& d, double bits) {
  return static_cast<Index>(std::floor(bits * static_cast<double>(evaluate::quantized_weights(d)) / 8));
}

}  // namespace

Status check_candidates(const std::vector<const ModelRecipe*>& recipes) {
  for (const ModelRecipe* r : recipes) {
    if (r->transforms)
      return Error{ErrorCode::unsupported, "--target-bpw: recipe " + r->name +
                                               " rewrites siblings together, so that none has an error of its own; name "
                                               "recipes without transforms (gptq-..., nearest-...)"};
    if (covers(r->needs, Needs::hessian) != covers(recipes.front()->needs, Needs::hessian))
      return Error{ErrorCode::unsupported, "--target-bpw: the output errors of " + recipes.front()->name + " and " + r->name +
                                               " cannot be compared, one knows the inputs' Hessian, the other does not; name "
                                               "recipes of one kind"};
  }
  return Ok{};
}

/// An error where a target cannot be had, before anything is measured.
Status Workbench::check_targets() const {
  const model::Decoder& d = model_->decoder;
  evaluate::BitCosts free;
  free.recipes = recipes_;
  free.probe_errors.assign(d.blueprint->linears.size(), 1.0);
  free.probe_kl = free.probe_errors;
  free.errors.assign(recipes_.size(), free.probe_errors);
  free.embedding_recipes.push_back(nullptr);
  for (const ModelRecipe* r : recipes_)
    if (r->needs == Needs::none || !d.has_head()) free.embedding_recipes.push_back(r);
  free.embedding_kl.assign(free.embedding_recipes.size(), 0.0);
  for (const double bits : options_.target_bpw)
    if (auto possible = evaluate::choose_bits(d, free, bytes_for(d, bits), mixed_name(bits)); !possible)
      return in_context(possible.error(), "--target-bpw");
  return Ok{};
}

const ModelRecipe* Workbench::probe_for(double bits) const {
  const auto distance = [&](const ModelRecipe* r) { return std::abs(r->bits_per_weight({4096, 4096}) - bits); };
  return *std::min_element(recipes_.begin(), recipes_.end(),
                           [&](const ModelRecipe* a, const ModelRecipe* b) { return distance(a) < distance(b); });
}

Status Workbench::measure_candidates() {
  const model::Decoder& d = source_.decoder;
  const auto update = [&](Index done, Index total) { progress_.update(done, total); };
  std::vector<std::vector<double>> of_linears;
  const double errors_share = 0.5 * candidates_share / static_cast<double>(recipes_.size());
  for (const ModelRecipe* r : recipes_) {
    progress_.begin(r->name + ": finding its errors", errors_share, work_);
    ANYBIT_TRY(std::vector<double> errors,
               evaluate::recipe_errors(d, *source_.calibration, *r, measured_stride(d), executor_, update));
    of_linears.push_back(std::move(errors));
    progress_.end();
  }

  // Errors of the embedding are felt at both ends of the model, so each candidate is measured by itself.
  const evaluate::Windows text = evaluate::sensitivity_text(calibration_text_, d.config.context);
  ANYBIT_TRY(const evaluate::ReferenceLogits reference, evaluate::reference_logits(d, text, executor_));
  std::vector<const ModelRecipe*> candidates = recipes_;
  candidates.push_back(nullptr);
  embedding_recipes_.clear(), embedding_kl_.clear();
  for (const ModelRecipe* r : candidates) {
    if (r && r->needs != Needs::none && d.has_head()) continue;  // a table of rows that nothing multiplies has no Hessian
    progress_.begin("embedding by " + (r ? r->name : std::string("8 bits")), errors_share, work_);
    model::ModelPlan plan;
    plan.embedding = r;
    QuantizeOptions of_embedding;
    of_embedding.strict = options_.strict;
    of_embedding.executor = executor_;
    ANYBIT_TRY(const model::PackedEmbedding packed, model::pack_embedding(d, plan, source_.calibration->head(), of_embedding));
    model::Decoder changed = d;
    changed.token_embedding() = nn::Linear(packed.embedding);
    if (packed.head) changed.head() = nn::Linear(*packed.head);
    ANYBIT_TRY(const auto tokens, evaluate::compare(reference, changed, text, executor_, update));
    embedding_recipes_.push_back(r);
    embedding_kl_.push_back(evaluate::kl_statistics(tokens).kl.value);
    progress_.end();
  }
  candidate_errors_ = std::move(of_linears);  // all or nothing, for the next target asks again
  return Ok{};
}

Result<evaluate::BitCosts> Workbench::find_costs(double bits) {
  const model::Decoder& d = source_.decoder;
  if (candidate_errors_.empty()) {
    ANYBIT_TRY_STATUS(measure_candidates());
  }
  const ModelRecipe* const by = probe_for(bits);
  Probe& probe = probes_[by];
  if (probe.kl.empty()) {
    progress_.begin(by->name + ": finding what each matrix is worth", probe_share, work_);
    model::QuantizeModelOptions options;
    options.strict = options_.strict;
    options.executor = executor_;
    ANYBIT_TRY(const model::QuantizedModel probed,
               model::quantize_model(d, *source_.calibration, *by, source_.embedding, options));
    ANYBIT_TRY(probe.kl,
               evaluate::sensitivities(d, probed.decoder, evaluate::sensitivity_text(calibration_text_, d.config.context),
                                       executor_, [&](Index done, Index total) { progress_.update(done, total); }));
    probe.errors = evaluate::linear_errors(probed);
    progress_.end();
  }
  evaluate::BitCosts costs;
  costs.recipes = recipes_;
  costs.probe_errors = probe.errors, costs.probe_kl = probe.kl;
  for (const std::vector<double>& errors : candidate_errors_)
    costs.errors.push_back(evaluate::spread_errors(*d.blueprint, errors, probe.errors, measured_stride(d)));
  costs.embedding_recipes = embedding_recipes_, costs.embedding_kl = embedding_kl_;
  return costs;
}

Result<evaluate::ReportRow> Workbench::allocated_row(double bits, const std::string& save) {
  ANYBIT_TRY(const Made made, make_allocated(bits, save));
  return evaluated(made);
}

Result<Made> Workbench::make_allocated(double bits, const std::string& save) {
  ANYBIT_TRY_STATUS(rotate(recipes_.front()->rotation));
  const model::Decoder& d = source_.decoder;
  const std::string name = mixed_name(bits);
  ANYBIT_TRY(const evaluate::BitCosts costs, find_costs(bits));
  ANYBIT_TRY(const evaluate::BitChoice choice, evaluate::choose_bits(d, costs, bytes_for(d, bits), name));
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
  ANYBIT_TRY(Made result, make(choice.plan, embedding, name + " (" + shares + "; embedding: " + outside + ")", save));
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
