#include "quantize.hpp"

#include <cstdio>
#include <filesystem>
#include <optional>

#include <nlohmann/json.hpp>

#include "compare/workbench.hpp"
#include "shared/file_roles.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/text.hpp"

namespace tool {

using namespace anybit;
using model::ModelRecipe;

namespace {

std::optional<int> parse_options(int argc, const char* const* argv, Options& o) {
  std::optional<double> target;
  CLI::App app("Quantizes a model by one recipe, or to a size, and writes one file.", "anybit quantize");
  app.add_option("MODEL", o.model, "GGUF file (llama architecture) or llama2.c checkpoint")->required();
  app.add_option("OUT", o.save, "The file to write (.safetensors)")->required();
  app.add_option("--recipe", o.recipes,
                 "A name (anybit compare --list shows them), or a recipe written out: 'awq | gptq(damp=0.01) uint4/g128/f16'.\n"
                 "With --target-bpw it may be repeated: what each matrix may get")
      ->type_name("RECIPE")
      ->expected(1)
      ->take_all();
  app.add_option(
         "--target-bpw", target,
         "Bits per weight of all matrices, scales counted: each gets the recipe that serves the model best (docs/bits.md)")
      ->type_name("BITS");
  app.add_option("--calibrate", o.calibrate,
                 "UTF-8 text from which calibrated methods learn; default: this project's documentation")
      ->type_name("FILE");
  app.add_option("--calibration-tokens", o.calibration_tokens,
                 "Calibration tokens, at least 64; default 4096, or what the text has")
      ->type_name("N");
  app.add_option("--head", o.head, "Recipe of the output head, one that learns nothing; default: 8 bits in groups of 32")
      ->type_name("RECIPE");
  app.add_flag("--rotate", o.rotate, "Rotate the model by random Hadamard matrices first (docs/methods/quarot.md)");
  app.add_flag("--sequential", o.sequential,
               "Calibrate each block on the outputs of the quantized blocks before it (docs/calibration.md)");
  app.add_flag("--true-sequential", o.true_sequential, "The same in four steps per block: q, k, v; o; gate, up; down");
  app.add_option("--state", o.state, "Folder that keeps finished blocks: the same command goes on where it was interrupted")
      ->type_name("DIR");
  app.add_flag("--int8-activations", o.int8_activations, "The file asks for products with activations rounded to 8 bits");
  app.add_flag("--strict", o.strict, "A recipe that cannot be carried out exactly as asked is an error");
  app.add_option("--tokenizer", o.tokenizer, "Tokenizer of a llama2.c checkpoint; default: beside it")->type_name("FILE");
  app.add_option("--threads", o.threads, "Default: as many as the machine runs at once. Results do not depend on it")
      ->type_name("N");
  app.add_option("--json", o.json, "Write the report here; - is standard output, in place of the text")->type_name("FILE");
  app.add_flag("--verbose", o.verbose, "All remarks of the recipe");
  if (const auto end = parse(app, argc, argv, "anybit quantize model.gguf model.safetensors --recipe gptq-best-int4-g128"))
    return end;
  if (target) o.target_bpw.push_back(*target);
  o.evaluates = false;
  if (!target && o.recipes.size() != 1)
    return wrong_use("quantize",
                     o.recipes.empty() ? "give --recipe or --target-bpw" : "one file has one recipe: give one, or --target-bpw");
  if (target && !(*target > 0 && *target <= 32))
    return wrong_use("quantize", "--target-bpw is " + std::to_string(*target) + "; it must be above 0, at most 32");
  if (target && !o.head.empty())
    return wrong_use("quantize", "--head and --target-bpw exclude each other: --target-bpw chooses the head too");
  if (o.calibration_tokens && *o.calibration_tokens < 64)
    return wrong_use("quantize", "--calibration-tokens is " + std::to_string(*o.calibration_tokens) + "; it must be at least 64");
  if (o.threads < 0 || o.threads > 1024)
    return wrong_use("quantize",
                     "--threads is " + std::to_string(o.threads) + "; it must be 1 to 1024, or 0 for all of the machine");
  o.sequential = o.sequential || o.true_sequential;
  if (!o.state.empty() && !o.sequential)
    return wrong_use("quantize", "--state is for --sequential: only that quantizes block by block");
  return std::nullopt;
}

Status check_files(const Options& o, const std::string& name) {
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"--calibrate", o.calibrate});
  if (o.calibrate.empty())
    for (std::string& path : documentation_files(ANYBIT_TOOL_DOCUMENTATION))
      inputs.push_back({"a default text", std::move(path)});
  return check_roles(inputs, {{"OUT", o.save}, {"--json", o.json}, {"--state", o.state}, {"--state", state_folder(o, name)}});
}

std::string to_json(const Options& o, const Made& made, const evaluate::ReportRow& size) {
  using nlohmann::ordered_json;
  return ordered_json{{"model", o.model},
                      {"file", o.save},
                      {"recipe", made.plan.name},
                      {"description", made.description},
                      {"bits_per_weight_linears", size.bits_per_weight_linears},
                      {"bits_per_weight_file", size.bits_per_weight_file},
                      {"bytes", size.bytes},
                      {"quantize_s", made.quantize_s},
                      {"remarks", made.remarks}}
             .dump(2, ' ', false, ordered_json::error_handler_t::replace) +
         "\n";
}

int quantize(int argc, const char* const* argv) {
  const auto failed = [](ExitCode code, const Error& e) { return fail("quantize", code, e); };
  Options o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  RecipeBook book = named_recipes();
  if (o.recipes.empty()) book = width_recipes();
  const auto recipes = find_recipes(book, o.recipes);
  if (!recipes) return failed(usage, recipes.error());
  const auto head = find_head(book, o.head);
  if (!head) return failed(usage, head.error());
  if (o.int8_activations) book.round_activations();
  if (o.rotate) book.rotate();
  if (!o.target_bpw.empty())
    if (const auto possible = check_candidates(*recipes); !possible) return failed(usage, possible.error());
  if (const auto apart = check_files(o, recipes->front()->name); !apart) return failed(usage, apart.error());
  for (const std::string& path : {o.save, o.json})
    if (!path.empty())
      if (const auto writable = check_writable(path); !writable) return failed(cannot_write, writable.error());

  Progress progress;
  const auto bench = Workbench::prepare(o, *recipes, *head, progress);
  if (!bench) {
    progress.clear();
    return failed(bad_input, bench.error());
  }
  const auto made =
      o.target_bpw.empty() ? (*bench)->make(*recipes->front(), o.save) : (*bench)->make_allocated(o.target_bpw[0], o.save);
  progress.clear();
  if (!made) return failed(exit_code_of_write(made.error()), made.error());
  const evaluate::ReportRow size = (*bench)->size_of(*made);
  if (o.json != "-") {
    std::printf("%s: %.3f bits per weight in the linears, %.3f in all, %.1f MB, %.1f s\n", printable(o.save).c_str(),
                size.bits_per_weight_linears, size.bits_per_weight_file, static_cast<double>(size.bytes) * 1e-6,
                made->quantize_s);
    for (const std::vector<std::string>& lines : {(*bench)->remarks(), made->remarks})
      for (const std::string& line : lines) std::printf("%s\n", printable(line).c_str());
  }
  if (!o.json.empty())
    if (const auto written = write_text(o.json, to_json(o, *made, size)); !written) return failed(cannot_write, written.error());
  return success;
}

}  // namespace

int run_quantize(int argc, const char* const* argv) {
  return run_command([&] { return quantize(argc, argv); });
}

}  // namespace tool
