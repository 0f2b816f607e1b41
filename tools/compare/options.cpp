#include "options.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "recipes/recipe_book.hpp"
#include "shared/conversations.hpp"
#include "shared/parse.hpp"

namespace tool {

std::string mixed_name(double bits) {
  char text[32];
  std::snprintf(text, sizeof text, "mixed-%.6g", bits);
  return text;
}

std::string state_folder(const Options& options, const std::string& recipe) {
  return options.state.empty() ? std::string() : (std::filesystem::path(options.state) / file_name(recipe)).string();
}

void add_quantization_options(CLI::App& app, Options& o) {
  app.add_option("--calibrate", o.calibrate,
                 "What calibrated methods learn from: a UTF-8 text, code, or JSON lines of instructions, conversations or\n"
                 "documents (docs/calibration.md); default: this project's documentation")
      ->type_name("FILE");
  add_chat_template(app, o.chat_template);
  app.add_option("--calibration-tokens", o.calibration_tokens,
                 "Calibration tokens, at least 64; default " + std::to_string(Options{}.calibration_tokens_wanted()) +
                     ", or what the text has")
      ->type_name("N");
  app.add_option("--embedding", o.embedding,
                 "Recipe of the token embedding, and of the head where both are one tensor; one that learns nothing;\n"
                 "default: 8 bits in groups of 32")
      ->type_name("RECIPE");
  app.add_option("--head", o.head, "Recipe of the output head, one that learns nothing; default: 8 bits in groups of 32")
      ->type_name("RECIPE");
  app.add_flag("--rotate", o.rotate, "Rotate the model by random Hadamard matrices first (docs/methods/quarot.md)");
  app.add_option(
         "--guided", o.guided,
         "Weigh the Hessians by the gradient of the end loss, in N groups of rows per matrix (docs/methods/guided_quant.md)")
      ->type_name("N");
  app.add_flag("--sequential", o.sequential,
               "Calibrate each block on the outputs of the quantized blocks before it (docs/calibration.md)");
  app.add_flag("--true-sequential", o.true_sequential, "The same in four steps per block: q, k, v; o; gate, up; down");
  app.add_option("--state", o.state, "Folder that keeps finished blocks: the same command goes on where it was interrupted")
      ->type_name("DIR");
  add_expert_share(app, o.expert_share);
  app.add_flag("--strict", o.strict, "A recipe that cannot be carried out exactly as asked is an error");
  add_tokenizer(app, o.tokenizer);
  add_threads(app, o.threads);
  app.add_flag("--verbose", o.verbose, "All remarks of each recipe");
}

std::string settle_quantization_options(Options& o) {
  constexpr anybit::Index least = 64;
  if (o.calibration_tokens && *o.calibration_tokens < least)
    return "--calibration-tokens is " + std::to_string(*o.calibration_tokens) + "; it must be at least 64";
  for (const double bits : o.target_bpw)
    if (!(bits > 0 && bits <= 32)) return "--target-bpw is " + std::to_string(bits) + "; it must be above 0, at most 32";
  if (!(o.head.empty() && o.embedding.empty()) && !o.target_bpw.empty())
    return std::string(o.head.empty() ? "--embedding" : "--head") +
           " and --target-bpw exclude each other: --target-bpw chooses embedding and head too";
  o.sequential = o.sequential || o.true_sequential;
  if (o.guided < 0) return "--guided is " + std::to_string(o.guided) + "; it must be at least 1, or 0 for plain Hessians";
  if (o.guided > 0 && o.sequential) return "--guided and --sequential exclude each other: gradients are of the whole float model";
  if (o.guided > 0 && !o.target_bpw.empty())
    return "--guided and --target-bpw exclude each other: widths are chosen by plain errors";
  if (!o.state.empty() && !o.sequential) return "--state is for --sequential: only that quantizes block by block";
  return {};
}

Parsed parse(int argc, const char* const* argv) {
  Options o;
  CLI::App app(
      "Quantizes a language model by every recipe (or those named), runs each result from its packed form, and reports its size, its\n"
      "distance from the float model, and its speed.");
  app.name("anybit compare");
  app.add_option("MODEL", o.model, "GGUF file, Hugging Face folder or llama2.c checkpoint");
  app.add_option("--recipe", o.recipes,
                 "Only this recipe, by its name or written out: 'awq | gptq(damp=0.01) uint4/g128/f16'; may be repeated")
      ->type_name("RECIPE")
      ->expected(1)
      ->take_all();
  add_quantization_options(app, o);
  app.add_option("--evaluate", o.evaluate, "A file of the same kinds, on which models are compared")->type_name("FILE");
  app.add_option("--tokens", o.tokens, "Evaluation tokens, at least 64; default 2048 (1024 with --quick), or what the text has")
      ->type_name("N");
  app.add_flag("--quick", o.quick, "Fewer tokens, the same recipes: 1024 to evaluate, 2048 to calibrate");
  app.add_flag("--dry-run", o.dry_run, "Say how large the files will be, how much memory and time they will take, and stop");
  app.add_option(
         "--target-bpw", o.target_bpw,
         "Make one model of this many bits a weight, embedding, head, scales and zero points counted: each matrix gets the\n"
         "recipe that serves the model best, of those named by --recipe or of integers of 2 to 8 bits (docs/bits.md).\n"
         "May be repeated: a model each")
      ->type_name("BITS")
      ->expected(1)
      ->take_all();
  app.add_option("--widths-svg", o.widths_svg,
                 "With --target-bpw: write the picture of what each matrix got here; with several targets a folder, one\n"
                 "mixed-BITS.svg each")
      ->type_name("FILE");
  std::string activations(name(o.activations));
  app.add_option("--activations", activations,
                 "How rows run whose recipe does not say it: activations rounded to 8 bits (int8_per_token, the default,\n"
                 "int8_per_block, int8_folded), bf16, or f32. Weights that cannot multiply in integers stay with f32")
      ->type_name("COMPUTE");
  app.add_option("--kv-bits", o.kv.bits, "Bits of keys and values in the cache: 16, 8, 4, 3 or 2; default: floats")
      ->type_name("N");
  app.add_flag("--kv-hadamard", o.kv.hadamard, "Rotate keys and values, head by head, before they are quantized");
  app.add_option("--save", o.save,
                 "Write the quantized model here; with several recipes or targets a folder, one NAME.safetensors each")
      ->type_name("OUT");
  add_json(app, o.json, "the report", "the table");
  app.add_option("--svg", o.svg, "Write the picture of the report here")->type_name("FILE");
  app.add_option("--out", o.out, "Folder for report.json and report.svg")->type_name("DIR");
  app.add_flag("--list", o.list, "List the recipes with their bits per weight and stop");
  add_parse_special(app, o.parse_special, "the texts");
  if (const auto end = tool::parse(
          app, argc, argv, "anybit compare model.gguf --recipe nearest-int4-g128 --recipe 'gptq(damp=0.01) uint4/g128/f16'",
          "Without --calibrate and --evaluate the project's own documentation is the text: one half calibrates, the other evaluates."))
    return {std::nullopt, *end};
  const auto wrong = [](const std::string& message) { return Parsed{std::nullopt, wrong_use("compare", message)}; };
  if (o.list) return {o, success};
  if (o.model.empty()) return wrong("MODEL is required: a GGUF file, a Hugging Face folder or a llama2.c checkpoint");
  constexpr anybit::Index least = 64;
  if (o.tokens && *o.tokens < least) return wrong("--tokens is " + std::to_string(*o.tokens) + "; it must be at least 64");
  if (const std::string error = settle_quantization_options(o); !error.empty()) return wrong(error);
  for (std::size_t i = 0; i < o.target_bpw.size(); ++i)
    for (std::size_t k = 0; k < i; ++k)
      if (mixed_name(o.target_bpw[k]) == mixed_name(o.target_bpw[i]))
        return wrong("--target-bpw: " + mixed_name(o.target_bpw[i]) + " is asked for twice");
  const auto* const compute = std::find(anybit::compute_names.begin(), anybit::compute_names.end(), activations);
  if (compute == anybit::compute_names.end() || activations == name(anybit::Compute::int8_static))
    return wrong("--activations is '" + activations + "'; it must be int8_per_token, int8_per_block, int8_folded, bf16 or f32");
  o.activations = static_cast<anybit::Compute>(compute - anybit::compute_names.begin());
  const bool by_size = !o.target_bpw.empty();
  if (o.dry_run && by_size) return wrong("--dry-run cannot forecast what --target-bpw chooses: leave one of the two out");
  if (o.dry_run && o.guided > 0) return wrong("--dry-run cannot forecast --guided: leave one of the two out");
  if (!o.widths_svg.empty() && !by_size) return wrong("--widths-svg is for --target-bpw");
  const anybit::nn::KvShape any_model{.head_dim = 1};
  if (const auto possible = check(o.kv, any_model); !possible) return wrong("--kv-bits: " + possible.error().message);
  if (o.kv.hadamard && !o.kv.quantized()) return wrong("--kv-hadamard is for a quantized cache: give --kv-bits too");
  if (!o.out.empty()) {
    if (o.json.empty()) o.json = o.out + "/report.json";
    if (o.svg.empty()) o.svg = o.out + "/report.svg";
  }
  return {o, success};
}

}  // namespace tool
