#pragma once
// How calibration by one kind of text serves another: KL from the float model, for each recipe, domain that calibrates and domain
// that evaluates.

#include <functional>
#include <string>
#include <vector>

#include <anybit/evaluate/perplexity.hpp>
#include <anybit/evaluate/statistics.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/model/model.hpp>
#include <anybit/quantize/any_recipe.hpp>
#include <anybit/quantize/one_shot.hpp>

namespace tool {

/// A kind of text. Tokens that calibrate are none of those that evaluate.
struct Domain {
  std::string name;
  anybit::evaluate::Windows calibration, evaluation;
};

/// Models of one recipe. Rows are domains that calibrate, then pairs of them; columns are domains that evaluate.
struct DomainMatrix {
  std::string recipe;
  struct Row {
    std::string calibration;                     ///< "code", "prose + code"; "none" for a recipe that learns nothing
    std::vector<anybit::evaluate::Estimate> kl;  ///< nats, by domain
  };
  std::vector<Row> rows;
};

struct DomainOptions {
  bool mixtures = true;
  float expert_share = anybit::model::default_expert_share;
  anybit::ExecutorRef executor{};
  /// Told before each step of a known number of them.
  std::function<void(const std::string& step, anybit::Index done, anybit::Index total)> progress{};
};

/// The first tokens of a file calibrate, those that follow evaluate: `calibration` and `evaluation` of them, or half of the file
/// each where it has fewer. An error where that is less than 64.
anybit::Result<Domain> make_domain(const std::string& name, const std::string& file,
                                   const std::vector<anybit::model::TokenId>& tokens, anybit::Index calibration,
                                   anybit::Index evaluation, const anybit::model::Model& m);

/// A matrix per recipe. The sums and Hessians of a mixture are those of all tokens of both domains, so that each weighs as much
/// as it has tokens. Recipes quantize the model as it is: none of them rotates it.
anybit::Result<std::vector<DomainMatrix>> study_domains(const anybit::model::Decoder& d, const std::vector<Domain>& domains,
                                                        const std::vector<const anybit::model::ModelRecipe*>& recipes,
                                                        const DomainOptions& options);

}  // namespace tool
