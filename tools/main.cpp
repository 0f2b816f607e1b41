// anybit: everything the library does with whole models, from a command line.

#include <algorithm>
#include <cstdio>
#include <string_view>

#include <anybit/core/edit_distance.hpp>
#include <anybit/version.hpp>

#include "compare/compare.hpp"
#include "convert/convert.hpp"
#include "dequantize/dequantize.hpp"
#include "domains/domains.hpp"
#include "generate/generate.hpp"
#include "gradients/gradients.hpp"
#include "inspect/inspect.hpp"
#include "logits/logits.hpp"
#include "perplexity/perplexity.hpp"
#include "quantize/quantize.hpp"
#include "reproduce/reproduce.hpp"
#include "shared/command.hpp"
#include "shared/printable.hpp"
#include "steer/steer.hpp"
#include "tokenize/tokenize.hpp"
#include "train/train.hpp"
#include "wasq/wasq.hpp"

namespace {

struct Command {
  std::string_view name;
  const char* does;
  int (*run)(int argc, const char* const* argv);
};

constexpr Command commands[] = {
    {"quantize", "quantizes a model by one recipe, or to a size, and writes one file", &tool::run_quantize},
    {"compare", "quantizes a model by many recipes and reports size, error and speed of each",
     [](int argc, const char* const* argv) { return tool::run_compare(tool::standard_recipes(), argc, argv); }},
    {"domains", "calibrates by kinds of text and reports what each costs on the others", &tool::run_domains},
    {"perplexity", "measures how well a model predicts a text", &tool::run_perplexity},
    {"generate", "continues a text", &tool::run_generate},
    {"train", "trains a model, or adapters on a packed one", &tool::run_train},
    {"wasq", "evaluates saved models side by side, by prompts", &tool::run_wasq},
    {"logits", "writes logits and hidden states, to compare with other programs", &tool::run_logits},
    {"gradients", "writes a loss and its gradients, to compare with other programs", &tool::run_gradients},
    {"tokenize", "prints the token ids of texts, or the texts of ids", &tool::run_tokenize},
    {"convert", "writes a quantized checkpoint in another format of the field", &tool::run_convert},
    {"dequantize", "writes every weight matrix of a model as float32", &tool::run_dequantize},
    {"steer", "reads concepts from activations and steers the model by them", &tool::run_steer},
    {"inspect", "prints metadata and tensors of a model file", &tool::run_inspect},
    {"reproduce", "runs tables of published papers on a model of yours", &reproduce::run},
};

int print_help() {
  std::printf("anybit quantizes language models at any bit width and runs the packed results.\n\nUsage: anybit COMMAND ...\n\n");
  for (const Command& c : commands) std::printf("  %-11s %s\n", c.name.data(), c.does);
  std::printf(
      "\nanybit COMMAND --help lists a command's options, anybit --version prints the version.\n"
      "Exit codes of all commands: 0 done; 1 an error of the program itself; 2 wrong use of the command line; 3 an input cannot be\n"
      "used; 4 an output cannot be written; 5 a recipe failed (the others are reported).\n");
  return tool::success;
}

int print_version() {
  std::printf("anybit %d.%d.%d\n", ANYBIT_VERSION_MAJOR, ANYBIT_VERSION_MINOR, ANYBIT_VERSION_PATCH);
  return tool::success;
}

int wrong_command(std::string_view name) {
  const auto distance = [&](const Command& c) { return anybit::edit_distance(name, c.name); };
  const Command& nearest = *std::min_element(std::begin(commands), std::end(commands),
                                             [&](const Command& a, const Command& b) { return distance(a) < distance(b); });
  std::fprintf(stderr, "anybit: there is no command '%s'; the nearest is %s (anybit --help lists all)\n",
               tool::printable(name).c_str(), nearest.name.data());
  return tool::usage;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h") return tool::run_command(print_help);
  if (name == "--version") return tool::run_command(print_version);
  if (name.empty()) {
    std::fprintf(stderr, "anybit: name a command (anybit --help lists them)\n");
    return tool::usage;
  }
  for (const Command& c : commands)
    if (c.name == name) return c.run(argc - 1, argv + 1);
  return wrong_command(name);
}
