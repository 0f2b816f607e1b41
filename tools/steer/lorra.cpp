// `anybit steer lorra`: adapters that move activations along saved directions, so that the model is steered without taps.

#include <algorithm>
#include <cstdio>
#include <optional>

#include <nlohmann/json.hpp>

#include <anybit/steer/bootstrap.hpp>
#include <anybit/steer/lorra.hpp>

#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/progress.hpp"
#include "steer/shared.hpp"
#include "steer/statements.hpp"
#include "steer/steer.hpp"

namespace tool {

using namespace anybit;

namespace {

struct LorraCommandOptions : StimuliOptions {
  std::string directions, blocks, save, wanted, other, with, without;
  double alpha = 4, beta = 0, rate = 1e-3;
  Index rank = 8, steps = 40, batch = 4, tested = 8;
};

std::optional<int> parse_options(int argc, const char* const* argv, LorraCommandOptions& o) {
  CLI::App app("Trains adapters of the attention towards activations that are moved along directions (LoRRA, arXiv:2310.01405).",
               "anybit steer lorra");
  add_stimuli_options(app, o);
  app.add_option("--steer", o.directions, "Directions of `anybit steer read`")->type_name("FILE")->required();
  app.add_option("--steer-blocks", o.blocks, "Blocks whose activations are moved, as 10-20; default: the middle half")
      ->type_name("A-B");
  app.add_option("--alpha", o.alpha, "Length of the step along the directions")->type_name("A")->capture_default_str();
  app.add_option("--beta", o.beta, "Share of the contrast of --with and --without")->type_name("B")->capture_default_str();
  app.add_option("--with", o.with, "Text in front of each prompt that asks for the concept")->type_name("TEXT");
  app.add_option("--without", o.without, "Text in front of each prompt that asks for its opposite")->type_name("TEXT");
  app.add_option("--rank", o.rank, "Of the adapters")->type_name("R")->capture_default_str();
  app.add_option("--steps", o.steps, "Of AdamW")->type_name("N")->capture_default_str();
  app.add_option("--batch", o.batch, "Statements per step")->type_name("N")->capture_default_str();
  app.add_option("--rate", o.rate, "Learning rate at first; it falls to 0")->type_name("R")->capture_default_str();
  app.add_option("--wanted", o.wanted, "A text whose first token is to become likelier, ' positive'")
      ->type_name("TEXT")
      ->required();
  app.add_option("--other", o.other, "A text whose first token it is compared with, ' negative'")->type_name("TEXT")->required();
  app.add_option("--tested", o.tested, "Statements that were not trained on, over which the effect is averaged")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--save", o.save, "Write the adapters here, a folder of PEFT")->type_name("FOLDER");
  if (const auto end = parse(app, argc, argv,
                             "anybit steer lorra model.gguf sentiment.csv --steer sentiment.safetensors --wanted ' positive' "
                             "--other ' negative' --save adapter"))
    return end;
  const auto wrong = [](const std::string& what) { return wrong_use("steer lorra", what); };
  if (const std::string error = error_in(o); !error.empty()) return wrong(error);
  if (o.rank < 1 || o.steps < 1 || o.batch < 1 || o.tested < 1)
    return wrong("--rank, --steps, --batch and --tested must be at least 1");
  if (!is_finite(o.alpha) || !is_finite(o.beta) || !(is_finite(o.rate) && o.rate > 0))
    return wrong("--alpha and --beta must be finite, --rate above 0");
  if ((o.beta != 0) != (!o.with.empty() && !o.without.empty())) return wrong("--beta, --with and --without belong together");
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"DATA", o.data}), inputs.push_back({"--steer", o.directions});
  return check_files("steer lorra", inputs, {{"--json", o.json}});
}

