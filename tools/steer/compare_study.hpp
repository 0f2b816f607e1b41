#pragma once
// The measurements of `anybit steer compare`: the float model once, then every quantized model with the same stimuli.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <anybit/evaluate/model.hpp>
#include <anybit/steer/bootstrap.hpp>
#include <anybit/steer/mechanism.hpp>
#include <anybit/steer/states.hpp>

#include "recipes/recipe_book.hpp"
#include "shared/progress.hpp"
#include "steer/shared.hpp"

namespace tool {

struct CompareOptions : StimuliOptions {
  std::vector<std::string> recipes;
  std::string calibrate, evaluate, wanted = " high", other = " low", blocks, svg;
  std::vector<double> coefficients{2, 4, 8}, keep;
  anybit::Index calibration_tokens = 2048, kl_tokens = 1024, steered = 8, leakage_blocks = 4;
};

/// A mean over what was tested, and its bootstrap interval.
using anybit::steer::MeanInterval;

/// One model's figures.
struct Measured {
  std::vector<anybit::steer::BlockReading> blocks;
  MeanInterval pairs, pairs_of_float_direction;  ///< test accuracy, mean of the blocks
  double cosine = 0, least_cosine = 0;           ///< to the float directions: mean and least of the blocks
  MeanInterval probe, float_probe;               ///< test accuracy in the best block: fitted anew, and as fitted on floats
  std::vector<MeanInterval> effect;              ///< per coefficient: logit difference at +c minus that at -c
  /// The largest ‖rᵀ W‖ / ‖W‖ of weights that were projected along r before they were quantized: r read on floats, r read on this
  /// model, and the larger of both after reproject().
  std::optional<double> leakage, own_leakage, leakage_after;
  std::optional<double> kl;  ///< from the float model
};

/// One row of the report.
struct CompareRow {
  std::string recipe, method;  ///< method: "nearest", "gptq", "awq"
  double bits = 0;             ///< per weight of the blocks; 0 for floats
  double keep = 0;             ///< lambda of keep_directions()
  Measured measured;
};

class Study {
 public:
  Study(const CompareOptions& o, const anybit::model::Model& m, BlockRange blocks, anybit::steer::SplitStimuli stimuli,
        anybit::ExecutorRef executor)
      : o_(o), m_(m), blocks_(blocks), stimuli_(std::move(stimuli)), executor_(executor) {}

  /// Before all others. `text` is what KL is measured on; empty: no KL.
  anybit::Status measure_float(std::span<const anybit::model::TokenId> text, Progress& progress);
  anybit::Result<Measured> measure(const anybit::model::Decoder& d, Progress& progress) const;
  const Measured& of_float() const { return float_; }
  std::size_t best_block() const { return best_; }
  std::size_t test_pairs() const { return stimuli_.test.size() / 2; }
  std::size_t train_pairs() const { return stimuli_.train.size() / 2; }
  /// The direction of the best block: what is projected.
  std::span<const double> direction() const { return float_.blocks[best_].direction.direction.vector; }
  /// Those of the blocks that are averaged over.
  std::vector<anybit::steer::BlockDirection> directions() const;

 private:
  struct Read {
    std::vector<anybit::Matrix> train, test;
  };
  std::size_t first() const { return static_cast<std::size_t>(blocks_.first); }
  std::size_t last() const { return static_cast<std::size_t>(blocks_.last) + 1; }
  anybit::Result<Read> read_states(const anybit::model::Decoder& d, Progress& progress) const;
  anybit::Result<std::vector<anybit::steer::BlockReading>> blocks_of(const Read& read) const;
  anybit::Result<Measured> measured(const anybit::model::Decoder& d, const Read& read) const;
  anybit::Result<std::vector<MeanInterval>> effects(const anybit::model::Decoder& d) const;

  const CompareOptions& o_;
  const anybit::model::Model& m_;
  BlockRange blocks_;
  anybit::steer::SplitStimuli stimuli_;
  anybit::ExecutorRef executor_;
  Measured float_;
  std::size_t best_ = 0;
  anybit::steer::Probe probe_;
  anybit::evaluate::Windows windows_;
  anybit::evaluate::ReferenceLogits reference_;
};

/// A float model, the statistics that calibrated recipes learn from, and its packed embedding.
struct Source {
  anybit::model::Decoder decoder;
  std::unique_ptr<anybit::model::ModelStats> stats;
  anybit::model::PackedEmbedding embedding;

  static anybit::Result<Source> prepare(anybit::model::Decoder d, anybit::Needs needs,
                                        std::span<const anybit::model::TokenId> text, anybit::ExecutorRef executor);
  /// The same with the weight `lambda` on directions; see steer::keep_directions().
  anybit::Result<Source> keeping(std::span<const anybit::steer::BlockDirection> directions, double lambda) const;
  anybit::Result<anybit::model::Decoder> quantized(const anybit::model::ModelRecipe& recipe, anybit::ExecutorRef executor) const;
};

/// "nearest", "gptq" or "awq", by a recipe's description.
std::string method_of(const anybit::model::ModelRecipe& recipe);

/// Cosine, accuracy, effect and KL against bits per weight, a curve per method (SVG).
std::string compare_picture(const std::vector<CompareRow>& rows, const CompareOptions& o);

}  // namespace tool
