#pragma once
// Shared by all commands of the program: exit codes, errors, and a standard output that is checked.

#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

#include <anybit/core/result.hpp>

namespace tool {

/// As every --help lists them.
enum ExitCode { success = 0, internal = 1, usage = 2, bad_input = 3, cannot_write = 4, recipe_failed = 5 };

/// Runs one command; the exit code of the program. Ctrl-C ends it at once except while a file stands under its temporary name. A
/// limit on the size of files (ulimit -f) makes a write fail instead of ending the program. Where standard output could not be
/// written, the exit code is cannot_write unless the command failed otherwise.
int run_command(const std::function<int()>& command);

/// "anybit compare: message" on stderr, with names in it made printable; returns the code.
int fail(std::string_view command, ExitCode code, std::string_view message);
int fail(std::string_view command, ExitCode code, const anybit::Error& e);

/// A wrong command line: the message and where to read on; returns `usage`.
int wrong_use(std::string_view command, std::string_view message);

/// Whether a person watches.
bool is_terminal(std::FILE* stream);

/// Of an error while a model was made and written: cannot_write where the operating system refused, else recipe_failed.
ExitCode exit_code_of_write(const anybit::Error& e);

}  // namespace tool
