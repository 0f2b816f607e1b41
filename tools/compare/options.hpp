#pragma once
// The command line.

#include <optional>
#include <string>
#include <vector>

#include <anybit/core/types.hpp>
#include <anybit/kernel/compute.hpp>
#include <anybit/nn/kv_cache.hpp>
#include <anybit/quantize/sibling_quantizer.hpp>

namespace CLI {
class App;
}

namespace tool {

struct Options {
  std::string model, tokenizer;
  std::vector<std::string> recipes;                         ///< empty: all
  std::string calibrate, evaluate;                          ///< empty: the project's documentation
  std::string chat_template;                                ///< of conversations; empty: the model's own
  std::optional<anybit::Index> tokens, calibration_tokens;  ///< as asked for
  anybit::Index threads = 0;                                ///< 0: as many as the machine runs at once
  anybit::nn::KvCacheConfig kv{};                           ///< of every recipe; the reference has floats
  /// Of rows whose recipe does not say it, where products can use it.
  anybit::Compute activations = anybit::Compute::int8_per_token;
  bool strict = false, quick = false, list = false, verbose = false, int8_activations = false, rotate = false;
  bool sequential = false, true_sequential = false;  ///< block by block, on what the quantized blocks before give
  bool dry_run = false;
  bool parse_special = false;                                ///< names of control tokens in texts are these tokens
  bool evaluates = true;                                     ///< false: models are made and saved, not run
  float expert_share = anybit::model::default_expert_share;  ///< of the tokens, that an expert must have seen to learn from them
  anybit::Index guided = 0;        ///< groups of rows per matrix whose Hessians gradients weigh; 0: none
  std::string state;               ///< folder of finished blocks; empty: none
  std::string embedding, head;     ///< recipes of token embedding and output head; empty: 8 bits in groups of 32
  std::vector<double> target_bpw;  ///< bits a weight of all matrices, to be shared out among the recipes: a model each
  std::string widths_svg;          ///< where the pictures of what each matrix got go
  std::string save, json, svg, out;

  anybit::Index tokens_wanted() const { return tokens.value_or(quick ? 1024 : 2048); }
  anybit::Index calibration_tokens_wanted() const { return calibration_tokens.value_or(quick ? 2048 : 4096); }
};

/// The name of the model that --target-bpw makes of `bits` bits a weight.
std::string mixed_name(double bits);

/// Where --state keeps the blocks of the model that this recipe makes; empty without --state.
std::string state_folder(const Options& options, const std::string& recipe);

/// Options of every command that quantizes: calibration, recipe of the head, order of the blocks, threads, tokenizer.
void add_quantization_options(CLI::App& app, Options& options);
/// The error in these options, or empty. Fills in what one of them implies.
std::string settle_quantization_options(Options& options);

/// The options, or the exit code with which the program ends now (after --help, or an error that has been printed).
struct Parsed {
  std::optional<Options> options;
  int exit_code = 0;
};
Parsed parse(int argc, const char* const* argv);

}  // namespace tool
