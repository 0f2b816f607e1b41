#pragma once
// Runs the built program `anybit` in a folder of its own, with a small generated model and a text.

#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace test_tool {

struct Ended {
  int exit_code;
  std::string out, err;
};

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class Program {
 public:
  Program() {
    REQUIRE(shell(std::string(MAKE_TINY_MODEL) + " " + model()).exit_code == 0);
    std::string text;
    for (int i = 0; i < 600; ++i)
      text += "Line " + std::to_string(i * i) + " of a text that goes on and on.\n" + (i % 5 ? "" : "\n");
    write("text.txt", text);
  }
  std::string path(const std::string& name) const { return folder_ / name; }
  std::string model() const { return path("tiny.gguf"); }
  std::size_t files() const { return folder_.files(); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path(name), std::ios::binary) << text; }
  std::string read(const std::string& name) const { return test_support::read_file(path(name)); }

  /// anybit ARGUMENTS, after `before` in the same shell.
  Ended run(const std::string& arguments, const std::string& before = {}) const {
    return shell(before + ANYBIT_PROGRAM + " " + arguments);
  }
  /// anybit compare of the model with few tokens of the text.
  Ended compare(const std::string& arguments, const std::string& before = {}) const {
    return run("compare " + model() + " --calibrate " + path("text.txt") + " --evaluate " + path("text.txt") +
                   " --tokens 128 --calibration-tokens 256 " + arguments,
               before);
  }
  Ended shell(const std::string& command) const {
    const int status = std::system(("{ " + command + "; } >" + path("out") + " 2>" + path("err")).c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read("out"), read("err")};
  }

 private:
  test_support::TemporaryFolder folder_;
};

}  // namespace test_tool
