#pragma once
// Files that the tool writes: whole or not at all.

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include <anybit/core/result.hpp>
#include <anybit/evaluate/report.hpp>

namespace tool {

/// report.json, with exactly the keys that docs/evaluation.md names. What is not a finite number is null.
std::string to_json(const anybit::evaluate::EvaluationReport& report);

/// Indented, with bytes that are no UTF-8 replaced.
std::string text_of(const nlohmann::ordered_json& value);

/// "-" stands for standard output, which is always there. Otherwise makes the folder of `path` if need be and tries to create a
/// file in it, which is removed again: before hours of work.
anybit::Status check_writable(const std::string& path);

/// The file whole or not at all; "-" writes to standard output.
anybit::Status write_text(const std::string& path, const std::string& text);

/// The end of a command that can write JSON: nothing where `path` is empty. The exit code; an error has been printed.
int write_json(std::string_view command, const std::string& path, const nlohmann::ordered_json& value);

/// While one lives, Ctrl-C is not heard: for the moments in which files stand under temporary names. At all other times there
/// are none, and an interruption may end the program at once.
class Uninterrupted {
 public:
  Uninterrupted();
  ~Uninterrupted();
  Uninterrupted(const Uninterrupted&) = delete;

 private:
  void (*interrupt_)(int);
  void (*terminate_)(int);
};

}  // namespace tool
