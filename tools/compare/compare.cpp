#include "compare.hpp"

#include <cstdio>
#include <filesystem>

#include <anybit/evaluate/svg.hpp>

#include "options.hpp"
#include "shared/command.hpp"
#include "shared/file_roles.hpp"
#include "shared/machine.hpp"
#include "shared/outputs.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"
#include "shared/source_tree.hpp"
#include "shared/text.hpp"
#include "workbench.hpp"

namespace tool {

using namespace anybit;
using model::ModelRecipe;

namespace {

int fail(ExitCode code, const Error& e) { return tool::fail("compare", code, e); }

const char* activations(Compute c) {
  if (c == Compute::int8_static) return ", 8-bit activations, one calibrated scale";
  return rounds_to_int8(c) ? ", 8-bit activations" : "";
}

void list(const RecipeBook& book) {
  std::size_t width = 0;
  for (const ModelRecipe& r : book.all()) width = std::max(width, r.name.size());
  std::printf("%-*s  bits/weight  recipe and scheme (bits of a 4096 x 4096 layer)\n", static_cast<int>(width), "name");
  for (const ModelRecipe& r : book.all())
    std::printf("%-*s  %11.3f  %s, %s%s\n", static_cast<int>(width), r.name.c_str(), r.bits_per_weight({4096, 4096}),
                r.description.c_str(), std::string(r.scheme->name).c_str(), activations(r.compute));
}

/// Where one of `count` models puts its file of this kind, given `path` on the command line; empty: nowhere.
std::string output_path(const std::string& path, const std::string& name, const char* extension, std::size_t count) {
  if (path.empty() || count == 1) return path;
  return (std::filesystem::path(path) / (file_name(name) + extension)).string();
}

/// Every file that will be written, by the option that asks for it.
std::vector<FileRole> outputs_of(const Options& o, const std::vector<const ModelRecipe*>& recipes) {
  std::vector<FileRole> out{{"--json", o.json}, {"--svg", o.svg}};
  std::vector<std::string> names;
  for (const double bits : o.target_bpw) names.push_back(mixed_name(bits));
  if (names.empty())
    for (const ModelRecipe* r : recipes) names.push_back(r->name);
  for (const std::string& name : names) {
    out.push_back({"--save", output_path(o.save, name, ".safetensors", names.size())});
    out.push_back({"--widths-svg", output_path(o.widths_svg, name, ".svg", names.size())});
  }
  return out;
}

/// An error where an output would overwrite an input or another output.
Status check_files(const Options& o, const std::vector<const ModelRecipe*>& recipes) {
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"--calibrate", o.calibrate});
  inputs.push_back({"--evaluate", o.evaluate});
  if (o.calibrate.empty() || o.evaluate.empty())
    for (std::string& path : documentation_files(source_tree())) inputs.push_back({"a default text", std::move(path)});
  std::vector<FileRole> outputs = outputs_of(o, recipes);
  if (!o.state.empty()) {
    outputs.push_back({"--state", o.state});
    for (const ModelRecipe* r : recipes) outputs.push_back({"--state", state_folder(o, r->name)});
  }
  return check_roles(inputs, outputs);
}

Status check_outputs(const Options& o, const std::vector<const ModelRecipe*>& recipes) {
  for (const FileRole& f : outputs_of(o, recipes))
    if (!f.path.empty()) {
      ANYBIT_TRY_STATUS(check_writable(f.path));
    }
  return Ok{};
}

Status write_outputs(const Options& o, const evaluate::EvaluationReport& report) {
  if (!o.json.empty()) {
    ANYBIT_TRY_STATUS(write_text(o.json, to_json(report)));
  }
  if (!o.svg.empty()) {
    ANYBIT_TRY_STATUS(write_text(o.svg, evaluate::svg(report)));
  }
  return Ok{};
}

/// Adds those of `more` whose names are free.
void add_missing(RecipeBook& book, const RecipeBook& more) {
  for (const ModelRecipe& r : more.all())
    if (!book.has(r.name)) book.add(r);
}

