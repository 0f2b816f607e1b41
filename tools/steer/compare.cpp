// `anybit steer compare`: what quantization leaves of directions, probes, steering and projection.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include <nlohmann/json.hpp>

#include <anybit/steer/projection.hpp>

#include "compare/workbench.hpp"
#include "shared/conversations.hpp"
#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"
#include "shared/source_tree.hpp"
#include "shared/text.hpp"
#include "steer/compare_study.hpp"
#include "steer/statements.hpp"
#include "steer/steer.hpp"

namespace tool {

using namespace anybit;
using model::ModelRecipe;

namespace {

/// At 2 bits the range is searched, as in the presets of anybit compare.
const std::vector<std::string> usual_recipes{"nearest uint8/g128/f16",
                                             "nearest uint6/g128/f16",
                                             "nearest-int4-g128",
                                             "nearest-int3-g128",
                                             "nearest-int2-g128",
                                             "gptq uint8/g128/f16",
                                             "gptq uint6/g128/f16",
                                             "gptq-int4-g128",
                                             "gptq-int3-g128",
                                             "gptq-int2-g128",
                                             "awq | nearest uint8/g128/f16",
                                             "awq | nearest uint6/g128/f16",
                                             "awq-int4-g128",
                                             "awq-int3-g128",
                                             "awq | nearest(search(steps=20, norm=2)) uint2/g128/f16"};

std::optional<int> parse_options(int argc, const char* const* argv, CompareOptions& o) {
  CLI::App app("Quantizes a float model by each recipe and tables what is left of its directions, probes and steering.",
               "anybit steer compare");
  add_stimuli_options(app, o);
  app.add_option("--recipe", o.recipes,
                 "A name or a recipe written out; repeat it. Default: nearest, GPTQ and AWQ at 8, 6, 4, 3, 2 bits")
      ->type_name("RECIPE")
      ->expected(1)
      ->take_all();
  app.add_option("--calibrate", o.calibrate, "A UTF-8 text; default: the first half of the documentation")->type_name("FILE");
  app.add_option("--calibration-tokens", o.calibration_tokens, "Of that text")->type_name("N")->capture_default_str();
  app.add_option("--wanted", o.wanted, "A text whose first token steering is to make likelier")
      ->type_name("TEXT")
      ->capture_default_str();
  app.add_option("--other", o.other, "A text whose first token it is compared with")->type_name("TEXT")->capture_default_str();
  app.add_option("--coefficients", o.coefficients, "Lengths of what steering adds in each of the blocks")
      ->type_name("C")
      ->capture_default_str();
  app.add_option("--keep", o.keep,
                 "A further row of each recipe that reads a Hessian, for each of these weights of the float directions in it")
      ->type_name("LAMBDA");
  app.add_option("--evaluate", o.evaluate, "A UTF-8 text for KL; default: the second half of the documentation")
      ->type_name("FILE");
  app.add_option("--kl-tokens", o.kl_tokens, "Of that text, in windows of 256; 0: no KL")->type_name("N")->capture_default_str();
  app.add_option("--blocks", o.blocks, "Blocks that are averaged over and steered, as 10-20; default: the middle half")
      ->type_name("A-B");
  app.add_option("--steered", o.steered, "Statements over which the effect of steering is averaged")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--leakage-blocks", o.leakage_blocks, "Blocks that are projected, quantized and checked; 0: none")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--svg", o.svg, "Draw the figures against bits per weight here")->type_name("FILE");
  if (const auto end = parse(app, argc, argv, "anybit steer compare model.gguf facts_true_false.csv --most 60 --svg bits.svg"))
    return end;
  if (const std::string error = error_in(o); !error.empty()) return wrong_use("steer compare", error);
  if (o.calibration_tokens < 64 || o.steered < 1 || o.leakage_blocks < 0)
    return wrong_use("steer compare", "--calibration-tokens must be at least 64, --steered 1, --leakage-blocks 0");
  if (o.kl_tokens != 0 && o.kl_tokens < 64)
    return wrong_use("steer compare",
                     "--kl-tokens is " + std::to_string(o.kl_tokens) + "; it must be at least 64, or 0 for no KL");
  for (const double c : o.coefficients)
    if (!(is_finite(c) && c > 0))
      return wrong_use("steer compare", "--coefficients has " + std::to_string(c) + "; each must be finite and above 0");
  for (const double l : o.keep)
    if (!(is_finite(l) && l > 0))
      return wrong_use("steer compare", "--keep has " + std::to_string(l) + "; each must be finite and above 0");
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"DATA", o.data}), inputs.push_back({"--calibrate", o.calibrate}),
      inputs.push_back({"--evaluate", o.evaluate});
  if (const auto end = check_files("steer compare", inputs, {{"--json", o.json}, {"--svg", o.svg}})) return *end;
  if (o.recipes.empty()) o.recipes = usual_recipes;
  return std::nullopt;
}

