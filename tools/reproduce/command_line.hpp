#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lab_options.hpp"

namespace reproduce {

struct Options {
  LabOptions lab;
  std::vector<std::string> tables;  ///< names of tables or experiments; empty: all
  std::string claims, as, json;
  bool list = false;
};

/// The options, or the exit code with which the program ends now.
struct Parsed {
  std::optional<Options> options;
  int exit_code = 0;
};
Parsed parse(int argc, const char* const* argv);

}  // namespace reproduce
