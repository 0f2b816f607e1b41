// `anybit steer compare`: what quantization leaves of directions, probes, steering and projection.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include <nlohmann/json.hpp>

#include <anybit/quantize/one_shot.hpp>
#include <anybit/steer/mechanism.hpp>
#include <anybit/steer/probe.hpp>
#include <anybit/steer/projection.hpp>

#include "compare/workbench.hpp"
#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"
#include "shared/text.hpp"
#include "steer/shared.hpp"
#include "steer/statements.hpp"
#include "steer/steer.hpp"

namespace tool {

using namespace anybit;
using model::ModelRecipe;

namespace {

struct CompareOptions : StimuliOptions {
  std::vector<std::string> recipes;
  std::string calibrate, wanted = " high", other = " low", blocks;
  Index calibration_tokens = 2048, steered = 8, leakage_blocks = 4;
  double coefficient = 4;
};

/// AWQ is compiled at 4 and 3 bits.
const std::vector<std::string> usual_recipes{"nearest uint8/g128/f16", "nearest uint6/g128/f16", "nearest-int4-g128",
                                             "nearest-int3-g128",      "nearest-int2-g128",      "gptq uint8/g128/f16",
                                             "gptq uint6/g128/f16",    "gptq-int4-g128",         "gptq-int3-g128",
                                             "gptq-int2-g128",         "awq-int4-g128",          "awq-int3-g128"};

std::optional<int> parse_options(int argc, const char* const* argv, CompareOptions& o) {
  CLI::App app("Quantizes a float model by each recipe and tables what is left of its directions, probes and steering.",
               "anybit steer compare");
  add_stimuli_options(app, o);
  app.add_option("--recipe", o.recipes,
                 "A name or a recipe written out; repeat it. Default: nearest and GPTQ at 8, 6, 4, 3, 2 bits,\nAWQ at 4 and 3")
      ->type_name("RECIPE")
      ->expected(1)
      ->take_all();
  app.add_option("--calibrate", o.calibrate, "A UTF-8 text; default: the first half of the documentation")->type_name("FILE");
  app.add_option("--calibration-tokens", o.calibration_tokens, "Of that text")->type_name("N")->capture_default_str();
  app.add_option("--wanted", o.wanted, "A text whose first token steering is to make likelier")
      ->type_name("TEXT")
      ->capture_default_str();
  app.add_option("--other", o.other, "A text whose first token it is compared with")->type_name("TEXT")->capture_default_str();
  app.add_option("--coefficient", o.coefficient, "Length of what steering adds in each of the blocks")
      ->type_name("C")
      ->capture_default_str();
  app.add_option("--blocks", o.blocks, "Blocks that are averaged over and steered, as 10-20; default: the middle half")
      ->type_name("A-B");
  app.add_option("--steered", o.steered, "Statements over which the effect of steering is averaged")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--leakage-blocks", o.leakage_blocks, "Blocks that are projected, quantized and checked; 0: none")
      ->type_name("N")
      ->capture_default_str();
  if (const auto end = parse(app, argc, argv, "anybit steer compare model.gguf facts_true_false.csv --most 60")) return end;
  if (const std::string error = error_in(o); !error.empty()) return wrong_use("steer compare", error);
  if (o.calibration_tokens < 64 || o.steered < 1 || o.leakage_blocks < 0)
    return wrong_use("steer compare", "--calibration-tokens must be at least 64, --steered 1, --leakage-blocks 0");
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"DATA", o.data}), inputs.push_back({"--calibrate", o.calibrate});
  if (const auto apart = check_roles(inputs, {{"--json", o.json}}); !apart) return fail("steer compare", usage, apart.error());
  if (!o.json.empty())
    if (const auto writable = check_writable(o.json); !writable) return fail("steer compare", cannot_write, writable.error());
  if (o.recipes.empty()) o.recipes = usual_recipes;
  return std::nullopt;
}

/// What one model gives, and the float model's own at first.
struct Measured {
  std::vector<steer::BlockReading> blocks;
  double pairs = 0, pairs_of_float_direction = 0;  ///< test accuracy, mean of the blocks
  double cosine = 0, least_cosine = 0;             ///< to the float directions: mean and least of the blocks
  double probe = 0, float_probe = 0;               ///< test accuracy in the best block: fitted anew, and as fitted on floats
  double effect = 0;                               ///< logit difference at +c minus that at -c
  std::optional<double> leakage;                   ///< the largest of the projected writers
};

