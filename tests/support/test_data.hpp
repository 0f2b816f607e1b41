#pragma once
// Optional reference data: outputs of reference implementations and a tiny real model. The tests pass without them and
// say what they skipped.

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

#include "support/optional.hpp"
#include "support/source_dir.hpp"

namespace test_support {

/// The file `relative` ("vectors/ggml.safetensors") below $ANYBIT_TEST_DATA, or beside the source tree; empty if absent.
inline std::optional<std::string> test_data(const std::string& relative) {
  namespace fs = std::filesystem;
  const char* set = std::getenv("ANYBIT_TEST_DATA");
  const fs::path root = set ? fs::path(set) : fs::path(source_dir()) / ".." / "shared";
  std::error_code ignored;
  if (fs::path file = root / relative; fs::exists(file, ignored)) return file.string();
  return std::nullopt;
}

}  // namespace test_support

/// Names the file in `variable` or ends the test case, saying so.
#define ANYBIT_TEST_DATA_OR_SKIP(variable, relative)                                                                  \
  const auto variable##_found = test_support::test_data(relative);                                                    \
  ANYBIT_HAVE_OR_SKIP(variable##_found, relative " is not present (set ANYBIT_TEST_DATA to the folder that has it)"); \
  const std::string variable = *variable##_found
