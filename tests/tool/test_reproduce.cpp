// The reproduction tool: its claims, its verdicts, and the whole of it on a small generated model.

#ifdef ANYBIT_PROGRAM

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "program.hpp"
#include "reproduce/claims.hpp"
#include "reproduce/verdict.hpp"
#include "support/catch.hpp"
#include "support/source_dir.hpp"

using namespace reproduce;
using test_support::read_file;
using test_tool::contains, test_tool::Ended;

namespace {

const std::string own_claims = std::string(test_support::source_dir()) + "/tools/reproduce/claims.json";

class Run : public test_tool::Program {
 public:
  Ended tool(const std::string& arguments) const { return run("reproduce " + arguments); }
  Ended on_model(const std::string& arguments) const {
    return tool(model() + " --evaluate " + path("text.txt") + " --tokens 128 --calibration-tokens 128 --window 64 " + arguments);
  }
};

std::string claims_error(const std::string& text) {
  const test_support::TemporaryFolder folder;
  std::ofstream(folder / "claims.json", std::ios::binary) << text;
  const auto claims = read_claims(folder / "claims.json", experiments());
  return claims ? "no error" : claims.error().message;
}

/// A file of claims that is right but for one replacement.
std::string with(const std::string& part, const std::string& other) {
  std::string text = R"({"tables": [{"name": "t", "experiment": "qlora", "paper": "p", "table": "q", "measure": "perplexity",
      "models": ["A", "B"], "not_at_hand": "why", "baseline": "float",
      "rows": [{"setting": "float", "values": [3, 4]}, {"setting": "nf4", "values": [5, null]}]}],
    "statements": [{"name": "s", "experiment": "qlora", "paper": "p", "text": "x", "lower": "nf4", "than": "int4"}]})";
  const std::size_t at = text.find(part);
  REQUIRE(at != std::string::npos);
  return text.replace(at, part.size(), other);
}

/// Predictions whose losses exceed those of `of` by `shift` on average, more or less by `spread`.
Measured shifted(const Measured& of, double shift, double spread) {
  Measured m;
  for (std::size_t i = 0; i < 400; ++i)
    m.nll.push_back((of.nll.empty() ? 2 + std::sin(static_cast<double>(i)) : of.nll[i]) + shift + (i % 2 ? spread : -spread));
  double sum = 0;
  for (const double v : m.nll) sum += v;
  m.perplexity = std::exp(sum / static_cast<double>(m.nll.size()));
  return m;
}

}  // namespace

TEST_CASE("the claims have all fields, known experiments and a figure for every row") {
  const auto known = experiments();
  const auto claims = read_claims(own_claims, known);
  INFO((claims ? std::string() : claims.error().message));
  REQUIRE(claims);
  std::set<std::string> covered;
  for (const ClaimTable& t : claims->tables) {
    INFO(t.name);
    covered.insert(t.experiment);
    for (const ClaimRow& r : t.rows) {
      INFO(r.setting);
      std::size_t figures = 0;
      for (const auto& v : r.values) {
        figures += v.has_value();
        if (v) CHECK(*v > 1);
      }
      CHECK((figures > 0 || !r.not_run.empty()));
    }
  }
  CHECK(covered.size() == known.size());
  for (const Experiment& e : known) {
    std::set<std::string> names{float_setting};
    for (const Setting& s : e.settings) CHECK(names.insert(s.name).second);
  }
}

TEST_CASE("wrong claims are refused by place and reason") {
  CHECK(claims_error(with("\"name\"", "\"name\"")) == "no error");
  CHECK(contains(claims_error("{"), "is not JSON"));
  CHECK(contains(claims_error(with("\"measure\": \"perplexity\",", "")), "table 1: lacks 'measure'"));
  CHECK(contains(claims_error(with("\"measure\": \"perplexity\"", "\"measure\": \"\"")), "measure is not a text"));
  CHECK(contains(claims_error(with("\"paper\": \"p\", \"text\"", "\"text\"")), "statement 1: lacks 'paper'"));
  CHECK(contains(claims_error(with("qlora", "qlorb")), "there is no experiment 'qlorb'"));
  CHECK(contains(claims_error(with("nf4", "nf5")), "no setting 'nf5'"));
  CHECK(contains(claims_error(with("int4", "int5")), "no setting 'int5'"));
  CHECK(contains(claims_error(with("[5, null]", "[5]")), "table 1, row 2: 1 values for 2 models"));
  CHECK(contains(claims_error(with("[5, null]", "[5, \"6\"]")), "neither a number nor null"));
  CHECK(
      contains(claims_error(with("\"baseline\": \"float\"", "\"baseline\": \"int4\"")), "baseline 'int4' is not among the rows"));
  CHECK(contains(claims_error(with("\"than\"", "\"then\"")), "'then'"));
  CHECK(contains(claims_error(with("\"name\": \"s\"", "\"name\": \"t\"")), "the name t is taken"));
  const auto none = read_claims("no/such/file", experiments());
  REQUIRE(!none);
  CHECK(contains(none.error().message, "cannot be read"));
}

