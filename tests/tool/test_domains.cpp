// `anybit domains` on a small model and generated texts.

#ifdef ANYBIT_PROGRAM

#include <string>

#include <nlohmann/json.hpp>

#include "program.hpp"
#include "support/catch.hpp"

using nlohmann::json;
using test_tool::contains, test_tool::Ended, test_tool::Program;

namespace {

/// Two kinds of text: the program's own, and instructions with code.
void write_domains(const Program& p) {
  std::string code;
  for (int i = 0; i < 80; ++i)
    code += R"({"prompt": "def f():\n", "canonical_solution": "  return )" + std::to_string(i * i) + "\\n\"}\n";
  p.write("code.jsonl", code);
}

}  // namespace

TEST_CASE("domains: a row for every domain and pair, a column for every domain, the same for any number of threads") {
  const Program p;
  write_domains(p);
  const std::string command = "domains " + p.model() + " prose=" + p.path("text.txt") + " code=" + p.path("code.jsonl") +
                              " --recipe nearest-int4-g128 --recipe gptq-int3-g128 --calibration-tokens 256 --tokens 128";
  const Ended e = p.run(command + " --json " + p.path("one.json") + " --threads 1");
  INFO(e.err << e.out);
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "gptq-int3-g128, KL (nats) on"));
  CHECK(contains(e.out, "\nprose + code  "));
  json one = json::parse(p.read("one.json"));
  REQUIRE(one["domains"].size() == 2);
  CHECK(one["domains"][1]["name"] == "code");
  CHECK(one["domains"][0]["calibration_tokens"] == 256);
  REQUIRE(one["recipes"].size() == 2);
  CHECK(one["recipes"][0]["rows"].size() == 1);  // nearest learns nothing
  CHECK(one["recipes"][0]["rows"][0]["calibrated_on"] == "none");
  const json& rows = one["recipes"][1]["rows"];
  REQUIRE(rows.size() == 3);
  const auto kl = [&](std::size_t row, const char* domain) { return rows[row]["evaluated_on"][domain]["kl_mean"].get<double>(); };
  CHECK(kl(0, "prose") > 0);
  CHECK(kl(0, "code") != kl(1, "code"));
  CHECK(kl(2, "code") != kl(1, "code"));

  REQUIRE(p.run(command + " --json " + p.path("two.json") + " --threads 2").exit_code == 0);
  json two = json::parse(p.read("two.json"));
  one.erase("seconds"), two.erase("seconds");
  CHECK(one == two);

  // One domain is what compare measures of the same tokens; a mixture needs two.
  const Ended alone = p.run("domains " + p.model() + " prose=" + p.path("text.txt") +
                            " --recipe gptq-int3-g128 --calibration-tokens 256 --tokens 128 --json -");
  INFO(alone.err);
  REQUIRE(alone.exit_code == 0);
  const json only = json::parse(alone.out)["recipes"][0]["rows"];
  REQUIRE(only.size() == 1);
  CHECK(only[0]["evaluated_on"]["prose"] == rows[0]["evaluated_on"]["prose"]);
  CHECK(p.run(command + " --no-mixtures --json " + p.path("three.json")).exit_code == 0);
  CHECK(json::parse(p.read("three.json"))["recipes"][1]["rows"].size() == 2);
}

TEST_CASE("domains: wrong use and bad input") {
  const Program p;
  write_domains(p);
  const auto refused = [&](const std::string& arguments, int code, const std::string& says) {
    const Ended e = p.run("domains " + arguments);
    INFO(arguments << "\n" << e.err);
    CHECK(e.exit_code == code);
    CHECK(contains(e.err, says));
  };
  const std::string text = p.path("text.txt");
  refused(p.model() + " " + text, 2, "is not NAME=FILE");
  refused(p.model() + " a=" + text + " a=" + p.path("code.jsonl"), 2, "two domains are named a");
  refused(p.model() + " a=" + text + " --tokens 5", 2, "--tokens is 5; it must be at least 64");
  refused(p.model() + " a=" + text + " --recipe gptp-int4-g128", 2, "gptq-int4-g128");
  refused(p.model() + " a=" + text + " --json " + text, 2, text);
  p.write("short.txt", "Too short.");
  refused(p.model() + " a=" + p.path("short.txt"), 3, "128 are needed to calibrate and evaluate");
  refused(p.model() + " a=" + p.path("missing.txt"), 3, "missing.txt");
  refused(p.model() + " a=" + text + " --recipe 'rotated | gptq uint4/g128/f16'", 2, "rotates the model");
}

#endif
