#pragma once
// The model, the texts and everything that recipes share, prepared once; then one row of the report a recipe.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <anybit/evaluate/choose_bits.hpp>
#include <anybit/evaluate/model.hpp>
#include <anybit/evaluate/report.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/load.hpp>

#include "options.hpp"
#include "recipes/recipe_book.hpp"
#include "shared/open_model.hpp"
#include "shared/progress.hpp"
#include "shared/prompts.hpp"

namespace tool {

/// Whether --target-bpw can choose among these: their errors must be comparable.
anybit::Status check_candidates(const std::vector<const anybit::model::ModelRecipe*>& recipes);

/// The recipes of these names or texts, each once; all of the book if there are none.
anybit::Result<std::vector<const anybit::model::ModelRecipe*>> find_recipes(RecipeBook& book,
                                                                            const std::vector<std::string>& names);
/// Recipes of the weights outside the blocks (embedding, head), null for the usual 8 bits.
struct OwnRecipes {
  const anybit::model::ModelRecipe *embedding = nullptr, *head = nullptr;
};
/// Those that the options name. They learn nothing.
anybit::Result<OwnRecipes> find_own_recipes(RecipeBook& book, const Options& options);

/// Whether recipes can take --guided, if that is given: one at least must read Hessians.
anybit::Status check_guidance(const Options& options, const std::vector<const anybit::model::ModelRecipe*>& recipes);

/// A quantized model.
struct Made {
  anybit::model::ModelPlan plan;
  anybit::model::QuantizedModel model;
  std::string description;  ///< as it stands in its file
  std::vector<std::string> remarks;
  double quantize_s = 0;
};

class Workbench {
 public:
  /// Loads the model, checks the texts, calibrates and, unless it is only to make models, runs the float model. `own`
  /// are recipes of embedding and output head.
  static anybit::Result<std::unique_ptr<Workbench>> prepare(const Options& options,
                                                            const std::vector<const anybit::model::ModelRecipe*>& recipes,
                                                            const OwnRecipes& own, Progress& progress);

  anybit::Result<anybit::evaluate::ReportRow> reference_row();
  /// The float model with the quantized KV cache that was asked for.
  anybit::Result<anybit::evaluate::ReportRow> cache_row();
  /// Quantizes, and writes the model to `save` unless that is empty.
  anybit::Result<Made> make(const anybit::model::ModelRecipe& recipe, const std::string& save);
  /// One model of `bits` bits per weight, by the recipes that were prepared: see docs/bits.md.
  anybit::Result<Made> make_allocated(double bits, const std::string& save);
  anybit::evaluate::ReportRow size_of(const Made& made) const;
  /// make(), and what it cost.
  anybit::Result<anybit::evaluate::ReportRow> row(const anybit::model::ModelRecipe& recipe, const std::string& save);

  /// Lines that say what quantizing by these recipes would cost.
  static anybit::Result<std::string> forecast(const Options& options,
                                              const std::vector<const anybit::model::ModelRecipe*>& recipes,
                                              const OwnRecipes& own, Progress& progress);

  anybit::Result<anybit::evaluate::ReportRow> allocated_row(double bits, const std::string& save);
  /// The recipe of each matrix in it, as SVG.
  std::string widths_picture() const;

  const anybit::model::Model& model() const { return *model_; }
  anybit::Index threads() const { return executor_.concurrency(); }
  anybit::Index calibration_tokens() const { return static_cast<anybit::Index>(calibration_text_.size()); }
  anybit::Index evaluation_tokens() const { return static_cast<anybit::Index>(windows_.tokens.size()); }
  const anybit::evaluate::Windows& windows() const { return windows_; }
  const anybit::evaluate::SpeedOptions& speed() const { return speed_; }
  /// About the texts.
  const std::vector<std::string>& remarks() const { return remarks_; }
  /// How to read the figures of this run.
  std::vector<std::string> notes() const;

 private:
  Workbench(const Options& options, Progress& progress)
      : options_(options), progress_(progress), pool_(thread_count(options.threads)), executor_(pool_) {}