class Study {
 public:
  Study(const CompareOptions& o, const model::Model& m, BlockRange blocks, steer::SplitStimuli stimuli, ExecutorRef executor)
      : o_(o), m_(m), blocks_(blocks), stimuli_(std::move(stimuli)), executor_(executor) {}

  Status measure_float(Progress& progress) {
    ANYBIT_TRY(Read read, read_states(m_.decoder, progress));
    ANYBIT_TRY(float_.blocks, blocks_of(read));
    std::size_t best = first();
    for (std::size_t b = first(); b < last(); ++b)
      if (float_.blocks[b].test_rows > float_.blocks[best].test_rows) best = b;
    best_ = best;
    ANYBIT_TRY(probe_, steer::fit_probe(read.train[best_].view(), stimuli_.train.labels));
    ANYBIT_TRY(float_, measured(m_.decoder, read));
    return Ok{};
  }
  Result<Measured> measure(const model::Decoder& d, Progress& progress) const {
    ANYBIT_TRY(const Read read, read_states(d, progress));
    return measured(d, read);
  }
  const Measured& of_float() const { return float_; }
  std::size_t best_block() const { return best_; }
  std::size_t test_pairs() const { return stimuli_.test.size() / 2; }
  std::size_t train_pairs() const { return stimuli_.train.size() / 2; }
  /// The direction of the best block: what is projected.
  std::span<const double> direction() const { return float_.blocks[best_].direction.direction.vector; }

 private:
  struct Read {
    std::vector<Matrix> train, test;
  };
  std::size_t first() const { return static_cast<std::size_t>(blocks_.first); }
  std::size_t last() const { return static_cast<std::size_t>(blocks_.last) + 1; }

  Result<Read> read_states(const model::Decoder& d, Progress& progress) const {
    Read out;
    const auto total = static_cast<Index>(stimuli_.train.size() + stimuli_.test.size());
    Index before = 0;
    for (const auto& [s, to] : {std::pair(&stimuli_.train, &out.train), std::pair(&stimuli_.test, &out.test)}) {
      std::vector<std::vector<model::TokenId>> prompts;
      for (const std::string& t : s->texts) {
        ANYBIT_TRY(const std::string prompt, steer::fill_template(o_.pattern, t));
        ANYBIT_TRY(prompts.emplace_back(), steer::encode_prompt(m_.tokenizer, prompt));
      }
      ANYBIT_TRY(*to,
                 steer::states(d, prompts, {.position = o_.position, .executor = executor_, .progress = [&](Index done, Index) {
                                              progress.update(before + done, total);
                                            }}));
      before += static_cast<Index>(s->size());
    }
    return out;
  }
  Result<std::vector<steer::BlockReading>> blocks_of(const Read& read) const {
    return steer::read_blocks(steer::ReadingMethod::pca, read.train, stimuli_.train.labels, read.test, stimuli_.test.labels);
  }
  Result<Measured> measured(const model::Decoder& d, const Read& read) const {
    Measured out;
    ANYBIT_TRY(out.blocks, blocks_of(read));
    out.least_cosine = 1;
    for (std::size_t b = first(); b < last(); ++b) {
      const steer::Direction &own = out.blocks[b].direction.direction, &original = float_.blocks[b].direction.direction;
      const double cosine = own.sign * original.sign * steer::cosine(own.vector, original.vector);
      out.cosine += cosine;
      out.least_cosine = std::min(out.least_cosine, cosine);
      out.pairs += out.blocks[b].test_pairs;
      out.pairs_of_float_direction += steer::pair_accuracy(steer::scores(original, read.test[b].view()), stimuli_.test.labels);
    }
    const auto count = static_cast<double>(last() - first());
    out.cosine /= count, out.pairs /= count, out.pairs_of_float_direction /= count;
    ANYBIT_TRY(const steer::Probe probe, steer::fit_probe(read.train[best_].view(), stimuli_.train.labels));
    out.probe = steer::accuracy(probe, read.test[best_].view(), stimuli_.test.labels);
    out.float_probe = steer::accuracy(probe_, read.test[best_].view(), stimuli_.test.labels);
    ANYBIT_TRY(out.effect, effect(d));
    return out;
  }
  Result<double> effect(const model::Decoder& d) const {
    steer::TokenPair pair;
    for (const auto& [text, to] : {std::pair(&o_.wanted, &pair.wanted), std::pair(&o_.other, &pair.other)}) {
      ANYBIT_TRY(const auto tokens, m_.tokenizer.encode(*text));
      if (tokens.empty()) return Error{ErrorCode::invalid_argument, "--wanted and --other must not be empty"};
      *to = tokens.front();
    }
    std::vector<steer::BlockDirection> directions;
    for (std::size_t b = first(); b < last(); ++b) directions.push_back(float_.blocks[b].direction);
    const std::size_t count = std::min(static_cast<std::size_t>(o_.steered), stimuli_.test.size());
    double sum = 0;
    for (const double side : {1.0, -1.0}) {
      ANYBIT_TRY(const auto taps, steer::control_taps(d, directions, {.coefficient = side * o_.coefficient}));
      for (std::size_t i = 0; i < count; ++i) {
        ANYBIT_TRY(const std::string prompt, steer::fill_template(o_.pattern, stimuli_.test.texts[i]));
        ANYBIT_TRY(const std::vector<model::TokenId> ids, steer::encode_prompt(m_.tokenizer, prompt));
        ANYBIT_TRY(const double difference, steer::logit_difference(d, ids, pair, taps, executor_));
        sum += side * difference;
      }
    }
    return sum / static_cast<double>(count);
  }