int lorra(int argc, const char* const* argv) {
  LorraCommandOptions o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  const auto failed = [](ExitCode code, const Error& e) { return fail("steer lorra", code, e); };
  const auto split = read_pairs(o.data, o.most, o.train, o.seed);
  if (!split) return failed(bad_input, split.error());
  const auto m = open_model(o.model, o.tokenizer);
  if (!m) return failed(bad_input, m.error());
  const auto file = open_steering(o.directions, m->decoder);
  if (!file) return failed(bad_input, file.error());
  if (file->directions.empty() || file->point != model::Point::residual)
    return failed(bad_input,
                  {ErrorCode::invalid_argument, o.directions + ": holds no directions of the residual stream: make one "
                                                               "with anybit steer read"});
  const auto range = block_range("--steer-blocks", o.blocks, m->decoder.config.blocks);
  if (!range) return failed(usage, range.error());
  std::vector<steer::BlockDirection> directions;
  for (const steer::BlockDirection& b : file->directions)
    if (b.block >= range->first && b.block <= range->last) directions.push_back(b);
  const auto pair = token_pair(m->tokenizer, o.wanted, o.other);
  if (!pair) return fail("steer lorra", usage, pair.error());

  const auto prompt_of = [&](const std::string& text, const std::string& prefix) -> Result<std::vector<model::TokenId>> {
    ANYBIT_TRY(const std::string prompt, steer::fill_template(o.pattern, text));
    return steer::encode_prompt(m->tokenizer, prefix + prompt);
  };
  std::vector<steer::LorraExample> examples;
  for (const std::string& text : split->train.texts) {
    steer::LorraExample e;
    for (const auto& [prefix, to] :
         {std::pair(std::string(), &e.ids), std::pair(o.with, &e.with), std::pair(o.without, &e.without)}) {
      if (o.beta == 0 && to != &e.ids) continue;
      auto ids = prompt_of(text, prefix);
      if (!ids) return failed(bad_input, ids.error());
      *to = *std::move(ids);
    }
    // Where the prefix meets the prompt tokens may differ: the last ones that all share are trained.
    if (o.beta != 0) {
      const std::size_t shortest = std::min({e.ids.size(), e.with.size(), e.without.size()});
      std::size_t same = 0;
      while (same < shortest && e.ids[e.ids.size() - 1 - same] == e.with[e.with.size() - 1 - same] &&
             e.ids[e.ids.size() - 1 - same] == e.without[e.without.size() - 1 - same])
        ++same;
      e.tail = static_cast<Index>(std::max<std::size_t>(same, 1));
    }
    examples.push_back(std::move(e));
  }

  ThreadPool pool(thread_count(o.threads));
  const std::size_t tested = std::min(static_cast<std::size_t>(o.tested), split->test.size());
  const auto differences = [&](const model::Decoder& d, std::span<const model::Tap> taps) -> Result<std::vector<double>> {
    std::vector<double> out;
    for (std::size_t i = 0; i < tested; ++i) {
      ANYBIT_TRY(const auto ids, prompt_of(split->test.texts[i], ""));
      ANYBIT_TRY(out.emplace_back(), steer::logit_difference(d, ids, *pair, taps, pool));
    }
    return out;
  };
  const auto before = differences(m->decoder, {});
  if (!before) return failed(bad_input, before.error());
  const auto taps = steer::control_taps(m->decoder, directions, {.coefficient = o.alpha});
  if (!taps) return failed(bad_input, taps.error());
  const auto tapped = differences(m->decoder, *taps);
  if (!tapped) return failed(bad_input, tapped.error());

  model::Decoder adapted = m->decoder;
  steer::LorraOptions how;
  how.alpha = o.alpha, how.beta = o.beta, how.steps = o.steps, how.batch = o.batch, how.schedule.peak = o.rate,
  how.executor = pool;
  how.lora.rank = o.rank, how.lora.alpha = static_cast<float>(2 * o.rank), how.lora.seed = o.seed;
  Progress progress;
  progress.begin("training", 1, 1);
  const auto losses = steer::train_lorra(adapted, examples, directions, how, [&](const steer::LorraStep& s) {
    progress.update(s.step + 1, s.steps);
    return true;
  });
  progress.end(), progress.clear();
  if (!losses) return failed(bad_input, losses.error());
  const auto after = differences(adapted, {});
  if (!after) return failed(bad_input, after.error());
  if (!o.save.empty())
    if (const auto saved = train::save_adapters(o.save, adapted, how.lora, m->name); !saved)
      return failed(cannot_write, saved.error());

  const auto change = [&](const std::vector<double>& with) {
    std::vector<double> out;
    for (std::size_t i = 0; i < with.size(); ++i) out.push_back(with[i] - (*before)[i]);
    return steer::bootstrap_mean(out);
  };
  const steer::MeanInterval base = steer::bootstrap_mean(*before), by_taps = change(*tapped), by_adapter = change(*after);
  if (o.json != "-")
    std::printf(
        "distance to the targets: %.4f at first, %.4f at step %lld\n"
        "logit difference over %zu statements, 95 %% bootstrap intervals: %.3f [%.3f, %.3f]\n"
        "changed by taps of the same length %+.3f [%.3f, %.3f], by the adapters %+.3f [%.3f, %.3f]\n",
        losses->front(), losses->back(), static_cast<long long>(losses->size()) - 1, tested, base.mean, base.low, base.high,
        by_taps.mean, by_taps.low, by_taps.high, by_adapter.mean, by_adapter.low, by_adapter.high);
  using nlohmann::ordered_json;
  const auto interval = [](const steer::MeanInterval& i) {
    return ordered_json{{"mean", i.mean}, {"low", i.low}, {"high", i.high}};
  };
  return write_json("steer lorra", o.json,
                    ordered_json{{"model", m->name},
                                 {"steer", o.directions},
                                 {"alpha", o.alpha},
                                 {"beta", o.beta},
                                 {"losses", *losses},
                                 {"logit_difference", interval(base)},
                                 {"change_by_taps", interval(by_taps)},
                                 {"change_by_adapters", interval(by_adapter)}});
}

}  // namespace

int run_steer_lorra(int argc, const char* const* argv) {
  return run_command([&] { return lorra(argc, argv); });
}

}  // namespace tool
