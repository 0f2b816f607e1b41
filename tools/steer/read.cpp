// `anybit steer read`: a direction per block from labelled statements.

#include <algorithm>
#include <cstdio>
#include <optional>

#include <nlohmann/json.hpp>

#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"
#include "steer/heat_map.hpp"
#include "steer/shared.hpp"
#include "steer/statements.hpp"
#include "steer/steer.hpp"

namespace tool {

using namespace anybit;

namespace {

struct ReadOptions : StimuliOptions {
  std::string method = "pca", save, heat_map, text;
};

std::optional<int> parse_options(int argc, const char* const* argv, ReadOptions& o) {
  CLI::App app("Finds the direction of a concept in each block's residual stream (LAT, arXiv:2310.01405).", "anybit steer read");
  add_stimuli_options(app, o);
  app.add_option("--method", o.method, "pca of paired differences, difference of the means, or a random baseline")
      ->check(CLI::IsMember({"pca", "mean_difference", "random"}))
      ->capture_default_str();
  app.add_option("--save", o.save, "Write the directions here (.safetensors)")->type_name("FILE");
  app.add_option("--heat-map", o.heat_map, "Write the scores of each token of --text in each block here (SVG)")
      ->type_name("FILE");
  app.add_option("--text", o.text, "The text of the heat map")->type_name("TEXT");
  if (const auto end = parse(app, argc, argv,
                             "anybit steer read model.gguf facts_true_false.csv --save truth.safetensors --heat-map truth.svg "
                             "--text 'The sun is cold.'"))
    return end;
  if (const std::string error = error_in(o); !error.empty()) return wrong_use("steer read", error);
  if (o.heat_map.empty() != o.text.empty()) return wrong_use("steer read", "--heat-map and --text belong together");
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"DATA", o.data});
  return check_files("steer read", inputs, {{"--save", o.save}, {"--heat-map", o.heat_map}, {"--json", o.json}});
}

Status write_heat_map(const model::Model& m, const std::vector<steer::BlockDirection>& directions, const ReadOptions& o,
                      ExecutorRef executor) {
  ANYBIT_TRY(const std::vector<model::TokenId> ids, steer::encode_prompt(m.tokenizer, o.text));
  ANYBIT_TRY(Matrix scores, steer::token_scores(m.decoder, ids, directions, {.executor = executor}));
  HeatMap map{.title = "Scores per token and block", .legend = "score over the largest of its block"};
  for (std::size_t i = 0; i < directions.size(); ++i) {
    map.rows.push_back("block " + std::to_string(directions[i].block));
    float most = 0;
    const auto row = scores.view().row(static_cast<Index>(i));
    for (float& s : row) {
      s -= static_cast<float>(directions[i].direction.threshold);
      most = std::max(most, std::abs(s));
    }
    for (float& s : row) s /= most > 0 ? most : 1;  // the stream grows from block to block
  }
  for (const model::TokenId id : ids) map.columns.push_back(printable(m.tokenizer.token(id)));
  map.values = std::as_const(scores).view();
  return write_text(o.heat_map, heat_map_svg(map));
}

int read(int argc, const char* const* argv) {
  ReadOptions o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  const auto failed = [](ExitCode code, const Error& e) { return fail("steer read", code, e); };
  const auto split = read_pairs(o.data, o.most, o.train, o.seed);
  if (!split) return failed(bad_input, split.error());
  const auto m = open_model(o.model, o.tokenizer);
  if (!m) return failed(bad_input, m.error());

  ThreadPool pool(thread_count(o.threads));
  Progress progress;
  const auto states = [&](const steer::Stimuli& s, const char* what) {
    progress.begin(what, 1, 1);
    auto out = steer::states(
        *m, s.texts, o.pattern,
        {.position = o.position, .executor = pool, .progress = [&](Index done, Index total) { progress.update(done, total); }});
    progress.end();
    return out;
  };
  const auto train = states(split->train, "reading statements that fit");
  const auto test = train ? states(split->test, "reading statements that test") : train;
  progress.clear();
  for (const auto* r : {&train, &test})
    if (!*r) return failed(bad_input, r->error());
  const auto method = o.method == "pca"               ? steer::ReadingMethod::pca
                      : o.method == "mean_difference" ? steer::ReadingMethod::mean_difference
                                                      : steer::ReadingMethod::random;
  const auto blocks = steer::read_blocks(method, *train, split->train.labels, *test, split->test.labels, o.seed);
  if (!blocks) return failed(bad_input, blocks.error());

  steer::SteeringFile file{.model = m->name,
                           .fingerprint = steer::model_fingerprint(m->decoder),
                           .pattern = o.pattern,
                           .method = o.method,
                           .position = o.position};
  using nlohmann::ordered_json;
  ordered_json rows = ordered_json::array();
  const std::size_t pairs = split->test.size() / 2;
  if (o.json != "-")
    std::printf("%zu pairs fit, %zu test; in brackets 95 %% intervals\n%-6s %-7s %-20s %-20s %s\n", split->train.size() / 2,
                pairs, "block", "fit", "test, pairs", "test, statements", "explained");
  for (const steer::BlockReading& b : *blocks) {
    file.directions.push_back(b.direction);
    const steer::BlockDirection& d = b.direction;
    rows.push_back({{"block", d.block},
                    {"train_pair_accuracy", b.train_pairs},
                    {"test_pair_accuracy", b.test_pairs},
                    {"test_statement_accuracy", b.test_rows},
                    {"explained", d.direction.explained}});
    if (o.json != "-")
      std::printf("%-6lld %-7.3f %-20s %-20s %.3f\n", static_cast<long long>(d.block), b.train_pairs,
                  with_interval(b.test_pairs, pairs).c_str(), with_interval(b.test_rows, 2 * pairs).c_str(),
                  d.direction.explained);
  }
  if (!o.save.empty())
    if (const auto saved = steer::save_steering(o.save, file); !saved) return failed(cannot_write, saved.error());
  if (!o.heat_map.empty())
    if (const auto drawn = write_heat_map(*m, file.directions, o, pool); !drawn)
      return failed(exit_code_of_write(drawn.error()) == cannot_write ? cannot_write : bad_input, drawn.error());
  return write_json("steer read", o.json,
                    ordered_json{{"model", m->name},
                                 {"data", o.data},
                                 {"template", o.pattern},
                                 {"method", o.method},
                                 {"train_pairs", split->train.size() / 2},
                                 {"test_pairs", pairs},
                                 {"blocks", std::move(rows)}});
}

}  // namespace

int run_steer_read(int argc, const char* const* argv) {
  return run_command([&] { return read(argc, argv); });
}

}  // namespace tool