  const CompareOptions& o_;
  const model::Model& m_;
  BlockRange blocks_;
  steer::SplitStimuli stimuli_;
  ExecutorRef executor_;
  Measured float_;
  std::size_t best_ = 0;
  steer::Probe probe_;
};

/// A float model, what calibrated recipes learn from it, and its packed embedding.
struct Source {
  model::Decoder decoder;
  std::unique_ptr<model::ModelStats> stats;
  model::PackedEmbedding embedding;

  static Result<Source> prepare(model::Decoder d, Needs needs, std::span<const model::TokenId> text, ExecutorRef executor) {
    Source out{.decoder = std::move(d), .stats = nullptr, .embedding = {}};
    out.stats = std::make_unique<model::ModelStats>(out.decoder, needs);
    constexpr std::size_t window = 512;
    for (std::size_t t = 0; t < text.size(); t += window)
      ANYBIT_TRY_STATUS(out.stats->accumulate(out.decoder, text.subspan(t, std::min(window, text.size() - t)), executor));
    ANYBIT_TRY(out.embedding, model::pack_embedding(out.decoder));
    return out;
  }
  Result<model::Decoder> quantized(const ModelRecipe& recipe, ExecutorRef executor) const {
    ANYBIT_TRY(model::QuantizedModel q, model::quantize_model(decoder, *stats, recipe, embedding, {.executor = executor}));
    return std::move(q.decoder);
  }
};

Result<std::vector<model::TokenId>> calibration_text(const model::Model& m, const CompareOptions& o) {
  std::string text;
  if (o.calibrate.empty()) {
    ANYBIT_TRY(TwoTexts both, documentation(ANYBIT_TOOL_DOCUMENTATION));
    text = std::move(both.calibrate);
  } else {
    ANYBIT_TRY(text, read_text(o.calibrate));
  }
  ANYBIT_TRY(std::vector<model::TokenId> ids, m.tokenizer.encode(text));
  if (static_cast<Index>(ids.size()) < o.calibration_tokens)
    return Error{ErrorCode::insufficient_data, "the calibration text has " + std::to_string(ids.size()) +
                                                   " tokens, fewer than --calibration-tokens " +
                                                   std::to_string(o.calibration_tokens)};
  ids.resize(static_cast<std::size_t>(o.calibration_tokens));
  return ids;
}

