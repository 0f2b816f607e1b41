#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "shared/outputs.hpp"

namespace reproduce {

using nlohmann::ordered_json;

namespace {

#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
std::string
print(const char* format, ...) {
  char text[1024];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

/// The column that ours stands next to.
std::size_t column(const Report& r, const ClaimTable& t) {
  const auto as = std::find(t.models.begin(), t.models.end(), r.as);
  return as == t.models.end() ? 0 : static_cast<std::size_t>(as - t.models.begin());
}
bool same_model(const Report& r, const ClaimTable& t) { return !r.as.empty() && t.models[column(r, t)] == r.as; }

std::optional<double> claimed(const ClaimTable& t, const std::string& setting, std::size_t model) {
  for (const ClaimRow& row : t.rows)
    if (row.setting == setting) return row.values[model];
  return std::nullopt;
}
/// To the baseline of the same model.
std::optional<double> claimed_ratio(const ClaimTable& t, const ClaimRow& row, std::size_t model) {
  const auto base = claimed(t, t.baseline, model);
  if (!base || !row.values[model]) return std::nullopt;
  return *row.values[model] / *base;
}

/// The column of the row's claim: the table's, or the first model that has this row.
std::size_t column(const Report& r, const ClaimTable& t, const ClaimRow& row) {
  std::size_t c = column(r, t);
  if (!row.values[c])
    for (std::size_t i = 0; i < row.values.size(); ++i)
      if (row.values[i]) return i;
  return c;
}

std::string number(std::optional<double> v) {
  if (!v) return "-";
  return print(std::abs(*v) >= 1000 ? "%.4g" : std::abs(*v) >= 100 ? "%.1f" : "%.3f", *v);
}

/// "4.97 to 1.2e4" over all models.
std::string range(const ClaimTable& t, const ClaimRow& row) {
  double low = INFINITY, high = -INFINITY;
  for (std::size_t i = 0; i < t.models.size(); ++i)
    if (const auto ratio = claimed_ratio(t, row, i)) low = std::min(low, *ratio), high = std::max(high, *ratio);
  if (!(low <= high)) return "-";
  return low == high ? number(low) : number(low) + " to " + number(high);
}

std::string names_of(const ClaimTable& t, const std::string& without) {
  std::string text;
  for (const std::string& m : t.models)
    if (m != without) text += (text.empty() ? "" : ", ") + m;
  return text;
}

ordered_json finite(double v) { return std::isfinite(v) ? ordered_json(v) : ordered_json(nullptr); }
ordered_json finite(std::optional<double> v) { return v ? finite(*v) : ordered_json(nullptr); }

}  // namespace

const Found& Report::of(const std::string& experiment) const {
  return *std::find_if(found.begin(), found.end(), [&](const Found& f) { return f.experiment->name == experiment; });
}

std::string measured_text(const Found& f) {
  std::string out = f.experiment->title + "\n";
  out += print("  %-20s %10s %9s %10s %9s %7s  %s\n", "setting", "perplexity", "+/-", "/ float", "KL", "bits", "");
  const Measured& reference = f.results.at(float_setting);
  const auto line = [&](const std::string& name, const std::string& description) {
    const auto found = f.results.find(name);
    if (found == f.results.end()) return;
    const Measured& m = found->second;
    out += print("  %-20s %10s %9s %10s %9.5f %7s  %s\n", name.c_str(), number(m.perplexity).c_str(),
                 number(m.plus_minus).c_str(), number(m.perplexity / reference.perplexity).c_str(), m.kl,
                 m.bits_per_weight > 0 ? print("%.3f", m.bits_per_weight).c_str() : "", description.c_str());
  };
  line(float_setting, "the model as it is");
  for (const Setting& s : f.experiment->settings) line(s.name, s.description);
  for (const auto& [name, message] : f.failed) out += "  " + name + " failed: " + message + "\n";
  return out;
}

std::string table_text(const Report& r, const ClaimTable& t) {
  const Found& f = r.of(t.experiment);
  const std::size_t c = column(r, t);
  const bool same = same_model(r, t);
  std::string out = t.name + ": " + t.paper + "; " + t.table + "; " + t.measure + "\n";
  out += print("  %-20s %10s %10s  %-18s %10s %10s %10s\n", "", ("claim"), ("/ " + t.baseline).c_str(), "all models", "ours",
               ("/ " + t.baseline).c_str(), same ? "difference" : "of ratios");
  const auto base = f.results.find(t.baseline);
  for (const ClaimRow& row : t.rows) {
    const auto found = f.results.find(row.setting);
    if (!row.not_run.empty() || found == f.results.end() || base == f.results.end()) continue;
    const std::size_t at = column(r, t, row);
    const double ours = found->second.perplexity, ratio = ours / base->second.perplexity;
    const auto claim = row.values[at], claim_ratio = claimed_ratio(t, row, at);
    const std::optional<double> difference = same && claim ? std::optional(ours - *claim)
                                             : claim_ratio ? std::optional(ratio - *claim_ratio)
                                                           : std::nullopt;
    out += print("  %-20s %10s %10s  %-18s %10s %10s %10s%s\n", row.setting.c_str(), number(claim).c_str(),
                 number(claim_ratio).c_str(), range(t, row).c_str(), number(ours).c_str(), number(ratio).c_str(),
                 ((difference && *difference > 0 ? "+" : "") + number(difference)).c_str(),
                 at == c ? "" : ("  (claim of " + t.models[at] + ")").c_str());
  }
  out += "  claims are of " + t.models[c] + "; ours of " + r.model + "\n";
  for (const ClaimRow& row : t.rows) {
    if (!row.not_run.empty()) out += "  not run: " + row.setting + ": " + row.not_run + "\n";
    if (const auto failed = f.failed.find(row.setting); failed != f.failed.end())
      out += "  not run: " + row.setting + ": " + failed->second + "\n";
  }
  if (const std::string others = names_of(t, same ? r.as : ""); !others.empty())
    out += "  not run: " + others + ": " + t.not_at_hand + "\n";
  return out;
}

std::string statements_text(const Report& r, const std::string& experiment) {
  const Found& f = r.of(experiment);
  std::string out;
  for (const Statement* s : r.statements) {
    if (s->experiment != experiment) continue;
    bool complete = true;
    for (const std::string& name : s->settings()) complete = complete && f.results.contains(name);
    const Verdict v = complete ? judge(*s, f.results) : Verdict{Outcome::too_close, "a setting failed"};
    out += print("  %-17s  %s: %s\n                     %s\n", complete ? name(v.outcome) : "not run", s->paper.c_str(),
                 s->text.c_str(), v.figures.c_str());
  }
  return out;
}

std::string to_json(const Report& r) {
  ordered_json whole{{"model", r.model},
                     {"model_file", r.model_file},
                     {"as", r.as},
                     {"evaluate", r.evaluated},
                     {"calibrate", r.calibrated},
                     {"predictions", r.predictions},
                     {"window", r.window},
                     {"calibration_tokens", r.calibration_tokens}};
  ordered_json& experiments = whole["experiments"] = ordered_json::array();
  for (const Found& f : r.found) {
    ordered_json settings = ordered_json::array();
    for (const auto& [name, m] : f.results)
      settings.push_back({{"setting", name},
                          {"perplexity", finite(m.perplexity)},
                          {"plus_minus", finite(m.plus_minus)},
                          {"ratio_to_float", finite(m.perplexity / f.results.at(float_setting).perplexity)},
                          {"kl", finite(m.kl)},
                          {"kl_plus_minus", finite(m.kl_plus_minus)},
                          {"bits_per_weight", finite(m.bits_per_weight)}});
    ordered_json failed = ordered_json::object();
    for (const auto& [name, message] : f.failed) failed[name] = message;
    experiments.push_back({{"experiment", f.experiment->name}, {"settings", settings}, {"failed", failed}});
  }
  ordered_json& tables = whole["tables"] = ordered_json::array();
  for (const ClaimTable* t : r.tables) {
    const Found& f = r.of(t->experiment);
    ordered_json rows = ordered_json::array();
    for (const ClaimRow& row : t->rows) {
      const std::size_t at = column(r, *t, row);
      ordered_json j{{"setting", row.setting},
                     {"claim_model", t->models[at]},
                     {"claim", finite(row.values[at])},
                     {"claim_ratio", finite(claimed_ratio(*t, row, at))}};
      const auto ours = f.results.find(row.setting), base = f.results.find(t->baseline);
      if (!row.not_run.empty()) {
        j["not_run"] = row.not_run;
      } else if (ours == f.results.end() || base == f.results.end()) {
        j["not_run"] = "failed";
      } else {
        j["ours"] = finite(ours->second.perplexity);
        j["ours_ratio"] = finite(ours->second.perplexity / base->second.perplexity);
      }
      rows.push_back(std::move(j));
    }
    tables.push_back({{"table", t->name},
                      {"paper", t->paper},
                      {"measure", t->measure},
                      {"baseline", t->baseline},
                      {"not_run", names_of(*t, same_model(r, *t) ? r.as : "") + ": " + t->not_at_hand},
                      {"rows", rows}});
  }
  ordered_json& statements = whole["statements"] = ordered_json::array();
  for (const Statement* s : r.statements) {
    const Found& f = r.of(s->experiment);
    bool complete = true;
    for (const std::string& name : s->settings()) complete = complete && f.results.contains(name);
    ordered_json j{{"statement", s->name}, {"paper", s->paper}, {"text", s->text}};
    const Verdict v = complete ? judge(*s, f.results) : Verdict{};
    j["verdict"] = complete ? name(v.outcome) : "not run";
    j["figures"] = v.figures;
    statements.push_back(std::move(j));
  }
  return tool::text_of(whole);
}

std::string list_text(const Claims& claims, const std::vector<Experiment>& known) {
  std::string out;
  for (const Experiment& e : known) {
    out += e.name + ": " + e.title + "\n";
    for (const ClaimTable& t : claims.tables)
      if (t.experiment == e.name) out += print("  table %-18s %s; %s\n", t.name.c_str(), t.paper.c_str(), t.table.c_str());
    for (const Setting& s : e.settings) out += print("  %-24s %s\n", s.name.c_str(), s.description.c_str());
  }
  return out;
}

}  // namespace reproduce
