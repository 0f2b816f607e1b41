#include "domains.hpp"

#include <algorithm>
#include <cstdio>

#include <nlohmann/json.hpp>

#include <anybit/core/finite.hpp>

#include "compare/workbench.hpp"
#include "recipes/recipe_book.hpp"
#include "shared/conversations.hpp"
#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"
#include "shared/text.hpp"
#include "study.hpp"

namespace tool {

using namespace anybit;
using model::ModelRecipe;

namespace {

struct DomainsOptions {
  std::string model, tokenizer, chat_template, json;
  std::vector<std::string> texts, recipes;
  Index calibration_tokens = 8192, tokens = 2048, threads = 0;
  float expert_share = model::default_expert_share;
  bool no_mixtures = false, parse_special = false;
  std::vector<FileRole> domains;  ///< the name of each, and its file
};

/// NAME=FILE, each name once.
Status split_domains(DomainsOptions& o) {
  for (const std::string& text : o.texts) {
    const std::size_t at = text.find('=');
    if (at == std::string::npos || at == 0 || at + 1 == text.size())
      return Error{ErrorCode::invalid_argument, "'" + text + "' is not NAME=FILE, as in code=main.cpp"};
    FileRole domain{text.substr(0, at), text.substr(at + 1)};
    for (const FileRole& known : o.domains)
      if (known.role == domain.role)
        return Error{ErrorCode::invalid_argument,
                     "two domains are named " + domain.role + ": " + known.path + " and " + domain.path + "; rename one"};
    o.domains.push_back(std::move(domain));
  }
  return Ok{};
}

std::optional<int> parse_options(int argc, const char* const* argv, DomainsOptions& o) {
  CLI::App app(
      "Calibrates each recipe on each kind of text and on pairs of them, and prints the KL divergence of every model from the\n"
      "float model on every kind: how far calibration by one domain serves another.",
      "anybit domains");
  add_model(app, o.model);
  app.add_option("TEXTS", o.texts,
                 "NAME=FILE of each domain: a UTF-8 text, code, or JSON lines of instructions, conversations or documents\n"
                 "(docs/calibration.md). The file's first tokens calibrate, those behind them evaluate")
      ->required();
  app.add_option("--recipe", o.recipes,
                 "Recipe, by name or written out; may be repeated. Default: gptq-int4-g128, awq-int4-g128 and both at 3 bits")
      ->type_name("RECIPE")
      ->expected(1)
      ->take_all();
  app.add_option("--calibration-tokens", o.calibration_tokens, "Of each domain, at least 64; or half of what the file has")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--tokens", o.tokens, "Evaluation tokens of each domain, at least 64; likewise")
      ->type_name("N")
      ->capture_default_str();
  app.add_flag("--no-mixtures", o.no_mixtures, "No rows of two domains together");
  add_chat_template(app, o.chat_template);
  add_expert_share(app, o.expert_share);
  add_parse_special(app, o.parse_special, "the texts");
  add_tokenizer(app, o.tokenizer);
  add_threads(app, o.threads);
  add_json(app, o.json, "the result", "the table");
  if (const auto end =
          parse(app, argc, argv, "anybit domains model.gguf prose=book.txt code=humaneval.jsonl chat=conversations.jsonl"))
    return end;
  const auto wrong = [](const std::string& message) { return wrong_use("domains", message); };
  if (const auto split = split_domains(o); !split) return wrong(split.error().message);
  for (const auto& [option, value] : {std::pair("--calibration-tokens", o.calibration_tokens), std::pair("--tokens", o.tokens)})
    if (value < 64) return wrong(std::string(option) + " is " + std::to_string(value) + "; it must be at least 64");
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.insert(inputs.end(), o.domains.begin(), o.domains.end());
  return check_files("domains", inputs, {{"--json", o.json}});
}

Result<std::vector<Domain>> read_domains(const DomainsOptions& o, const model::Model& m) {
  std::vector<Domain> out;
  for (const auto& [name, path] : o.domains) {
    ANYBIT_TRY(const std::string text, read_text(path));
    ANYBIT_TRY(const auto ids, domain_tokens(text, path, m.tokenizer, {o.chat_template, o.model},
                                             o.parse_special ? model::Specials::parsed : model::Specials::as_text));
    ANYBIT_TRY(Domain domain, make_domain(name, path, ids, o.calibration_tokens, o.tokens, m));
    out.push_back(std::move(domain));
  }
  return out;
}

/// How far a row of text reaches on a screen; names come from the command line.
int columns(const std::string& text) { return static_cast<int>(printable(text).size()); }

void print(const std::vector<Domain>& domains, const std::vector<DomainMatrix>& matrices) {
  int first = columns("calibrated on");
  for (const DomainMatrix& m : matrices)
    for (const auto& row : m.rows) first = std::max(first, columns(row.calibration));
  for (const DomainMatrix& m : matrices) {
    std::printf("%s, KL (nats) on\n%-*s", printable(m.recipe).c_str(), first, "calibrated on");
    for (const Domain& d : domains) std::printf("  %*s", std::max(9, columns(d.name)), printable(d.name).c_str());
    std::printf("\n");
    for (const auto& row : m.rows) {
      std::printf("%-*s", first, printable(row.calibration).c_str());
      for (std::size_t e = 0; e < domains.size(); ++e)
        std::printf("  %*.5f", std::max(9, columns(domains[e].name)), row.kl[e].value);
      std::printf("\n");
    }
    std::printf("\n");
  }
  std::printf("Tokens:");
  for (const Domain& d : domains)
    std::printf(" %s %zu to calibrate, %zu to evaluate (%lld predictions);", printable(d.name).c_str(),
                d.calibration.tokens.size(), d.evaluation.tokens.size(), static_cast<long long>(d.evaluation.scored()));
  std::printf(" a mixture has those of both.\n");
}

nlohmann::ordered_json to_json(const model::Model& m, const DomainsOptions& o, const std::vector<Domain>& domains,
                               const std::vector<DomainMatrix>& matrices, double seconds) {
  using nlohmann::ordered_json;
  const auto number = [](double v) { return is_finite(v) ? ordered_json(v) : ordered_json(nullptr); };
  ordered_json out{{"model", m.name}, {"file", o.model}, {"domains", ordered_json::array()}, {"recipes", ordered_json::array()}};
  for (std::size_t i = 0; i < domains.size(); ++i)
    out["domains"].push_back({{"name", domains[i].name},
                              {"file", o.domains[i].path},
                              {"calibration_tokens", domains[i].calibration.tokens.size()},
                              {"evaluation_tokens", domains[i].evaluation.tokens.size()},
                              {"predictions", domains[i].evaluation.scored()}});
  for (const DomainMatrix& matrix : matrices) {
    ordered_json rows = ordered_json::array();
    for (const auto& row : matrix.rows) {
      ordered_json kl = ordered_json::object();
      for (std::size_t e = 0; e < domains.size(); ++e)
        kl[domains[e].name] = {{"kl_mean", number(row.kl[e].value)}, {"kl_plus_minus", number(row.kl[e].plus_minus)}};
      rows.push_back({{"calibrated_on", row.calibration}, {"evaluated_on", std::move(kl)}});
    }
    out["recipes"].push_back({{"recipe", matrix.recipe}, {"rows", std::move(rows)}});
  }
  out["seconds"] = seconds;
  return out;
}

int domains(int argc, const char* const* argv) {
  DomainsOptions o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  RecipeBook book = named_recipes();
  if (o.recipes.empty()) o.recipes = {"gptq-int4-g128", "awq-int4-g128", "gptq-int3-g128", "awq-int3-g128"};
  const auto recipes = find_recipes(book, o.recipes);
  if (!recipes) return fail("domains", usage, recipes.error());
  for (const ModelRecipe* r : *recipes)
    if (r->rotation)
      return wrong_use("domains", "recipe " + r->name + " rotates the model, which this comparison does not: leave it out");
  const auto m = open_model(o.model, o.tokenizer);
  if (!m) return fail("domains", bad_input, m.error());
  if (!m->decoder.token_embedding().dense())
    return fail("domains", bad_input, o.model + ": is quantized already: give the file that it was made from");
  const auto texts = read_domains(o, *m);
  if (!texts) return fail("domains", bad_input, texts.error());
  ThreadPool pool(thread_count(o.threads));
  Progress progress;
  const Stopwatch watch;
  const auto matrices = study_domains(m->decoder, *texts, *recipes,
                                      {.mixtures = !o.no_mixtures,
                                       .expert_share = o.expert_share,
                                       .executor = pool,
                                       .progress = [&](const std::string& step, Index done, Index total) {
                                         if (done > 0) progress.end();
                                         progress.begin(step, 1, static_cast<double>(total));
                                       }});
  progress.end();
  progress.clear();
  if (!matrices)
    return fail("domains", matrices.error().code == ErrorCode::not_finite ? bad_input : recipe_failed, matrices.error());
  if (o.json != "-") print(*texts, *matrices);
  return write_json("domains", o.json, to_json(*m, o, *texts, *matrices, watch.seconds()));
}

}  // namespace

int run_domains(int argc, const char* const* argv) {
  return run_command([&] { return domains(argc, argv); });
}

}  // namespace tool
