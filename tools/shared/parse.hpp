#pragma once
// Options that the command lines of all commands share.

#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include <anybit/core/types.hpp>

#include "command.hpp"

namespace tool {

/// The exit code with which the program ends now: after --help, or after an error, which has been printed. `more` stands at the
/// end of --help.
inline std::optional<int> parse(CLI::App& app, int argc, const char* const* argv, const std::string& example,
                                const std::string& more = {}) {
  app.footer(
      "Example: " + example +
      "\nExit codes: 0 done; 1 an error of the program itself; 2 wrong use of the command line; 3 an input cannot be used;\n"
      "4 an output cannot be written; 5 a recipe failed (of several the others are reported)." +
      (more.empty() ? "" : "\n" + more));
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    app.exit(e);
    return usage;
  }
  return std::nullopt;
}

/// What open_model() reads.
inline constexpr const char* readable_models = "Hugging Face folder, GGUF file, llama2.c checkpoint, or what anybit has written";
/// MODEL, which must be given.
CLI::Option* add_model(CLI::App& app, std::string& path);
/// --tokenizer
CLI::Option* add_tokenizer(CLI::App& app, std::string& path);
/// --threads, 0 to 1024, for thread_count().
CLI::Option* add_threads(CLI::App& app, anybit::Index& threads);
/// --template: a name of model::chat_templates, or empty.
CLI::Option* add_chat_template(CLI::App& app, std::string& name);
/// --parse-special, of a command that reads `what`: "the text", "the texts".
CLI::Option* add_parse_special(CLI::App& app, bool& parse_special, const std::string& what);
/// --expert-share, QuantizeOptions::expert_share.
CLI::Option* add_expert_share(CLI::App& app, float& share);
/// --int8-activations, of a command that runs a model.
CLI::Option* add_int8_activations(CLI::App& app, bool& int8_activations);
/// --json, which has `what`, "the figures", and on standard output takes the place of `instead`, "the text".
CLI::Option* add_json(CLI::App& app, std::string& path, const std::string& what, const std::string& instead);

}  // namespace tool
