#include "study.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include <anybit/evaluate/model.hpp>
#include <anybit/quantize/model_stats.hpp>

namespace tool {

using namespace anybit;
using model::ModelRecipe;
using model::ModelStats;

namespace {

constexpr Index least_of_a_domain = 64, longest_of_a_domain = 512;

Result<evaluate::Windows> domain_windows(std::span<const model::TokenId> tokens, const model::Model& m) {
  const Index count = static_cast<Index>(tokens.size());
  const model::Vocabulary& v = m.tokenizer.vocabulary();
  return evaluate::llama_cpp_windows(tokens, std::min({longest_of_a_domain, m.decoder.config.context, count / 2}),
                                     v.add_bos ? v.bos : std::nullopt);
}

/// The float model's statistics and predictions, each domain once, and the rows that are made of them.
class DomainStudy {
 public:
  DomainStudy(const model::Decoder& d, const std::vector<Domain>& domains, const std::vector<const ModelRecipe*>& recipes,
              const DomainOptions& options)
      : decoder_(d), domains_(domains), recipes_(recipes), options_(options) {
    for (const ModelRecipe* r : recipes) needs_ = needs_ | r->needs;
    const auto n = static_cast<Index>(domains.size());
    const Index calibrations = n + (options.mixtures ? n * (n - 1) / 2 : 0);
    for (const ModelRecipe* r : recipes) steps_ += r->needs == Needs::none ? 1 : calibrations;
    steps_ += (needs_ == Needs::none ? n : 2 * n);
  }

  Result<std::vector<DomainMatrix>> run() {
    ANYBIT_TRY(embedding_, model::pack_embedding(decoder_));
    for (const Domain& domain : domains_) ANYBIT_TRY_STATUS(look_at(domain));
    std::vector<DomainMatrix> out;
    for (const ModelRecipe* r : recipes_) out.push_back({r->name, {}});
    for (std::size_t i = 0; i < domains_.size(); ++i) ANYBIT_TRY_STATUS(add_rows(stats_[i], i == 0, domains_[i].name, out));
    for (std::size_t i = 0; options_.mixtures && needs_ != Needs::none && i < domains_.size(); ++i)
      for (std::size_t k = i + 1; k < domains_.size(); ++k) {
        ModelStats both = stats_[i];
        ANYBIT_TRY_STATUS(both.merge(stats_[k]));
        ANYBIT_TRY_STATUS(add_rows(both, false, domains_[i].name + " + " + domains_[k].name, out));
      }
    return out;
  }

 private:
  void begin(const std::string& step) {
    if (options_.progress) options_.progress(step, done_, steps_);
    ++done_;
  }

  Status calibrate(const Domain& domain, ModelStats& to) const {
    for (Index i = 0; i < domain.calibration.count(); ++i)
      if (auto added = to.accumulate(decoder_, domain.calibration.window(i), options_.executor); !added)
        return in_context(added.error(), domain.name);
    return Ok{};
  }

  Status look_at(const Domain& domain) {
    stats_.emplace_back(decoder_, needs_);
    if (needs_ != Needs::none) {
      begin("calibrating on " + domain.name);
      ANYBIT_TRY_STATUS(calibrate(domain, stats_.back()));
    }
    begin("running the float model on " + domain.name);
    auto logits = evaluate::reference_logits(decoder_, domain.evaluation, options_.executor);
    if (!logits) return in_context(logits.error(), domain.name);
    for (const double nll : logits->nll())
      if (!is_finite(nll))
        return Error{ErrorCode::not_finite, domain.name +
                                                ": the float model's predictions are not finite; the model file is damaged or of "
                                                "another architecture"};
    references_.push_back(*std::move(logits));
    return Ok{};
  }

  /// A row of every recipe that learns, and of the others where `first`.
  Status add_rows(const ModelStats& stats, bool first, const std::string& calibration, std::vector<DomainMatrix>& out) {
    for (std::size_t r = 0; r < recipes_.size(); ++r) {
      const bool learns = recipes_[r]->needs != Needs::none;
      if (!learns && !first) continue;
      begin(recipes_[r]->name + (learns ? ", calibrated on " + calibration : std::string()));
      DomainMatrix::Row row{learns ? calibration : "none", {}};
      auto made = model::quantize_model(decoder_, stats, *recipes_[r], embedding_,
                                        {.expert_share = options_.expert_share, .executor = options_.executor});
      if (!made) return in_context(made.error(), recipes_[r]->name + ", calibrated on " + calibration);
      for (std::size_t e = 0; e < domains_.size(); ++e) {
        ANYBIT_TRY(const auto tokens,
                   evaluate::compare(references_[e], made->decoder, domains_[e].evaluation, options_.executor));
        row.kl.push_back(evaluate::kl_statistics(tokens).kl);
      }
      out[r].rows.push_back(std::move(row));
    }
    return Ok{};
  }

  const model::Decoder& decoder_;
  const std::vector<Domain>& domains_;
  const std::vector<const ModelRecipe*>& recipes_;
  const DomainOptions& options_;
  Needs needs_ = Needs::none;
  Index done_ = 0, steps_ = 0;
  model::PackedEmbedding embedding_;
  std::vector<ModelStats> stats_;
  std::vector<evaluate::ReferenceLogits> references_;
};

}  // namespace

Result<Domain> make_domain(const std::string& name, const std::string& file, const std::vector<model::TokenId>& tokens,
                           Index calibration, Index evaluation, const model::Model& m) {
  const Index has = static_cast<Index>(tokens.size());
  if (has < calibration + evaluation) {
    calibration = std::min(calibration, has / 2);
    evaluation = std::min(evaluation, has - calibration);
  }
  if (calibration < least_of_a_domain)
    return Error{ErrorCode::insufficient_data, file + ": has " + std::to_string(has) + " tokens, " +
                                                   std::to_string(2 * least_of_a_domain) +
                                                   " are needed to calibrate and evaluate; give a longer text"};
  const std::span<const model::TokenId> all(tokens);
  Domain out{name, {}, {}};
  ANYBIT_TRY(out.calibration, domain_windows(all.first(static_cast<std::size_t>(calibration)), m));
  ANYBIT_TRY(out.evaluation,
             domain_windows(all.subspan(static_cast<std::size_t>(calibration), static_cast<std::size_t>(evaluation)), m));
  return out;
}

Result<std::vector<DomainMatrix>> study_domains(const model::Decoder& d, const std::vector<Domain>& domains,
                                                const std::vector<const ModelRecipe*>& recipes, const DomainOptions& options) {
  return DomainStudy(d, domains, recipes, options).run();
}

}  // namespace tool
