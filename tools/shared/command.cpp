#include "command.hpp"

#include <csignal>
#include <cstdio>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

#include "printable.hpp"

namespace tool {

using namespace anybit;

int run_command(const std::function<int()>& command) {
#if defined(SIGXFSZ)
  std::signal(SIGXFSZ, SIG_IGN);
#endif
  const int code = command();
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (written || code != success) return code;
  std::fprintf(stderr, "anybit: standard output cannot be written; look at the free space of its disk\n");
  return cannot_write;
}

int fail(std::string_view command, ExitCode code, std::string_view message) {
  std::fprintf(stderr, "anybit %s: %s\n", std::string(command).c_str(), printable(message).c_str());
  return code;
}
int fail(std::string_view command, ExitCode code, const Error& e) { return fail(command, code, e.message); }

int wrong_use(std::string_view command, std::string_view message) {
  std::fprintf(stderr, "%s\nRun anybit %s --help for more information.\n", printable(message).c_str(),
               std::string(command).c_str());
  return usage;
}

bool is_terminal([[maybe_unused]] std::FILE* stream) {
#if defined(__unix__) || defined(__APPLE__)
  return isatty(fileno(stream)) != 0;
#else
  return false;
#endif
}

ExitCode exit_code_of_write(const Error& e) { return e.code == ErrorCode::io ? cannot_write : recipe_failed; }

}  // namespace tool
