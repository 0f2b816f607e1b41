#include "support/optional.hpp"

using test_support::OptionalTests;

namespace {
void want(bool there) { ANYBIT_HAVE_OR_SKIP(there, "this is how it looks"); }
}  // namespace

TEST_CASE("optional tests: skipped ones have a status of their own, and only where they are alone") {
  const auto status = [](const char* mode, int reached, int skipped, int failed) {
    OptionalTests tests;
    tests.mode = mode;
    for (int i = 0; i < reached; ++i) CHECK(tests.elsewhere() == (tests.mode == "elsewhere"));
    tests.skipped = skipped;
    return tests.exit_status(failed);
  };
  CHECK(status("only", 1, 0, 0) == 0);
  CHECK(status("only", 1, 1, 0) == 77);
  CHECK(status("only", 2, 1, 3) == 3);
  CHECK(status("only", 0, 0, 0) == 1);  // no such test case
  CHECK(status("elsewhere", 1, 0, 0) == 0);
  CHECK(status("elsewhere", 1, 0, 4) == 4);
  CHECK(status("", 1, 1, 0) == 0);
}

TEST_CASE("optional tests: a test case ends where something is missing") {
  OptionalTests& tests = test_support::optional_tests();
  const OptionalTests before = tests;
  tests.mode = "";
  want(true);
  CHECK(tests.skipped == before.skipped);
  want(false);
  CHECK(tests.skipped == before.skipped + 1);
  tests.mode = "elsewhere";
  want(false);
  CHECK(tests.skipped == before.skipped + 1);
  CHECK(tests.reached == before.reached + 3);
  tests = before;
}
