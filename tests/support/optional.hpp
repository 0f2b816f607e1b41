#pragma once
// Test cases that want something that need not be there: reference data, a model. Without it they skip themselves. Under ctest
// each has an entry of its own, found by the _OR_SKIP in its text (tests/CMakeLists.txt), that is listed as skipped then; the
// entry of its directory leaves it out.

#include <cstdlib>
#include <string_view>

#include "support/catch.hpp"

namespace test_support {

struct OptionalTests {
  int reached = 0, skipped = 0;
  std::string_view mode = std::getenv("ANYBIT_OPTIONAL_TESTS") ? std::getenv("ANYBIT_OPTIONAL_TESTS") : "";

  /// Counts a test case that may skip itself; whether it is left out here.
  bool elsewhere() {
    ++reached;
    return mode == "elsewhere";
  }
  /// The program's exit status: 77, which ctest knows, if nothing failed but something was skipped in an entry of its own.
  int exit_status(int failed) const {
    if (failed != 0 || mode != "only") return failed;
    return reached == 0 ? 1 : skipped > 0 ? 77 : 0;
  }
};
inline OptionalTests& optional_tests() {
  static OptionalTests tests;
  return tests;
}

}  // namespace test_support

/// Ends the test case, saying why, unless `condition` holds. The first such line of a test case ends it silently where its
/// entry is another.
#define ANYBIT_HAVE_OR_SKIP(condition, reason)              \
  do {                                                      \
    if (test_support::optional_tests().elsewhere()) return; \
    if (!(condition)) {                                     \
      ++test_support::optional_tests().skipped;             \
      WARN("skipped: " << reason);                          \
      return;                                               \
    }                                                       \
  } while (false)
