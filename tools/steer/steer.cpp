#include "steer.hpp"

#include <cstdio>
#include <string>
#include <string_view>

#include "shared/command.hpp"
#include "shared/printable.hpp"

namespace tool {

namespace {

struct Part {
  std::string_view name;
  const char* does;
  int (*run)(int argc, const char* const* argv);
};

constexpr Part parts[] = {
    {"read", "finds the direction of a concept in each block", &run_steer_read},
    {"probe", "fits probes per block and per head, and an intervention on the best heads", &run_steer_probe},
    {"apply", "shifts a prompt's activations and prints the logit difference of two tokens per coefficient", &run_steer_apply},
    {"lorra", "trains adapters that move activations along directions", &run_steer_lorra},
    {"truthfulqa", "measures an intervention on TruthfulQA: MC1, MC2, cross entropy and KL", &run_steer_truthfulqa},
    {"compare", "tables directions, probes and steering of quantized models", &run_steer_compare},
};

int print_help() {
  std::printf(
      "anybit steer reads concepts from a model's activations and steers the model by them.\n\nUsage: anybit steer PART ...\n\n");
  for (const Part& p : parts) std::printf("  %-10s %s\n", p.name.data(), p.does);
  std::printf("\nanybit steer PART --help lists its options; anybit generate --steer FILE steers a text.\n");
  return success;
}

}  // namespace

int run_steer(int argc, const char* const* argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h") return run_command(print_help);
  for (const Part& p : parts)
    if (p.name == name) return p.run(argc - 1, argv + 1);
  std::string all;
  for (const Part& p : parts) all += (all.empty() ? "" : ", ") + std::string(p.name);
  return wrong_use("steer", (name.empty() ? "name a part: " : "there is no part '" + printable(name) + "': ") + all);
}

}  // namespace tool
