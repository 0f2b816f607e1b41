// `anybit perplexity --by-turn` on a small model and conversations.

#ifdef ANYBIT_PROGRAM

#include <string>

#include <nlohmann/json.hpp>

#include "program.hpp"
#include "support/catch.hpp"

using nlohmann::json;
using test_tool::contains, test_tool::Ended, test_tool::Program;

namespace {

/// Three conversations of four, two and one turns, long enough for positions outside the floats that every cache keeps; the last
/// one is as MT-Bench has them.
void write_conversations(const Program& p) {
  std::string words;
  for (int i = 0; i < 30; ++i) words += " line " + std::to_string(i * i);
  const auto turn = [&](const char* role, const std::string& text) {
    return std::string(R"({"role": ")") + role + R"(", "text": ")" + text + words + "\"}";
  };
  p.write("talk.jsonl", R"({"turns": [{"role": "system", "text": "Be brief."}, )" + turn("user", "One") + ", " +
                            turn("assistant", "Two") + ", " + turn("user", "Three") + ", " + turn("assistant", "Four") + "]}\n" +
                            R"({"turns": [)" + turn("user", "What") + ", " + turn("assistant", "That") + "]}\n" +
                            R"({"turns": ["Why)" + words + "\"]}\n");
}

}  // namespace

TEST_CASE("perplexity --by-turn: turns add up to the whole, 16 bits cost nothing and fewer bits more") {
  const Program p;
  write_conversations(p);
  const std::string command = "perplexity " + p.model() + " " + p.path("talk.jsonl") + " --by-turn --template plain";
  const Ended e = p.run(command + " --json " + p.path("one.json") + " --threads 1");
  INFO(e.err << e.out);
  REQUIRE(e.exit_code == 0);
  CHECK(e.err.empty());
  CHECK(contains(e.out, "loss 16"));
  CHECK(contains(e.out, "\n all              3"));
  json one = json::parse(p.read("one.json"));
  CHECK(one["template"] == "plain");
  CHECK(one["conversations"] == 3);
  CHECK(one["cut"] == 0);
  REQUIRE(one["caches"].size() == 4);
  double last = -1;
  for (const json& cache : one["caches"]) {
    CAPTURE(cache["bits"].get<int>());
    const double kl = cache["kl_mean"];
    CHECK(kl > last);
    last = kl;
    REQUIRE(cache["turns"].size() == 4);
    double kl_sum = 0, nll_sum = 0;
    long long count = 0;
    for (const json& turn : cache["turns"]) {
      const auto n = turn["predictions"].get<long long>();
      kl_sum += turn["kl_mean"].get<double>() * static_cast<double>(n);
      nll_sum += turn["mean_nll"].get<double>() * static_cast<double>(n);
      count += n;
      if (cache["bits"] == 16) CHECK(turn["kl_mean"] == 0);
    }
    CHECK(cache["predictions"] == count);
    CHECK(kl_sum / static_cast<double>(count) == Approx(kl));
    CHECK(nll_sum / static_cast<double>(count) == Approx(cache["mean_nll"].get<double>()));
    CHECK((cache["turns"][0]["conversations"] == 3 && cache["turns"][1]["conversations"] == 2));
    CHECK((cache["turns"][3]["turn"] == 4 && cache["turns"][3]["conversations"] == 1));
  }
  REQUIRE(p.run(command + " --json " + p.path("two.json") + " --threads 2").exit_code == 0);
  json two = json::parse(p.read("two.json"));
  one.erase("seconds"), two.erase("seconds");
  CHECK(one == two);
}

TEST_CASE("perplexity --by-turn: one turn is a text, long conversations are cut and said to be") {
  const Program p;
  write_conversations(p);
  // The template `plain` written out by hand, without the turns' roles and ends as control tokens.
  const std::string line = "How does a text that goes on and on end at last?";
  p.write("one.jsonl", R"({"turns": [")" + line + "\"]}\n");
  p.write("one.txt", "User: " + line + "\n");
  const Ended turn =
      p.run("perplexity " + p.model() + " " + p.path("one.jsonl") + " --by-turn --template plain --kv 16 --json -");
  INFO(turn.err);
  REQUIRE(turn.exit_code == 0);
  const json of_turn = json::parse(turn.out)["caches"][0];
  const std::string window = std::to_string(of_turn["predictions"].get<int>() + 1);
  const Ended text =
      p.run("perplexity " + p.model() + " " + p.path("one.txt") + " --protocol gptq --kv-bits 16 --json - --window " + window);
  INFO(text.err);
  REQUIRE(text.exit_code == 0);
  const json of_text = json::parse(text.out);
  CHECK(of_text["windows"] == 1);
  CHECK(of_text["mean_nll"].get<double>() == Approx(of_turn["mean_nll"].get<double>()));

  const std::string command = "perplexity " + p.model() + " " + p.path("talk.jsonl") + " --by-turn --template plain --kv 4,16";
  const Ended cut = p.run(command + " --window 150 --json " + p.path("cut.json"));
  INFO(cut.err);
  REQUIRE(cut.exit_code == 0);
  CHECK(contains(cut.err, "3 of 3 conversations are longer than 150 tokens"));
  const json shorter = json::parse(p.read("cut.json"));
  CHECK((shorter["cut"] == 3 && shorter["longest"] == 150));
  CHECK(shorter["caches"][0]["bits"] == 4);
  CHECK(shorter["caches"][1]["predictions"] == 3 * 149);
  const Ended few = p.run(command + " --tokens 100 --json -");
  REQUIRE(few.exit_code == 0);
  CHECK(json::parse(few.out)["conversations"] == 1);
  CHECK(json::parse(few.out)["caches"][0]["predictions"] == 99);
}

TEST_CASE("perplexity --by-turn: wrong use and bad input") {
  const Program p;
  write_conversations(p);
  const auto refused = [&](const std::string& arguments, int code, const std::string& says) {
    const Ended e = p.run("perplexity " + p.model() + " " + arguments);
    INFO(arguments << "\n" << e.err);
    CHECK(e.exit_code == code);
    CHECK(contains(e.err, says));
  };
  const std::string talk = p.path("talk.jsonl");
  refused(talk + " --by-turn --kv 16,5", 2, "5 bits are not offered");
  refused(talk + " --kv 8", 2, "--kv requires --by-turn");
  refused(talk + " --by-turn --protocol gptq", 2, "--protocol excludes --by-turn");
  refused(talk + " --by-turn --kv-bits 4", 2, "--kv-bits");
  refused(talk + " --by-turn --window 5000", 3, "more than the model's context of 1024");
  refused(p.path("text.txt") + " --by-turn", 3, "line 1: is not JSON");
  refused(talk + " --by-turn --json " + talk, 2, talk);
}

#endif