/// The first `count` tokens of a file, or of one half of the documentation.
Result<std::vector<model::TokenId>> tokens_of(const model::Model& m, const std::string& file, const std::string& path,
                                              bool first_half, Index count, const char* option) {
  std::string text;
  if (count == 0) return std::vector<model::TokenId>{};
  if (path.empty()) {
    ANYBIT_TRY(TwoTexts both, documentation(source_tree()));
    text = std::move(first_half ? both.calibrate : both.evaluate);
  } else {
    ANYBIT_TRY(text, read_text(path));
  }
  ANYBIT_TRY(std::vector<model::TokenId> ids, domain_tokens(text, path, m.tokenizer, {{}, file}));
  if (static_cast<Index>(ids.size()) < count)
    return Error{ErrorCode::insufficient_data, "the text has " + std::to_string(ids.size()) + " tokens, fewer than " + option +
                                                   " " + std::to_string(count) + ": give a longer text or ask for fewer"};
  ids.resize(static_cast<std::size_t>(count));
  return ids;
}

/// The largest share along a direction of all writers.
Result<double> largest_leakage(const model::Decoder& d, std::span<const double> direction) {
  ANYBIT_TRY(const std::vector<steer::WeightLeakage> all, steer::leakage(d, direction));
  double most = 0;
  for (const steer::WeightLeakage& l : all) most = std::max(most, l.relative);
  return most;
}

/// The first blocks of a float model without a direction, and their statistics.
Result<Source> projected_source(const model::Decoder& d, Index blocks, std::span<const double> direction, Needs needs,
                                std::span<const model::TokenId> text, ExecutorRef executor) {
  model::Decoder first = model::first_blocks(d, blocks);
  ANYBIT_TRY_STATUS(steer::project_out(first, direction));
  return Source::prepare(std::move(first), needs, text, executor);
}

/// The largest share of a direction, as quantized and after reproject().
struct Leakage {
  double quantized = 0, reprojected = 0;
};

/// The share of a direction that comes back when projected blocks are quantized, and that after reproject().
Result<Leakage> leakage_of(const Source& projected, const ModelRecipe& recipe, std::span<const double> direction,
                           ExecutorRef executor) {
  ANYBIT_TRY(model::Decoder d, projected.quantized(recipe, executor));
  Leakage out;
  ANYBIT_TRY(out.quantized, largest_leakage(d, direction));
  ANYBIT_TRY_STATUS(steer::reproject(d, direction));
  ANYBIT_TRY(out.reprojected, largest_leakage(d, direction));
  return out;
}

class Table {
 public:
  Table(const CompareOptions& o, const Study& study, bool prints) : o_(o), prints_(prints) {
    if (!prints_) return;
    std::printf(
        "%zu pairs fit, %zu test; probes in block %zu; effect over %lld statements; in brackets 95 %% bootstrap intervals\n",
        study.train_pairs(), study.test_pairs(), study.best_block(), static_cast<long long>(o.steered));
    std::printf("%-40s %6s %6s %-19s %-19s %-19s %-19s", "recipe", "cos", "least", "pairs: own", "pairs: float", "probe: own",
                "probe: float");
    for (const double c : o.coefficients) std::printf(" %-21s", ("effect of +-" + evaluate::detail::fixed(c, 1)).c_str());
    std::printf(" %7s %8s %8s %8s\n", "KL", "leakage", "own", "reproj.");
  }