int run(RecipeBook book, const Options& options) {
  if (!options.target_bpw.empty() && options.recipes.empty()) book = width_recipes();
  if (!options.recipes.empty()) add_missing(book, named_recipes());
  auto recipes = find_recipes(book, options.recipes);
  if (!recipes) return fail(usage, recipes.error());
  const auto own = find_own_recipes(book, options);
  if (!own) return fail(usage, own.error());
  if (options.rotate) book.rotate();
  if (!options.target_bpw.empty())
    if (auto possible = check_candidates(*recipes); !possible) return fail(usage, possible.error());
  if (auto possible = check_guidance(options, *recipes); !possible) return fail(usage, possible.error());
  if (auto apart = check_files(options, *recipes); !apart) return fail(usage, apart.error());
  if (auto writable = check_outputs(options, *recipes); !writable) return fail(cannot_write, writable.error());

  Progress progress;
  if (options.dry_run) {
    const auto forecast = Workbench::forecast(options, *recipes, *own, progress);
    progress.clear();
    if (!forecast) return fail(bad_input, forecast.error());
    std::fputs(forecast->c_str(), stdout);
    return success;
  }
  auto prepared = Workbench::prepare(options, *recipes, *own, progress);
  if (!prepared) {
    progress.clear();
    return fail(bad_input, prepared.error());
  }
  Workbench& bench = **prepared;
  evaluate::EvaluationReport report;
  report.model = bench.model().name;
  report.machine = machine_description(bench.threads());
  report.calibration_tokens = bench.calibration_tokens();
  report.evaluation_tokens = bench.evaluation_tokens();
  report.notes = bench.notes();
  if (options.rotate)
    report.notes.push_back("Every recipe quantized the rotated model: " + describe(model::RotationOptions{}) + ".");
  auto reference = bench.reference_row();
  if (!reference) return fail(internal, reference.error());
  report.rows.push_back(*std::move(reference));

  if (options.kv.quantized()) {
    auto row = bench.cache_row();
    if (!row) return fail(internal, row.error());
    report.rows.push_back(*std::move(row));
  }

  int worst = success;
  const auto add = [&](Result<evaluate::ReportRow> row) {
    if (!row) {
      progress.clear();
      const ExitCode code = exit_code_of_write(row.error());
      fail(code, row.error());
      if (worst != cannot_write) worst = code;
      return false;
    }
    for (const std::string& remark : row->remarks) report.notes.push_back(row->recipe + ": " + remark);
    report.rows.push_back(*std::move(row));
    return true;
  };
  const std::size_t targets = options.target_bpw.size();
  for (const double bits : options.target_bpw) {
    const std::string name = mixed_name(bits);
    if (!add(bench.allocated_row(bits, output_path(options.save, name, ".safetensors", targets)))) continue;
    const std::string picture = output_path(options.widths_svg, name, ".svg", targets);
    if (picture.empty()) continue;
    if (auto written = write_text(picture, bench.widths_picture()); !written) return fail(cannot_write, written.error());
  }
  if (targets > 0) recipes->clear();
  for (const ModelRecipe* recipe : *recipes)
    add(bench.row(*recipe, output_path(options.save, recipe->name, ".safetensors", recipes->size())));
  progress.clear();
  if (options.json != "-")
    std::printf("%s on %s\n%lld calibration tokens, %lld evaluation tokens\n\n%s", printable(report.model).c_str(),
                report.machine.c_str(), static_cast<long long>(report.calibration_tokens),
                static_cast<long long>(report.evaluation_tokens), printable(evaluate::table(report)).c_str());
  std::fflush(stdout);
  if (auto written = write_outputs(options, report); !written) return fail(cannot_write, written.error());
  return worst;
}

}  // namespace

int run_compare(const RecipeBook& book, int argc, const char* const* argv) {
  return run_command([&]() -> int {
    const Parsed parsed = parse(argc, argv);
    if (!parsed.options) return parsed.exit_code;
    if (!parsed.options->list) return run(book, *parsed.options);
    RecipeBook all = book;
    add_missing(all, named_recipes());
    list(all);
    return success;
  });
}

}  // namespace tool
