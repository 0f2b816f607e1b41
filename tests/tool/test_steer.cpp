// steer and generate --steer from end to end, on a small generated model.

#ifdef ANYBIT_PROGRAM

#include <string>

#include <nlohmann/json.hpp>

#include "program.hpp"
#include "support/catch.hpp"

using nlohmann::json;
using test_tool::contains, test_tool::Ended, test_tool::Program;

namespace {

/// Statements about numbers; the quoted ones hold commas and quotes.
void write_statements(const Program& p) {
  std::string csv = "statement,label\n";
  for (int i = 0; i < 24; ++i)
    csv += (i % 3 ? "The line " + std::to_string(i * i) + " goes on" : "\"Line \"\"" + std::to_string(i) + "\"\", goes on\"") +
           "," + std::to_string(i % 2) + "\n";
  p.write("facts.csv", csv);
}

}  // namespace

TEST_CASE("steer: directions and an intervention are read and saved and steer a text") {
  const Program p;
  write_statements(p);
  const std::string data = " " + p.path("facts.csv") + " --template 'Text: {}'";
  const Ended read = p.run("steer read " + p.model() + data + " --save " + p.path("d.safetensors") + " --heat-map " +
                           p.path("map.svg") + " --text 'a text' --json -");
  INFO(read.err);
  REQUIRE(read.exit_code == 0);
  const json report = json::parse(read.out);
  CHECK(report.at("train_pairs") == 6);
  CHECK(report.at("test_pairs") == 6);
  CHECK(report.at("blocks").size() > 0);
  CHECK(contains(p.read("map.svg"), "</svg>"));

  const std::string generate = "generate " + p.model() + " --prompt Line --tokens 8 --ignore-end --json - ";
  const Ended plain = p.run(generate), none = p.run(generate + "--steer " + p.path("d.safetensors") + " --steer-coefficient 0"),
              far = p.run(generate + "--steer " + p.path("d.safetensors") + " --steer-coefficient 1000");
  INFO(far.err);
  REQUIRE((plain.exit_code == 0 && none.exit_code == 0 && far.exit_code == 0));
  CHECK(json::parse(plain.out).at("tokens") == json::parse(none.out).at("tokens"));
  CHECK(json::parse(plain.out).at("tokens") != json::parse(far.out).at("tokens"));
  CHECK(p.run(generate + "--steer " + p.path("d.safetensors") + " --steer-operator projection").exit_code == 0);
  const Ended without_length = p.run(generate + "--steer " + p.path("d.safetensors"));
  CHECK(without_length.exit_code == 3);
  CHECK(contains(without_length.err, "give --steer-coefficient"));
  CHECK(p.run(generate + "--steer-coefficient 3").exit_code == 2);
  CHECK(p.run(generate + "--steer " + p.path("d.safetensors") + " --steer-coefficient 1 --steer-blocks 5-2").exit_code == 3);

  const Ended probes =
      p.run("steer probe " + p.model() + data + " --heads --top 2 --train 0.5 --save " + p.path("iti.safetensors"));
  INFO(probes.err);
  REQUIRE(probes.exit_code == 0);
  CHECK(p.run(generate + "--steer " + p.path("iti.safetensors")).exit_code == 0);
  const Ended applied = p.run("steer apply " + p.model() + " --steer " + p.path("d.safetensors") +
                              " --prompt Line --wanted a --other b --coefficients 0 1 --svg " + p.path("e.svg") + " --json -");
  INFO(applied.err);
  REQUIRE(applied.exit_code == 0);
  CHECK(json::parse(applied.out).at("effect").size() == 2);
}

TEST_CASE("steer: what cannot be used is said with its line") {
  const Program p;
  write_statements(p);
  CHECK(p.run("steer").exit_code == 2);
  CHECK(p.run("steer reed x").exit_code == 2);
  CHECK(p.run("steer read " + p.model() + " " + p.path("facts.csv") + " --template none").exit_code == 2);
  CHECK(p.run("steer read " + p.model() + " " + p.path("facts.csv") + " --position 500").exit_code == 3);
  p.write("bad.csv", "statement,label\nTrue,1\nFalse,no\n");
  const Ended label = p.run("steer read " + p.model() + " " + p.path("bad.csv"));
  CHECK(label.exit_code == 3);
  CHECK(contains(label.err, "line 3: the label is 'no': it must be 0 or 1"));
  p.write("bad.csv", "statement,label\n\"True,1\n");
  CHECK(contains(p.run("steer read " + p.model() + " " + p.path("bad.csv")).err, "a quote is not closed"));
  p.write("bad.csv", "a,b\n");
  CHECK(contains(p.run("steer read " + p.model() + " " + p.path("bad.csv")).err, "statement and label"));
  p.write("bad.csv", "statement,label\na,1\nb,1\n");
  CHECK(p.run("steer read " + p.model() + " " + p.path("bad.csv")).exit_code == 3);
}

#endif
