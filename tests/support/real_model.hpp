#pragma once
// The real model that some tests use where it is present: SmolLM2-135M-Instruct in Q4_1, a GGUF file.

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

#include "support/optional.hpp"

namespace test_support {

/// $ANYBIT_TEST_MODEL, or the user's cache, where the demo puts it; empty if absent.
inline std::optional<std::string> real_model() {
  namespace fs = std::filesystem;
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  fs::path file = variable("ANYBIT_TEST_MODEL");
  if (file.empty()) {
    const std::string cache = variable("XDG_CACHE_HOME");
    file =
        (cache.empty() ? fs::path(variable("HOME")) / ".cache" : fs::path(cache)) / "anybit" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  }
  std::error_code ignored;
  if (fs::exists(file, ignored)) return file.string();
  return std::nullopt;
}

}  // namespace test_support

/// Names the model's file in `variable` or ends the test case, saying so.
#define ANYBIT_REAL_MODEL_OR_SKIP(variable)                                                                           \
  const auto variable##_found = test_support::real_model();                                                           \
  ANYBIT_HAVE_OR_SKIP(                                                                                                \
      variable##_found,                                                                                               \
      "SmolLM2-135M-Instruct.Q4_1.gguf is not present (set ANYBIT_TEST_MODEL to its path; scripts/demo fetches it)"); \
  const std::string variable = *variable##_found