  bool by_size() const { return !options_.target_bpw.empty(); }
  anybit::Status load_texts();
  /// Of an encoder-decoder, pairs of source and text.
  anybit::Status load_pairs();
  anybit::Result<std::vector<anybit::model::TokenId>> tokens_of(const std::string& text, const std::string& name,
                                                                anybit::Index wanted, bool asked_for, const char* option);
  anybit::Result<anybit::evaluate::Windows> windows_of(const std::vector<anybit::model::TokenId>& tokens) const;
  static anybit::Result<std::unique_ptr<Workbench>> open(const Options& options,
                                                         const std::vector<const anybit::model::ModelRecipe*>& recipes,
                                                         const OwnRecipes& own, Progress& progress);
  anybit::Status calibrate();
  /// With --guided, the Hessians of source_ that gradients weigh.
  anybit::Status guide();
  anybit::Result<anybit::model::QuantizedModel> quantize(const anybit::model::ModelPlan& plan,
                                                         const anybit::model::PackedEmbedding& embedding,
                                                         std::vector<std::string>& remarks);
  anybit::Status run_reference();
  anybit::Status pack_embedding();
  anybit::Status check_targets() const;
  /// Shared by the models of every target.
  anybit::Status measure_candidates();
  /// The candidate nearest to `bits`: the probe works where KL and error are to be related.
  const anybit::model::ModelRecipe* probe_for(double bits) const;
  anybit::Result<anybit::evaluate::BitCosts> find_costs(double bits);
  anybit::Result<Made> make(const anybit::model::ModelPlan& plan, const anybit::model::PackedEmbedding& embedding,
                            const std::string& description, const std::string& save);
  anybit::Result<anybit::evaluate::ReportRow> evaluated(const Made& made);
  /// Whether anything is learned from the calibration text.
  bool learns() const;
  /// Makes the model that recipes with this rotation quantize.
  anybit::Status rotate(const std::optional<anybit::model::RotationOptions>& rotation);
  anybit::Status compare(const anybit::model::Decoder& d, anybit::evaluate::ReportRow& row);
  void measure_size(const anybit::model::Decoder& d, anybit::evaluate::ReportRow& row) const;
  double quantization_share(anybit::Needs needs) const;
  void count_work(const std::vector<const anybit::model::ModelRecipe*>& recipes);

  /// The float model that recipes of one rotation quantize, what it was seen to do, and the parts that they share.
  struct Source {
    anybit::model::Decoder decoder;
    std::unique_ptr<anybit::model::ModelStats> calibration, held_out;
    std::unique_ptr<anybit::model::GuidedHessians> guided;
    anybit::model::PackedEmbedding embedding;
  };

  /// The work of finding what each linear is worth by one probe, and of measuring all candidates, in tokens of a forward pass
  /// that take as long.
  static constexpr double probe_share = 30000, candidates_share = 40000;
  /// Of a token's gradients with their Hessians, in the same unit.
  static constexpr double guided_share = 6;

  /// One quantized model's errors, and the KL of each of its linears by itself, in the order of ModelPlan::linears.
  struct Probe {
    std::vector<double> errors, kl;
  };

  Options options_;
  Progress& progress_;
  anybit::ThreadPool pool_;
  anybit::ExecutorRef executor_;
  std::unique_ptr<anybit::model::Model> model_;
  std::vector<const anybit::model::ModelRecipe*> recipes_;
  OwnRecipes own_recipes_;
  std::vector<anybit::model::TokenId> calibration_text_;
  std::vector<Prompt> calibration_pairs_;
  anybit::evaluate::Windows calibration_windows_;
  Source source_;
  anybit::evaluate::Windows windows_;
  anybit::evaluate::ReferenceLogits reference_;
  anybit::evaluate::SpeedOptions speed_;
  double embedding_error_ = 0;
  std::map<const anybit::model::ModelRecipe*, Probe> probes_;
  std::vector<std::vector<double>> candidate_errors_;  ///< of some blocks' linears, a row a recipe
  std::vector<const anybit::model::ModelRecipe*> embedding_recipes_;
  std::vector<double> embedding_kl_;
  anybit::model::ModelPlan allocated_;
  std::string embedding_{"8 bits in groups of 32 (8.5 bits"};  ///< what it is, for the notes
  std::string head_;                                           ///< what a head of its own recipe is, likewise
  double work_ = 1;                                            ///< all shares of the progress
  std::vector<std::string> remarks_;
};

}  // namespace tool
