#pragma once
// anybit train --wasq: which method of the WASQ family, with which options, and its report.

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <anybit/train/trainer.hpp>
#include <anybit/train/wasq/absorb.hpp>
#include <anybit/train/wasq/grid_model.hpp>

namespace tool {

struct WasqOptions {
  std::string method;  ///< empty: no WASQ
  std::vector<int> bits;
  bool as_published = false, round_gradients = false;
  std::string absorption = "none";
  anybit::train::wasq::AbsorbedScale absorbed_scale = anybit::train::wasq::AbsorbedScale::largest_on_grid;
  int activation_bits = 0;
  double error_budget = 0.01, loss_budget = 0.05, critical = 0.1, outliers = 0.005;
  anybit::Index fisher_examples = 32;

  bool any() const { return !method.empty(); }
};

void add_wasq_options(CLI::App& app, WasqOptions& o);

/// What options together cannot mean; empty: nothing.
std::string contradiction(const WasqOptions& o);

/// A run on Superfloat's grid: d has absorbed its scales and the layers are chosen.
struct WasqRun {
  anybit::train::wasq::GridModel grid;
  anybit::train::wasq::Absorbed absorbed;
  std::vector<anybit::model::Tap> taps;
};

/// Changes the weights of d where scales are absorbed. `examples` give the Fisher scores of methods that have some.
anybit::Result<WasqRun> prepare_wasq(const WasqOptions& o, anybit::model::Decoder& d,
                                     std::span<const anybit::train::Example> examples, const anybit::train::LossOptions& loss);

/// Lines for the user: bits, layers of each width, dead, saturated and covered shares of the trained model.
std::vector<std::string> describe(const WasqRun& run, const anybit::model::Decoder& d);

}  // namespace tool
