#include "wasq_options.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <utility>

#include <anybit/train/wasq/activations.hpp>
#include <anybit/train/wasq/fasteropt.hpp>
#include <anybit/train/wasq/fpm.hpp>
#include <anybit/train/wasq/opt.hpp>
#include <anybit/train/wasq/vanilla.hpp>

namespace tool {

using namespace anybit;
namespace wasq = train::wasq;

namespace {

wasq::Absorption absorption_of(const std::string& name) {
  const auto found = std::find(std::begin(wasq::absorption_names), std::end(wasq::absorption_names), name);
  return static_cast<wasq::Absorption>(found - std::begin(wasq::absorption_names));
}

/// Bits of the method where none are given: the published ones.
std::vector<int> bits_of(const WasqOptions& o) {
  if (!o.bits.empty()) return o.bits;
  if (o.method == "opt") return {11};
  if (o.method == "fpm") return {8};
  return {4, 8, 11, 16};
}

std::string percent(Index part, Index whole) {
  std::array<char, 32> out{};
  std::snprintf(out.data(), out.size(), "%.2f %%",
                100 * static_cast<double>(part) / static_cast<double>(std::max<Index>(whole, 1)));
  return out.data();
}

}  // namespace

void add_wasq_options(CLI::App& app, WasqOptions& o) {
  app.add_option(
         "--wasq", o.method,
         "Trains the linears of the blocks on Superfloat's grid: fpm all weights, opt those that saturate or matter most, "
         "fasteropt and vanilla with bits per layer by an error budget and some weights as floats")
      ->check(CLI::IsMember({"fpm", "opt", "fasteropt", "vanilla"}));
  app.add_option("--bits", o.bits, "Of the grid; several, ascending, for fasteropt and vanilla to choose from")
      ->delimiter(',')
      ->check(CLI::Range(2, 16))
      ->needs("--wasq");
  app.add_flag("--as-published", o.as_published, "The method with the defects of the repository of 2025, for comparison");
  app.add_flag("--round-gradients", o.round_gradients, "fpm: gradients on the grid too")->needs("--wasq");
  app.add_option("--absorb", o.absorption,
                 "In place of a scale per row: scales per input channel that norms and linears in front take, for arrays without "
                 "scales: exact, or the published norms, all, all-as-published")
      ->check(CLI::IsMember({"none", "norms", "all", "all-as-published", "exact"}))
      ->capture_default_str()
      ->needs("--wasq");
  app.add_option("--absorbed-scale", o.absorbed_scale, "The scale of a channel: largest (published), on-grid, power-of-two")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, wasq::AbsorbedScale>{{"largest", wasq::AbsorbedScale::largest},
                                                     {"on-grid", wasq::AbsorbedScale::largest_on_grid},
                                                     {"power-of-two", wasq::AbsorbedScale::power_of_two}}))
      ->default_str("on-grid")
      ->needs("--absorb");
  app.add_option("--activation-bits", o.activation_bits, "Inputs of linears on a grid too, with a scale per token; 0: floats")
      ->check(CLI::IsMember({0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}))
      ->needs("--wasq");
  app.add_option("--error-budget", o.error_budget, "fasteropt: relative error of a layer that a width may leave")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--loss-budget", o.loss_budget, "vanilla: nats that rounding may add, by Fisher scores")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--critical", o.critical, "opt: share of weights that train besides those that saturate")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--outliers", o.outliers, "fasteropt: share of weights, vanilla: of rows that stay floats")
      ->check(CLI::Range(0.0, 0.5))
      ->capture_default_str();
  app.add_option("--fisher-examples", o.fisher_examples, "Examples of the Fisher scores")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

