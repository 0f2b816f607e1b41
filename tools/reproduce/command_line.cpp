#include "command_line.hpp"

#include <cstdio>
#include <filesystem>

#include "shared/parse.hpp"
#include "shared/source_tree.hpp"

namespace reproduce {

namespace {

/// The claims of the source tree that the program was built from; where that is gone, those that were installed with it.
std::string default_claims() {
  namespace fs = std::filesystem;
  std::error_code failed;
  const std::string in_tree = tool::source_tree() + "/tools/reproduce/claims.json";
  if (fs::exists(in_tree, failed)) return in_tree;
  const fs::path program = fs::read_symlink("/proc/self/exe", failed);
  if (failed) return in_tree;
  return (program.parent_path() / "../share/anybit/claims.json").lexically_normal().string();
}

}  // namespace

Parsed parse(int argc, const char* const* argv) {
  Options o;
  o.claims = default_claims();
  CLI::App app(
      "Runs the settings of papers' tables on the model at hand and prints next to each other what the paper claims (value and\n"
      "ratio to its float model), what comes out here, and whether the paper's statements hold.");
  app.name("anybit reproduce");
  app.add_option("MODEL", o.lab.model, "GGUF file, Hugging Face folder or llama2.c checkpoint, with float weights");
  tool::add_tokenizer(app, o.lab.tokenizer);
  app.add_option("--evaluate", o.lab.evaluate, "UTF-8 text that perplexities are of")->type_name("FILE");
  app.add_option("--calibrate", o.lab.calibrate,
                 "UTF-8 text from which methods learn; default: the second half of the other text, of which then only the first "
                 "is evaluated")
      ->type_name("FILE");
  app.add_option("--table", o.tables, "Only this table, or all of this experiment; may be repeated")
      ->type_name("NAME")
      ->expected(1)
      ->take_all();
  app.add_option("--as", o.as, "The model is this one of the papers: compare with its column")->type_name("NAME");
  app.add_option("--tokens", o.lab.tokens, "Evaluation tokens")->type_name("N")->capture_default_str();
  app.add_option("--calibration-tokens", o.lab.calibration_tokens, "Calibration tokens")->type_name("N")->capture_default_str();
  app.add_option("--window", o.lab.window, "Tokens of a window, at most the model's context")
      ->type_name("N")
      ->capture_default_str();
  tool::add_threads(app, o.lab.threads);
  tool::add_json(app, o.json, "the results", "the tables");
  app.add_option("--claims", o.claims, "The claims; default: this project's")->type_name("FILE");
  app.add_flag("--list", o.list, "List tables and settings and stop");
  if (const auto end =
          tool::parse(app, argc, argv, "anybit reproduce model.gguf --evaluate wikitext2-test.txt --table qlora --tokens 1024",
                      "The verdicts do not change the exit code."))
    return {std::nullopt, *end};
  const auto wrong = [](const std::string& message) { return Parsed{std::nullopt, tool::wrong_use("reproduce", message)}; };
  if (o.list) return {o, tool::success};
  if (o.lab.model.empty())
    return wrong("MODEL is required: a GGUF file, a Hugging Face folder or a llama2.c checkpoint with float weights");
  if (o.lab.evaluate.empty()) return wrong("--evaluate is required: a text, such as the test set of WikiText-2");
  for (const auto& [option, value] : {std::pair<const char*, anybit::Index>{"--tokens", o.lab.tokens},
                                      {"--calibration-tokens", o.lab.calibration_tokens},
                                      {"--window", o.lab.window}})
    if (value < 64) return wrong(option + (" is " + std::to_string(value)) + "; it must be at least 64");
  return {o, tool::success};
}

}  // namespace reproduce
