#define CATCH_CONFIG_RUNNER
#include "support/optional.hpp"
#include "support/source_dir.hpp"

#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#endif

int main(int argc, char** argv) { return test_support::optional_tests().exit_status(Catch::Session().run(argc, argv)); }

const char* test_support::source_dir() { return ANYBIT_SOURCE_DIR; }