std::string contradiction(const WasqOptions& o) {
  if (!o.any()) return {};
  const std::vector<int> bits = bits_of(o);
  if ((o.method == "fpm" || o.method == "opt") && bits.size() != 1)
    return "--wasq " + o.method + " has one width: give one to --bits";
  if (!std::is_sorted(bits.begin(), bits.end())) return "--bits must ascend";
  if (o.absorption != "none" && o.method != "fpm" && o.method != "opt")
    return "--absorb is for grids without scales: give --wasq fpm or opt";
  if (o.absorption == "all" || o.absorption == "all-as-published")
    return "--absorb " + o.absorption +
           " multiplies scales back in floats, which no grid without scales can train: give exact or norms";
  return {};
}

Result<WasqRun> prepare_wasq(const WasqOptions& o, model::Decoder& d, std::span<const train::Example> examples,
                             const train::LossOptions& loss) {
  WasqRun out;
  const std::vector<int> bits = bits_of(o);
  const wasq::SuperfloatGrid grid{bits.front()};
  const wasq::Absorption mode = absorption_of(o.absorption);
  ANYBIT_TRY(out.absorbed, wasq::absorb(d, mode, o.absorbed_scale, grid));
  const bool row_scales = mode == wasq::Absorption::none;
  wasq::Fisher fisher;
  if (o.method == "opt" || o.method == "vanilla") {
    const auto count = std::min(examples.size(), static_cast<std::size_t>(o.fisher_examples));
    train::LossOptions plain = loss;
    plain.teacher = nullptr, plain.taps = {};
    ANYBIT_TRY(fisher, wasq::fisher_of(d, examples.first(count), train::all_weights, plain));
  }
  if (o.method == "fpm")
    out.grid = wasq::Fpm{bits.front(), row_scales, o.round_gradients, o.as_published}.make(d);
  else if (o.method == "opt")
    out.grid = wasq::Opt{bits.front(), row_scales, o.critical, o.as_published}.make(d, fisher);
  else if (o.method == "fasteropt")
    out.grid = wasq::FasterOpt{bits, o.error_budget, o.outliers, o.as_published}.make(d);
  else
    out.grid = wasq::Vanilla{bits, o.loss_budget, o.outliers, o.as_published}.make(d, fisher);
  out.grid.description += ", absorbed " + o.absorption + ", activations " + std::to_string(o.activation_bits);
  if (o.activation_bits > 0)
    out.taps = wasq::activation_taps(o.activation_bits, o.as_published ? wasq::SiteScale::none : wasq::SiteScale::token);
  return out;
}

std::vector<std::string> describe(const WasqRun& run, const model::Decoder& d) {
  Index dead = 0, saturated = 0, kept = 0, weights = 0, parameters = 0;
  std::map<int, int> layers;
  for (const wasq::GridLayer& l : run.grid.layers) {
    ++layers[l.grid.bits];
    weights += l.size(), kept += l.kept_floats();
    const wasq::Scales<float> scales = wasq::detail::scales_of(l);
    for (Index r = 0; r < l.rows && !l.values.empty(); ++r)
      for (Index c = 0; c < l.cols; ++c) {
        const float u = l.values[static_cast<std::size_t>(r * l.cols + c)] / scales.at(r, c);
        dead += l.grid.is_dead(u) ? 1 : 0, saturated += l.grid.passes(u) ? 0 : 1;
      }
  }
  for (const model::Weight& w : d.weights)
    parameters += w.linear.extents().size() + static_cast<Index>(w.values.size() + w.linear.bias().size());
  std::array<char, 64> mean{};
  std::snprintf(mean.data(), mean.size(), "%.3f bits per weight of the linears", run.grid.bits());
  std::string widths;
  for (const auto& [bits, count] : layers)
    widths += (widths.empty() ? "" : ", ") + std::to_string(count) + " of SF" + std::to_string(bits);
  return {run.grid.description, std::string(mean.data()) + "; layers: " + widths,
          "dead " + percent(dead, weights) + ", saturated " + percent(saturated, weights) + ", floats " + percent(kept, weights) +
              " of these weights; " + percent(weights - kept, parameters) + " of all parameters are on a grid"};
}

}  // namespace tool