TEST_CASE("a statement holds, does not hold, or is too close to tell") {
  Results r;
  r["a"] = shifted({}, 0, 0);
  r["near"] = shifted(r["a"], 0.01, 0.5);   // 0.01 +/- 0.025
  r["far"] = shifted(r["a"], 0.3, 0.5);     // 0.30 +/- 0.025
  r["sure"] = shifted(r["a"], 0.01, 0.01);  // 0.01 +/- 0.0005
  Statement s;
  const auto lower = [&](const char* a, const char* b, double by) {
    s = {};
    s.lower = a, s.than = b, s.by = by;
    return judge(s, r).outcome;
  };
  CHECK(lower("a", "far", 1) == Outcome::holds);
  CHECK(lower("far", "a", 1) == Outcome::does_not_hold);
  CHECK(lower("a", "near", 1) == Outcome::too_close);
  CHECK(lower("a", "sure", 1) == Outcome::holds);
  CHECK(lower("a", "far", 1.2) == Outcome::holds);
  CHECK(lower("a", "far", 1.5) == Outcome::does_not_hold);
  const auto equal = [&](const char* a, const char* b, double within) {
    s = {};
    s.equal = a, s.to = b, s.within = within;
    return judge(s, r).outcome;
  };
  CHECK(equal("a", "sure", 0.02) == Outcome::holds);
  CHECK(equal("sure", "a", 0.02) == Outcome::holds);
  CHECK(equal("a", "far", 0.02) == Outcome::does_not_hold);
  CHECK(equal("far", "a", 0.02) == Outcome::does_not_hold);
  CHECK(equal("a", "near", 0.02) == Outcome::too_close);
  const auto best = [&](std::vector<std::string> names) {
    s = {};
    s.best = std::move(names), s.among = {"a", "near", "far", "sure"};
    return judge(s, r).outcome;
  };
  CHECK(best({"a", "near"}) == Outcome::holds);
  CHECK(best({"a", "far"}) == Outcome::too_close);  // a is the least, but may not be less than near
  CHECK(best({"far"}) == Outcome::does_not_hold);
  CHECK(best({"near"}) == Outcome::too_close);
  CHECK(log_ratio(r["a"], r["far"]).value == Approx(0.3));
}

TEST_CASE("a table runs on a small model, the same for any number of threads") {
  const Run run;
  nlohmann::json reports[2];
  for (int i = 0; i < 2; ++i) {
    const auto o = run.on_model("--table qlora-types --threads " + std::to_string(i + 1) + " --json " + run.path("r.json"));
    INFO(o.err);
    REQUIRE(o.exit_code == 0);
    CHECK(contains(o.out, "nf4-dq"));
    CHECK(contains(o.out, "not run: MMLU after fine-tuning: anybit does not fine-tune"));
    reports[i] = nlohmann::json::parse(read_file(run.path("r.json")));
  }
  CHECK(reports[0] == reports[1]);
  const auto& table = reports[0].at("tables").at(0);
  CHECK(table.at("table") == "qlora-types");
  for (const auto& row : table.at("rows")) {
    if (row.contains("not_run")) continue;
    CHECK(row.at("ours").get<double>() > 1);
    CHECK(row.at("claim").get<double>() > 1);
    if (row.at("setting") == "int4") CHECK(row.at("ours_ratio") == 1);
  }
  CHECK(!reports[0].at("statements").empty());
}

TEST_CASE("outliers put into a model change nothing until activations are rounded, and smoothing takes them out") {
  const Run run;
  const auto o = run.on_model("--table smoothquant --json " + run.path("r.json"));
  INFO(o.err);
  REQUIRE(o.exit_code == 0);
  const auto report = nlohmann::json::parse(read_file(run.path("r.json")));
  const auto kl = [&](const std::string& setting) {
    for (const auto& s : report.at("experiments").at(0).at("settings"))
      if (s.at("setting") == setting) return s.at("kl").get<double>();
    FAIL("no setting " << setting);
    return 0.0;
  };
  CHECK(std::abs(kl("outliers-float")) < 1e-6);
  CHECK(kl("outliers-naive") > 4 * kl("naive"));
  CHECK(kl("outliers-256-naive") > kl("outliers-naive"));
  // The scale of a channel takes up what the construction multiplied it with, whatever alpha.
  CHECK(kl("outliers-alpha-0.5") == Approx(kl("alpha-0.5")).epsilon(0.05));
  CHECK(kl("outliers-alpha-0.8") == Approx(kl("alpha-0.8")).epsilon(0.05));
}

TEST_CASE("wrong arguments and inputs of the reproduction tool") {
  const Run run;
  const auto fails = [&](const Ended& o, int code, const std::string& part) {
    INFO(o.err);
    CHECK(o.exit_code == code);
    CHECK(contains(o.err, part));
  };
  fails(run.tool(""), 2, "MODEL is required");
  fails(run.tool("x"), 2, "--evaluate is required");
  const std::string files = run.model() + " --evaluate " + run.path("text.txt");
  fails(run.tool(files + " --window 8"), 2, "--window is 8");
  fails(run.on_model("--table gptq-opd"), 2, "--table gptq-opd: there is none; there are gptq-opt");
  fails(run.on_model("--as GPT-7"), 2, "--as GPT-7: no table has that model");
  fails(run.tool(files + " --tokens 100000"), 3, "100000 are needed");
  fails(run.on_model("--claims " + run.path("text.txt")), 3, "is not JSON");
  fails(run.tool("--evaluate " + run.path("text.txt") + " " + run.path("none.gguf")), 3, "none.gguf");
  fails(run.on_model("--table qlora-types --json " + run.path("text.txt") + "/r.json"), 4, "text.txt");
  const auto list = run.tool("--list");
  CHECK(list.exit_code == 0);
  CHECK(contains(list.out, "wanda-llama2"));
}

#endif
