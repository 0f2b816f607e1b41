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

TEST_CASE("steer: contrast vectors steer a text and a contrast with itself does not") {
  const Program p;
  const std::string generate = "generate " + p.model() + " --prompt Line --tokens 8 --ignore-end --json - ";
  const auto tokens = [&](const std::string& options) {
    const Ended e = p.run(generate + options);
    INFO(e.err);
    REQUIRE(e.exit_code == 0);
    return json::parse(e.out).at("tokens");
  };
  const json plain = tokens("");
  CHECK(tokens("--steer-with 'a b' --steer-without 'a b'") == plain);
  CHECK(tokens("--steer-with 'a text' --steer-without line --steer-coefficient 50") != plain);
  CHECK(p.run(generate + "--steer-with a").exit_code == 2);
  CHECK(p.run(generate + "--steer-with a --steer-without b --steer x").exit_code == 2);
}

TEST_CASE("steer: compare tables recipes and draws them, and a kept direction has a row") {
  const Program p;
  write_statements(p);
  const Ended e =
      p.run("steer compare " + p.model() + " " + p.path("facts.csv") + " --template 'Text: {}' --calibrate " +
            p.path("text.txt") + " --evaluate " + p.path("text.txt") +
            " --calibration-tokens 128 --kl-tokens 128 --wanted a --other b --coefficients 1 4 --steered 2 --leakage-blocks 1 "
            "--recipe nearest-int8-g128 --recipe gptq-int3-g128 --recipe awq-int4-g128 --keep 1 --json - --svg " +
            p.path("bits.svg"));
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  const json report = json::parse(e.out);
  const json& rows = report.at("rows");
  REQUIRE(rows.size() == 6);  // float, nearest, and gptq and awq, each also with the direction kept
  CHECK(rows[0].at("recipe") == "float");
  CHECK(rows[0].at("cosine") == Approx(1));
  CHECK(rows[0].at("kl").is_null());
  CHECK(rows[3].at("keep") == 1);
  CHECK(rows[4].at("method") == "awq");
  CHECK(rows[1].at("kl").get<double>() < rows[2].at("kl").get<double>());
  for (const std::size_t i : {1U, 2U, 4U}) {
    CHECK(rows[i].at("leakage").get<double>() > 0);
    CHECK(rows[i].at("leakage_own_direction").get<double>() > 0);
    CHECK(rows[i].at("leakage_after_reprojection").get<double>() < 1e-6);
    CHECK(rows[i].at("effect").size() == 2);
    const json& pairs = rows[i].at("pair_accuracy");
    CHECK((pairs.at("low") <= pairs.at("mean") && pairs.at("mean") <= pairs.at("high")));
  }
  CHECK(contains(p.read("bits.svg"), "</svg>"));
  const auto refused = [&](const std::string& options) {
    return p.run("steer compare " + p.model() + " " + p.path("facts.csv") + " " + options).exit_code;
  };
  CHECK(refused("--coefficients -1") == 2);
  CHECK(refused("--keep 0") == 2);
  CHECK(refused("--kl-tokens 3") == 2);
}

TEST_CASE("steer: truthfulqa scores questions in two folds") {
  const Program p;
  std::string csv = "Type,Question,Best Answer,Correct Answers,Incorrect Answers\n";
  for (int i = 0; i < 16; ++i) {
    const std::string n = std::to_string(i);
    csv += "A,\"Is " + n + ", a number?\",Yes " + n + ",Yes " + n + "; It is " + n + ",No; Never " + n + ".\n";
  }
  p.write("questions.csv", csv);
  const std::string run = "steer truthfulqa " + p.model() + " " + p.path("questions.csv");
  const Ended e = p.run(run + " --heads 2 --alpha 0 5 --text " + p.path("text.txt") + " --text-tokens 256 --json -");
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  const json report = json::parse(e.out);
  REQUIRE(report.at("rows").size() == 5);  // none, two directions with two strengths
  const json& none = report.at("rows")[0];
  CHECK(none.at("kl").get<double>() < 1e-9);
  for (const std::size_t i : {1U, 3U}) {  // no strength, no change
    CHECK(report.at("rows")[i].at("mc1") == none.at("mc1"));
    CHECK(report.at("rows")[i].at("mc2").at("mean").get<double>() ==
          Approx(none.at("mc2").at("mean").get<double>()).margin(1e-6));
    CHECK(report.at("rows")[i].at("kl").get<double>() < 1e-9);
  }
  CHECK(report.at("rows")[2].at("kl").get<double>() > 0);
  CHECK(p.run(run + " --heads 500").exit_code == 2);
  CHECK(p.run(run + " --most 3").exit_code == 2);
  p.write("questions.csv", "Question,Best Answer,Correct Answers,Incorrect Answers\nWhy?,A,A,\n");
  const Ended bad = p.run(run);
  CHECK(bad.exit_code == 3);
  CHECK(contains(bad.err, "line 2: a question needs a text, one best answer, and correct and incorrect answers"));
}

TEST_CASE("steer: lorra trains adapters along saved directions") {
  const Program p;
  write_statements(p);
  const std::string data = " " + p.path("facts.csv") + " --template 'Text: {}'";
  REQUIRE(p.run("steer read " + p.model() + data + " --save " + p.path("d.safetensors")).exit_code == 0);
  const std::string run = "steer lorra " + p.model() + data + " --steer " + p.path("d.safetensors") + " --steer-blocks 1-2 ";
  const Ended e =
      p.run(run + "--wanted a --other b --alpha 0.5 --steps 40 --rate 0.01 --rank 2 --save " + p.path("adapter") + " --json -");
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  const json report = json::parse(e.out);
  REQUIRE(report.at("losses").size() == 40);
  CHECK(report.at("losses")[0].get<double>() == Approx(0.5).epsilon(1e-3));
  CHECK(report.at("losses")[39].get<double>() < 0.4);
  CHECK(contains(p.read("adapter/adapter_config.json"), "\"r\": 2"));
  CHECK(p.run(run + "--wanted a --other a").exit_code == 2);
  CHECK(p.run(run + "--wanted a --other b --beta 1").exit_code == 2);
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