  void add(CompareRow row) {
    const Measured& r = row.measured;
    using nlohmann::ordered_json;
    const auto interval = [](const MeanInterval& m) { return ordered_json{{"mean", m.mean}, {"low", m.low}, {"high", m.high}}; };
    const auto optional = [](const std::optional<double>& x) { return x ? ordered_json(*x) : ordered_json(nullptr); };
    ordered_json effects = ordered_json::array();
    for (std::size_t i = 0; i < r.effect.size(); ++i) {
      effects.push_back(interval(r.effect[i]));
      effects.back()["coefficient"] = o_.coefficients[i];
    }
    json_.push_back({{"recipe", row.recipe},
                     {"method", row.method},
                     {"bits_per_weight", row.bits},
                     {"keep", row.keep},
                     {"cosine", r.cosine},
                     {"least_cosine", r.least_cosine},
                     {"pair_accuracy", interval(r.pairs)},
                     {"pair_accuracy_float_direction", interval(r.pairs_of_float_direction)},
                     {"probe_accuracy", interval(r.probe)},
                     {"float_probe_accuracy", interval(r.float_probe)},
                     {"effect", std::move(effects)},
                     {"kl", optional(r.kl)},
                     {"leakage", optional(r.leakage)},
                     {"leakage_own_direction", optional(r.own_leakage)},
                     {"leakage_after_reprojection", optional(r.leakage_after)}});
    if (prints_) print(row);
    rows_.push_back(std::move(row));
  }
  const std::vector<CompareRow>& rows() const { return rows_; }
  nlohmann::ordered_json take_json() { return std::move(json_); }

 private:
  static std::string shown(const MeanInterval& m, int digits) {
    using evaluate::detail::fixed;
    return fixed(m.mean, digits) + " [" + fixed(m.low, 2) + ", " + fixed(m.high, 2) + "]";
  }
  void print(const CompareRow& row) const {
    const Measured& r = row.measured;
    const std::string name = row.recipe + (row.keep > 0 ? ", keep " + evaluate::detail::fixed(row.keep, 2) : "");
    std::printf("%-40s %6.3f %6.3f", name.c_str(), r.cosine, r.least_cosine);
    for (const MeanInterval* m : {&r.pairs, &r.pairs_of_float_direction, &r.probe, &r.float_probe})
      std::printf(" %-19s", shown(*m, 3).c_str());
    for (const MeanInterval& m : r.effect) std::printf(" %-21s", shown(m, 2).c_str());
    const auto optional = [](const std::optional<double>& x, int digits) {
      return x ? evaluate::detail::fixed(*x, digits) : std::string("-");
    };
    std::printf(" %7s %8s %8s %8s\n", optional(r.kl, 4).c_str(), optional(r.leakage, 5).c_str(),
                optional(r.own_leakage, 5).c_str(), optional(r.leakage_after, 7).c_str());
    std::fflush(stdout);
  }

  const CompareOptions& o_;
  bool prints_;
  std::vector<CompareRow> rows_;
  nlohmann::ordered_json json_ = nlohmann::ordered_json::array();
};

