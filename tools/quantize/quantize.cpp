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
#include "shared/source_tree.hpp"
#include "shared/text.hpp"

namespace tool {

using namespace anybit;
using model::ModelRecipe;

namespace {

std::optional<int> parse_options(int argc, const char* const* argv, Options& o) {
  std::optional<double> target;
  CLI::App app("Quantizes a model by one recipe, or to a size, and writes one file.", "anybit quantize");
  add_model(app, o.model);
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
  add_quantization_options(app, o);
  app.add_flag("--int8-activations", o.int8_activations,
               "The file says that products round activations to 8 bits, one scale per token: faster, a little less exact");
  add_json(app, o.json, "the report", "the text");
  if (const auto end = parse(app, argc, argv, "anybit quantize model.gguf model.safetensors --recipe gptq-best-int4-g128"))
    return end;
  if (target) o.target_bpw.push_back(*target);
  o.evaluates = false;
  if (!target && o.recipes.size() != 1)
    return wrong_use("quantize",
                     o.recipes.empty() ? "give --recipe or --target-bpw" : "one file has one recipe: give one, or --target-bpw");
  if (const std::string error = settle_quantization_options(o); !error.empty()) return wrong_use("quantize", error);
  return std::nullopt;
}

Status check_files(const Options& o, const std::string& name) {
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"--calibrate", o.calibrate});
  if (o.calibrate.empty())
    for (std::string& path : documentation_files(source_tree())) inputs.push_back({"a default text", std::move(path)});
  return check_roles(inputs, {{"OUT", o.save}, {"--json", o.json}, {"--state", o.state}, {"--state", state_folder(o, name)}});
}

nlohmann::ordered_json to_json(const Options& o, const Made& made, const evaluate::ReportRow& size) {
  using nlohmann::ordered_json;
  return ordered_json{{"model", o.model},
                      {"file", o.save},
                      {"recipe", made.plan.name},
                      {"description", made.description},
                      {"bits_per_weight_linears", size.bits_per_weight_linears},
                      {"bits_per_weight_file", size.bits_per_weight_file},
                      {"bytes", size.bytes},
                      {"quantize_s", made.quantize_s},
                      {"remarks", made.remarks}};
}

int quantize(int argc, const char* const* argv) {
  const auto failed = [](ExitCode code, const Error& e) { return fail("quantize", code, e); };
  Options o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  RecipeBook book = named_recipes();
  if (o.recipes.empty()) book = width_recipes();
  const auto recipes = find_recipes(book, o.recipes);
  if (!recipes) return failed(usage, recipes.error());
  const auto own = find_own_recipes(book, o);
  if (!own) return failed(usage, own.error());
  if (const auto possible = check_guidance(o, *recipes); !possible) return failed(usage, possible.error());
  if (o.int8_activations) book.round_activations();
  if (o.rotate) book.rotate();
  if (!o.target_bpw.empty())
    if (const auto possible = check_candidates(*recipes); !possible) return failed(usage, possible.error());
  if (const auto apart = check_files(o, recipes->front()->name); !apart) return failed(usage, apart.error());
  for (const std::string& path : {o.save, o.json})
    if (!path.empty())
      if (const auto writable = check_writable(path); !writable) return failed(cannot_write, writable.error());

  Progress progress;
  const auto bench = Workbench::prepare(o, *recipes, *own, progress);
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
  return write_json("quantize", o.json, to_json(o, *made, size));
}

}  // namespace

int run_quantize(int argc, const char* const* argv) {
  return run_command([&] { return quantize(argc, argv); });
}

}  // namespace tool
