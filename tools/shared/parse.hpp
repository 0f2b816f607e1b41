#pragma once
// Options that the command lines of all commands share.

#include <optional>
#include <string>

#include <CLI/CLI.hpp>

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

}  // namespace tool