int compare(int argc, const char* const* argv) {
  CompareOptions o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  const auto failed = [](ExitCode code, const Error& e) { return fail("steer compare", code, e); };
  RecipeBook book = named_recipes();
  const auto recipes = find_recipes(book, o.recipes);
  if (!recipes) return failed(usage, recipes.error());
  auto split = read_pairs(o.data, o.most, o.train, o.seed);
  if (!split) return failed(bad_input, split.error());
  const auto m = open_model(o.model, o.tokenizer);
  if (!m) return failed(bad_input, m.error());
  if (!m->decoder.token_embedding().dense())
    return failed(bad_input, {ErrorCode::unsupported, o.model + ": is quantized already: give the file that it was made from"});
  const auto blocks = block_range("--blocks", o.blocks, m->decoder.config.blocks);
  if (!blocks) return failed(usage, blocks.error());
  const auto text = tokens_of(*m, o.model, o.calibrate, true, o.calibration_tokens, "--calibration-tokens");
  if (!text) return failed(bad_input, text.error());
  const auto kl_text = tokens_of(*m, o.model, o.evaluate, false, o.kl_tokens, "--kl-tokens");
  if (!kl_text) return failed(bad_input, kl_text.error());

  ThreadPool pool(thread_count(o.threads));
  Progress progress;
  std::vector<std::pair<const ModelRecipe*, double>> work;  // a recipe and its weight of the directions
  for (const ModelRecipe* r : *recipes) {
    work.push_back({r, 0});
    for (const double l : o.keep)
      if (covers(r->needs, Needs::hessian)) work.push_back({r, l});
  }
  const auto total = static_cast<double>(work.size() + 1);
  progress.begin("the float model", 1, total);
  Study study(o, *m, *blocks, *std::move(split), pool);
  if (const auto done = study.measure_float(*kl_text, progress); !done) return failed(bad_input, done.error());
  Needs needs = Needs::none;
  for (const ModelRecipe* r : *recipes) needs = needs | r->needs;
  const auto source = Source::prepare(m->decoder, needs, *text, pool);
  if (!source) return failed(bad_input, source.error());
  const Index first = std::min(o.leakage_blocks, m->decoder.config.blocks);  // that are projected
  const auto projected_along = [&](std::span<const double> direction) {
    return projected_source(m->decoder, first, direction, needs, *text, pool);
  };
  std::optional<Source> projected;
  if (first > 0) {
    auto made = projected_along(study.direction());
    if (!made) return failed(bad_input, made.error());
    projected = *std::move(made);
  }
  progress.end();
  progress.clear();

  const model::WeightId sample = m->decoder.blueprint->linears.front();
  const auto bits = [&](const ModelRecipe& r) { return r.bits_per_weight((*m->decoder.blueprint)[sample].shape); };
  Table table(o, study, o.json != "-");
  table.add({.recipe = "float", .method = "float", .measured = study.of_float()});
  double lambda = 0;
  std::optional<Source> keeping;  // of this lambda
  for (const auto& item : work) {
    const ModelRecipe* const recipe = item.first;
    const double keep = item.second;
    progress.begin(recipe->name, 1, total);
    if (keep > 0 && keep != lambda) {
      keeping.reset();
      auto made = source->keeping(study.directions(), keep);
      if (!made) return failed(bad_input, made.error());
      keeping = *std::move(made), lambda = keep;
    }
    const auto quantized = (keep > 0 ? *keeping : *source).quantized(*recipe, pool);
    if (!quantized) return failed(recipe_failed, quantized.error());
    auto measured = study.measure(*quantized, progress);
    if (!measured) return failed(recipe_failed, measured.error());
    if (projected && keep == 0) {
      const auto measure_leakage = [&]() -> Status {
        const std::vector<double>& own = measured->blocks[study.best_block()].direction.direction.vector;
        ANYBIT_TRY(const Source without_own, projected_along(own));
        ANYBIT_TRY(const Leakage along_float, leakage_of(*projected, *recipe, study.direction(), pool));
        ANYBIT_TRY(const Leakage along_own, leakage_of(without_own, *recipe, own, pool));
        measured->leakage = along_float.quantized, measured->own_leakage = along_own.quantized;
        measured->leakage_after = std::max(along_float.reprojected, along_own.reprojected);
        return Ok{};
      };
      if (const auto done = measure_leakage(); !done) return failed(recipe_failed, done.error());
    }
    progress.end();
    progress.clear();
    table.add({.recipe = recipe->name,
               .method = method_of(*recipe),
               .bits = bits(*recipe),
               .keep = keep,
               .measured = *std::move(measured)});
  }
  if (!o.svg.empty())
    if (const auto drawn = write_text(o.svg, compare_picture(table.rows(), o)); !drawn)
      return failed(cannot_write, drawn.error());
  using nlohmann::ordered_json;
  return write_json("steer compare", o.json,
                    ordered_json{{"model", m->name},
                                 {"data", o.data},
                                 {"template", o.pattern},
                                 {"train_pairs", study.train_pairs()},
                                 {"test_pairs", study.test_pairs()},
                                 {"probe_block", study.best_block()},
                                 {"calibration_tokens", o.calibration_tokens},
                                 {"kl_tokens", o.kl_tokens},
                                 {"rows", table.take_json()}});
}

}  // namespace

int run_steer_compare(int argc, const char* const* argv) {
  return run_command([&] { return compare(argc, argv); });
}

}  // namespace tool