int compare(int argc, const char* const* argv) {
  CompareOptions o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  const auto failed = [](ExitCode code, const Error& e) { return fail("steer compare", code, e); };
  RecipeBook book = named_recipes();
  const auto recipes = find_recipes(book, o.recipes);
  if (!recipes) return failed(usage, recipes.error());
  const auto all = read_statements(o.data);
  if (!all) return failed(bad_input, all.error());
  auto split = steer::pair_statements(first_of_each(*all, o.most), o.train, o.seed);
  if (!split) return failed(bad_input, split.error());
  const auto m = open_model(o.model, o.tokenizer);
  if (!m) return failed(bad_input, m.error());
  if (!m->decoder.token_embedding().dense())
    return failed(bad_input, {ErrorCode::unsupported, o.model + ": is quantized already: give the file that it was made from"});
  const auto blocks = block_range("--blocks", o.blocks, m->decoder.config.blocks);
  if (!blocks) return failed(usage, blocks.error());
  const auto text = calibration_text(*m, o);
  if (!text) return failed(bad_input, text.error());

  ThreadPool pool(thread_count(o.threads));
  Progress progress;
  const auto total = static_cast<double>(recipes->size() + 1);
  progress.begin("the float model", 1, total);
  Study study(o, *m, *blocks, *std::move(split), pool);
  if (const auto done = study.measure_float(progress); !done) return failed(bad_input, done.error());
  Needs needs = Needs::none;
  for (const ModelRecipe* r : *recipes) needs = needs | r->needs;
  const auto source = Source::prepare(m->decoder, needs, *text, pool);
  if (!source) return failed(bad_input, source.error());
  std::optional<Source> projected;
  if (const Index first = std::min(o.leakage_blocks, m->decoder.config.blocks); first > 0) {
    model::Decoder d = model::first_blocks(m->decoder, first);
    if (const auto done = steer::project_out(d, study.direction()); !done) return failed(bad_input, done.error());
    auto made = Source::prepare(std::move(d), needs, *text, pool);
    if (!made) return failed(bad_input, made.error());
    projected = *std::move(made);
  }
  progress.end();
  progress.clear();

  using nlohmann::ordered_json;
  ordered_json rows = ordered_json::array();
  if (o.json != "-")
    std::printf(
        "%zu pairs fit, %zu test; probes in block %zu; effect at coefficients +-%g over %lld statements\n"
        "%-24s %6s %6s %6s %6s %6s %6s %8s %8s\n",
        study.train_pairs(), study.test_pairs(), study.best_block(), o.coefficient, static_cast<long long>(o.steered), "recipe",
        "cos", "least", "pairs", "float", "probe", "float", "effect", "leakage");
  const auto row = [&](const std::string& name, const Measured& r) {
    rows.push_back({{"recipe", name},
                    {"cosine", r.cosine},
                    {"least_cosine", r.least_cosine},
                    {"pair_accuracy", r.pairs},
                    {"pair_accuracy_float_direction", r.pairs_of_float_direction},
                    {"probe_accuracy", r.probe},
                    {"float_probe_accuracy", r.float_probe},
                    {"effect", r.effect},
                    {"leakage", r.leakage ? ordered_json(*r.leakage) : ordered_json(nullptr)}});
    if (o.json == "-") return;
    std::printf("%-24s %6.3f %6.3f %6.3f %6.3f %6.3f %6.3f %8.3f ", name.c_str(), r.cosine, r.least_cosine, r.pairs,
                r.pairs_of_float_direction, r.probe, r.float_probe, r.effect);
    if (r.leakage)
      std::printf("%8.5f\n", *r.leakage);
    else
      std::printf("%8s\n", "-");
    std::fflush(stdout);
  };
  row("float", study.of_float());
  for (const ModelRecipe* recipe : *recipes) {
    progress.begin(recipe->name, 1, total);
    const auto quantized = source->quantized(*recipe, pool);
    if (!quantized) return failed(recipe_failed, quantized.error());
    auto measured = study.measure(*quantized, progress);
    if (!measured) return failed(recipe_failed, measured.error());
    if (projected) {
      const auto leaking = projected->quantized(*recipe, pool);
      if (!leaking) return failed(recipe_failed, leaking.error());
      const auto leakage = steer::leakage(*leaking, study.direction());
      if (!leakage) return failed(recipe_failed, leakage.error());
      double most = 0;
      for (const steer::WeightLeakage& l : *leakage) most = std::max(most, l.relative);
      measured->leakage = most;
    }
    progress.end();
    progress.clear();
    row(recipe->name, *measured);
  }
  return write_json("steer compare", o.json,
                    ordered_json{{"model", m->name},
                                 {"data", o.data},
                                 {"template", o.pattern},
                                 {"train_pairs", study.train_pairs()},
                                 {"test_pairs", study.test_pairs()},
                                 {"probe_block", study.best_block()},
                                 {"coefficient", o.coefficient},
                                 {"rows", std::move(rows)}});
}

}  // namespace

int run_steer_compare(int argc, const char* const* argv) {
  return run_command([&] { return compare(argc, argv); });
}

}  // namespace tool
