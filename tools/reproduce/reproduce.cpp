#include "reproduce.hpp"

#include <algorithm>
#include <cstdio>

#include "command_line.hpp"
#include "lab.hpp"
#include "report.hpp"
#include "shared/command.hpp"
#include "shared/file_roles.hpp"
#include "shared/outputs.hpp"
#include "shared/printable.hpp"

namespace reproduce {

using namespace anybit;
using tool::bad_input, tool::cannot_write, tool::ExitCode, tool::printable, tool::recipe_failed, tool::success, tool::usage;

namespace {

int fail(ExitCode code, const Error& e) { return tool::fail("reproduce", code, e); }

/// The tables that were asked for, by their own name or their experiment's.
Result<std::vector<const ClaimTable*>> chosen(const Claims& claims, const std::vector<std::string>& names) {
  std::vector<const ClaimTable*> out;
  for (const ClaimTable& t : claims.tables)
    if (names.empty() ||
        std::any_of(names.begin(), names.end(), [&](const std::string& n) { return n == t.name || n == t.experiment; }))
      out.push_back(&t);
  for (const std::string& n : names)
    if (std::none_of(claims.tables.begin(), claims.tables.end(),
                     [&](const ClaimTable& t) { return n == t.name || n == t.experiment; })) {
      std::string all;
      for (const ClaimTable& t : claims.tables) all += (all.empty() ? "" : ", ") + t.name;
      return Error{ErrorCode::invalid_argument, "--table " + n + ": there is none; there are " + all};
    }
  return out;
}

Status check_name(const Claims& claims, const std::string& as) {
  std::string all;
  for (const ClaimTable& t : claims.tables)
    for (const std::string& m : t.models) {
      if (as.empty() || m == as) return Ok{};
      if (all.find(m) == std::string::npos) all += (all.empty() ? "" : ", ") + m;
    }
  return Error{ErrorCode::invalid_argument, "--as " + as + ": no table has that model; they have " + all};
}

/// What the rows of these tables and the statements about the same settings need. A table asked for by name brings along only
/// statements whose settings all stand in it; an experiment asked for, all of its settings.
bool wanted(const std::vector<std::string>& names, const Experiment& e, const std::vector<const ClaimTable*>& tables,
            const std::string& setting) {
  if (names.empty() || std::find(names.begin(), names.end(), e.name) != names.end()) return true;
  return std::any_of(tables.begin(), tables.end(), [&](const ClaimTable* t) {
    return t->experiment == e.name &&
           (t->baseline == setting || std::any_of(t->rows.begin(), t->rows.end(),
                                                  [&](const ClaimRow& r) { return r.not_run.empty() && r.setting == setting; }));
  });
}

Found run(const Experiment& e, const std::vector<const Setting*>& settings, const Lab& lab) {
  Found f{&e, {{float_setting, lab.float_model()}}, {}};
  for (const Setting* s : settings) {
    lab.begin(e.name + ", " + s->name);
    const auto changed = s->make(lab);
    const auto measured = changed ? lab.measure(*changed) : Result<Measured>(changed.error());
    lab.end();
    if (measured)
      f.results.emplace(s->name, *measured);
    else
      f.failed.emplace(s->name, measured.error().message);
  }
  return f;
}

int run(const Options& o, const Claims& claims, const std::vector<Experiment>& known) {
  const auto tables = chosen(claims, o.tables);
  if (!tables) return fail(usage, tables.error());
  if (const auto known_name = check_name(claims, o.as); !known_name) return fail(usage, known_name.error());
  std::vector<tool::FileRole> inputs = tool::model_inputs(o.lab.model, o.lab.tokenizer);
  inputs.insert(inputs.end(), {{"--evaluate", o.lab.evaluate}, {"--calibrate", o.lab.calibrate}, {"--claims", o.claims}});
  if (const auto end = tool::check_files("reproduce", inputs, {{"--json", o.json}})) return *end;

  struct Plan {
    const Experiment* experiment;
    std::vector<const Setting*> settings;
  };
  std::vector<Plan> plans;
  std::size_t count = 0;
  for (const Experiment& e : known) {
    if (std::none_of(tables->begin(), tables->end(), [&](const ClaimTable* t) { return t->experiment == e.name; })) continue;
    plans.push_back({&e, {}});
    for (const Setting& s : e.settings)
      if (wanted(o.tables, e, *tables, s.name)) plans.back().settings.push_back(&s), ++count;
  }

  tool::Progress progress;
  const auto lab = Lab::open(o.lab, count, progress);
  progress.clear();
  if (!lab) return fail(bad_input, lab.error());
  Report report;
  report.model = (*lab)->model_name(), report.as = o.as;
  report.model_file = o.lab.model, report.evaluated = o.lab.evaluate, report.calibrated = o.lab.calibrate;
  report.predictions = (*lab)->evaluated(), report.window = (*lab)->window(), report.calibration_tokens = (*lab)->calibrated();
  report.tables = *tables;
  const auto show = [&](const std::string& text) {
    if (o.json != "-") std::printf("%s", printable(text).c_str());
  };
  show(report.model + ": " + std::to_string(report.predictions) + " predictions in windows of " + std::to_string(report.window) +
       " tokens, " + std::to_string(report.calibration_tokens) + " calibration tokens\n");
  bool failed = false;
  for (const auto& [experiment, settings] : plans) {
    const Experiment& e = *experiment;
    report.found.push_back(run(e, settings, **lab));
    const Found& f = report.found.back();
    failed = failed || !f.failed.empty();
    for (const Statement& s : claims.statements) {
      const auto names = s.settings();
      if (s.experiment == e.name && std::all_of(names.begin(), names.end(), [&](const std::string& name) {
            return f.results.contains(name) || f.failed.contains(name);
          }))
        report.statements.push_back(&s);
    }
    progress.clear();
    show("\n" + measured_text(f) + "\n");
    for (const ClaimTable* t : *tables)
      if (t->experiment == e.name) show(table_text(report, *t) + "\n");
    show(statements_text(report, e.name));
    std::fflush(stdout);
  }
  if (!o.json.empty())
    if (const auto written = tool::write_text(o.json, to_json(report)); !written) return fail(cannot_write, written.error());
  return failed ? recipe_failed : success;
}

}  // namespace

int run(int argc, const char* const* argv) {
  return tool::run_command([&]() -> int {
    const Parsed parsed = parse(argc, argv);
    if (!parsed.options) return parsed.exit_code;
    const std::vector<Experiment> known = experiments();
    const auto claims = read_claims(parsed.options->claims, known);
    if (!claims) return fail(bad_input, claims.error());
    if (!parsed.options->list) return run(*parsed.options, *claims, known);
    std::printf("%s", list_text(*claims, known).c_str());
    return success;
  });
}

}  // namespace reproduce
