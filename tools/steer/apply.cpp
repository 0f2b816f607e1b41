// `anybit steer apply`: the effect of a file on one prompt, coefficient by coefficient.

#include <cmath>
#include <cstdio>
#include <optional>

#include <nlohmann/json.hpp>

#include <anybit/evaluate/svg_shapes.hpp>
#include <anybit/steer/mechanism.hpp>

#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "steer/shared.hpp"
#include "steer/steer.hpp"

namespace tool {

using namespace anybit;

namespace {

struct ApplyOptions {
  std::string model, tokenizer, prompt, wanted, other, json, svg;
  std::vector<double> coefficients{-8, -4, -2, -1, 0, 1, 2, 4, 8};
  SteerOptions steer;
  Index threads = 0;
};

std::optional<int> parse_options(int argc, const char* const* argv, ApplyOptions& o) {
  CLI::App app("Shifts a prompt's activations and prints logit(wanted) - logit(other) per coefficient.", "anybit steer apply");
  add_model(app, o.model);
  add_steer_options(app, o.steer, false);
  app.add_option("--prompt", o.prompt, "The text; names of control tokens in it are these tokens")->type_name("TEXT")->required();
  app.add_option("--wanted", o.wanted, "A text whose first token is wanted next, ' true'")->type_name("TEXT")->required();
  app.add_option("--other", o.other, "A text whose first token it is compared with, ' false'")->type_name("TEXT")->required();
  app.add_option("--coefficients", o.coefficients, "As --steer-coefficient of anybit generate")
      ->type_name("C")
      ->capture_default_str();
  app.add_option("--svg", o.svg, "Draw the effect here")->type_name("FILE");
  add_tokenizer(app, o.tokenizer);
  add_threads(app, o.threads);
  add_json(app, o.json, "the figures", "the text");
  if (const auto end =
          parse(app, argc, argv,
                "anybit steer apply model.gguf --steer truth.safetensors --prompt 'The moon is made of cheese. This is' "
                "--wanted ' true' --other ' false'"))
    return end;
  if (o.steer.file.empty()) return wrong_use("steer apply", "give --steer, a file of anybit steer read or probe");
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"--steer", o.steer.file});
  return check_files("steer apply", inputs, {{"--json", o.json}, {"--svg", o.svg}});
}

std::string picture(const std::vector<double>& at, const std::vector<double>& effect, const ApplyOptions& o) {
  std::vector<std::array<double, 2>> points;
  for (std::size_t i = 0; i < at.size(); ++i) points.push_back({at[i], effect[i]});
  const auto [left, right] = std::minmax_element(at.begin(), at.end());
  const auto [low, high] = std::minmax_element(effect.begin(), effect.end());
  const double spread = *high > *low ? *high - *low : 1;
  const evaluate::SvgPlot plot{.at = {.left = 70, .top = 46, .width = 480, .height = 260},
                               .x = {*left, *right > *left ? *right : *left + 1},
                               .y = {*low - 0.05 * spread, *high + 0.05 * spread}};
  std::string body = plot.title("logit(" + o.wanted + ") - logit(" + o.other + ")") + plot.x_name("coefficient");
  for (const double v : {*low, (*low + *high) / 2, *high}) body += plot.row(v, evaluate::detail::fixed(v, 2));
  for (const double v : at) body += plot.column(v, evaluate::detail::fixed(v, 0));
  body += plot.curve(points, "#1f5fa8");
  for (const auto& p : points) body += plot.mark(p, 0, "#1f5fa8");
  return evaluate::svg_page({.width = 590, .height = 360, .title = "Effect of steering per coefficient"}, body);
}

int apply(int argc, const char* const* argv) {
  ApplyOptions o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  const auto failed = [](ExitCode code, const Error& e) { return fail("steer apply", code, e); };
  const auto m = open_model(o.model, o.tokenizer);
  if (!m) return failed(bad_input, m.error());
  const auto file = open_steering(o.steer.file, m->decoder);
  if (!file) return failed(bad_input, file.error());
  const auto ids = steer::encode_prompt(m->tokenizer, o.prompt);
  if (!ids) return failed(bad_input, ids.error());
  const auto pair = token_pair(m->tokenizer, o.wanted, o.other);
  if (!pair) return fail("steer apply", usage, pair.error());

  ThreadPool pool(thread_count(o.threads));
  std::vector<double> effect;
  using nlohmann::ordered_json;
  ordered_json rows = ordered_json::array();
  if (o.json != "-") std::printf("%-12s %s\n", "coefficient", "logit difference");
  for (const double c : o.coefficients) {
    const auto taps = steering_taps(m->decoder, *file, o.steer, c, static_cast<Index>(ids->size()));
    if (!taps) return failed(bad_input, taps.error());
    const auto difference = steer::logit_difference(m->decoder, *ids, *pair, *taps, pool);
    if (!difference) return failed(bad_input, difference.error());
    effect.push_back(*difference);
    rows.push_back({{"coefficient", c}, {"logit_difference", *difference}});
    if (o.json != "-") std::printf("%-12g %.4f\n", c, *difference);
  }
  if (!o.svg.empty())
    if (const auto drawn = write_text(o.svg, picture(o.coefficients, effect, o)); !drawn)
      return failed(cannot_write, drawn.error());
  return write_json("steer apply", o.json,
                    ordered_json{{"model", m->name},
                                 {"steer", o.steer.file},
                                 {"prompt", o.prompt},
                                 {"wanted", m->tokenizer.token(pair->wanted)},
                                 {"other", m->tokenizer.token(pair->other)},
                                 {"effect", std::move(rows)}});
}

}  // namespace

int run_steer_apply(int argc, const char* const* argv) {
  return run_command([&] { return apply(argc, argv); });
}

}  // namespace tool
