// quantize, perplexity, generate and inspect from end to end, on a small generated model.

#ifdef ANYBIT_PROGRAM

#include <cmath>
#include <filesystem>
#include <numeric>
#include <string>

#include <nlohmann/json.hpp>

#include <anybit/model/load.hpp>

#include "generate/sampler.hpp"
#include "program.hpp"
#include "support/catch.hpp"

namespace fs = std::filesystem;
using namespace anybit;
using nlohmann::json;
using test_tool::contains, test_tool::Ended, test_tool::Program;

TEST_CASE("quantize writes the file that compare saves, and the other commands take it") {
  const Program p;
  const std::string learn = " --calibrate " + p.path("text.txt") + " --calibration-tokens 256";
  const Ended made = p.run("quantize " + p.model() + " " + p.path("q.safetensors") + " --recipe gptq-int4-g128 --json " +
                           p.path("q.json") + learn);
  INFO(made.err);
  REQUIRE(made.exit_code == 0);
  CHECK(contains(made.out, "bits per weight"));
  CHECK(made.err.empty());
  const json report = json::parse(p.read("q.json"));
  CHECK(report.at("recipe") == "gptq-int4-g128");
  CHECK(report.at("description") == "gptq(damp=0.01)");
  CHECK(p.compare("--recipe gptq-int4-g128 --save " + p.path("c.safetensors")).exit_code == 0);
  CHECK(p.read("q.safetensors") == p.read("c.safetensors"));
  const Ended written_out = p.run("quantize " + p.model() + " " + p.path("w.safetensors") +
                                  " --recipe 'gptq(damp=0.01) uint4/g128/f16' --json - " + learn);
  CHECK(written_out.exit_code == 0);
  CHECK(json::parse(written_out.out).at("bytes") == report.at("bytes"));
  CHECK(p.read("q.safetensors") == p.read("w.safetensors"));

  const Ended inspected = p.run("inspect " + p.path("q.safetensors") + " --json -");
  REQUIRE(inspected.exit_code == 0);
  const json facts = json::parse(inspected.out);
  CHECK(facts.at("format") == "anybit");
  CHECK(facts.at("metadata").at("general.recipe") == "gptq(damp=0.01)");
  std::size_t packed = 0;
  for (const json& t : facts.at("tensors")) packed += t.at("type") == "uint4/g128/f16/bits";
  CHECK(packed > 7);

  double perplexity[2];
  for (const int i : {0, 1}) {
    const Ended o = p.run("perplexity " + (i ? p.path("q.safetensors") : p.model()) + " " + p.path("text.txt") +
                          " --tokens 128 --json - --threads " + std::to_string(i + 1));
    INFO(o.err);
    REQUIRE(o.exit_code == 0);
    perplexity[i] = json::parse(o.out).at("perplexity").get<double>();
  }
  // The figures of compare are of the same texts by the same protocol.
  REQUIRE(p.compare("--activations f32 --recipe gptq-int4-g128 --json " + p.path("c.json")).exit_code == 0);
  const json rows = json::parse(p.read("c.json")).at("rows");
  for (const std::size_t i : {0u, 1u}) CHECK(rows[i].at("perplexity").get<double>() == Approx(perplexity[i]).epsilon(1e-6));
}

TEST_CASE("quantize --guided: Hessians weighed by gradients, recorded in the file; a table says so") {
  const Program p;
  const std::string learn = " --calibrate " + p.path("text.txt") + " --calibration-tokens 256";
  const std::string recipe = " --recipe 'gptq(best) uint3/g64/e5m3'";
  REQUIRE(p.run("quantize " + p.model() + " " + p.path("plain.safetensors") + recipe + learn).exit_code == 0);
  const Ended made =
      p.run("quantize " + p.model() + " " + p.path("g.safetensors") + recipe + learn + " --guided 4 --threads 2 --json -");
  INFO(made.err);
  REQUIRE(made.exit_code == 0);
  CHECK(json::parse(made.out).at("description").get<std::string>().starts_with("guided(groups=4) | gptq("));
  CHECK(contains(p.run("inspect " + p.path("g.safetensors") + " --json -").out, "\"guided(groups=4) | gptq("));
  CHECK(p.read("g.safetensors") != p.read("plain.safetensors"));
  // A recipe copied from such a file is refused: the error names the option to give instead.
  const std::string recorded = json::parse(made.out).at("description").get<std::string>();
  const Ended again = p.run("quantize " + p.model() + " " + p.path("again.safetensors") + " --recipe '" + recorded + "'" + learn);
  CHECK(again.exit_code == 2);
  CHECK(contains(again.err, "leave it out here and give --guided 4"));
  const Ended table = p.compare("--guided 2 --recipe nearest-int4-g128 --recipe gptq-int4-g128 --quick");
  INFO(table.err);
  REQUIRE(table.exit_code == 0);
  CHECK(contains(table.out, "weighted by the gradient of the end loss, in 2 group(s) of rows"));
}

TEST_CASE("quantize: a recipe that learns nothing wants no text, and a size is kept") {
  const Program p;
  CHECK(p.run("quantize " + p.model() + " " + p.path("n.safetensors") + " --recipe 'nearest nf4/g64/dq256'").exit_code == 0);
  const Ended o =
      p.run("quantize " + p.model() + " " + p.path("m.safetensors") +
            " --target-bpw 5 --recipe gptq-best-int3-g64-e5m3 --recipe gptq-best-int5-g64-e5m3 --json - --calibrate " +
            p.path("text.txt") + " --calibration-tokens 256");
  INFO(o.err);
  REQUIRE(o.exit_code == 0);
  CHECK(json::parse(o.out).at("bits_per_weight_file").get<double>() < 5.2);  // norms are floats
  CHECK(p.run("generate " + p.path("m.safetensors") + " --prompt Line --tokens 3").exit_code == 0);
}

TEST_CASE("what must stay exact is stored without loss: the embedding, or every matrix, and inspect shows the bits it takes") {
  const Program p;
  // The model's own values are no bfloat16: said, with the first.
  const Ended refused = p.run("quantize " + p.model() + " " + p.path("r.safetensors") + " --recipe lossless-bf16");
  CHECK(refused.exit_code == 5);
  CHECK(contains(refused.err, "lossless_bf16: the value of row 0, column "));
  CHECK(contains(refused.err, "which bfloat16 does not have"));
  REQUIRE(p.run("quantize " + p.model() + " " + p.path("a.safetensors") + " --recipe 'nearest lossless_bf16'").exit_code == 0);
  const Ended mixed = p.run("quantize " + p.model() + " " + p.path("b.safetensors") +
                            " --recipe nearest-int4-g128 --embedding 'nearest lossless_bf16'");
  INFO(mixed.err);
  REQUIRE(mixed.exit_code == 0);
  for (const std::string name : {"a", "b"}) {
    const json facts = json::parse(p.run("inspect " + p.path(name + ".safetensors") + " --json -").out);
    std::size_t exact = 0;
    for (const json& t : facts.at("tensors")) {
      if (t.at("type") != "lossless_bf16") continue;
      ++exact;
      CHECK(t.at("bits_per_weight").get<double>() > 9);
      CHECK(t.at("bits_per_weight").get<double>() < 16);
    }
    CHECK((name == "a" ? exact > 7 : exact == 1));
    const Ended runs = p.run("perplexity " + p.path(name + ".safetensors") + " " + p.path("text.txt") + " --tokens 128");
    INFO(runs.err);
    CHECK(runs.exit_code == 0);
  }
  CHECK(contains(
      p.run("quantize " + p.model() + " " + p.path("c.safetensors") + " --recipe lossless-bf16 --embedding gptq-int4-g128").err,
      "--embedding gptq-int4-g128 learns from calibration"));
}

TEST_CASE("quantize calibrates on conversations, instructions and documents, and bad lines are named") {
  const Program p;
  std::string talk, share, tasks, code;
  for (int i = 0; i < 60; ++i) {
    const std::string n = std::to_string(i * i);
    talk += R"({"messages": [{"role": "user", "content": "What is )" + n + R"(?"}, {"role": "assistant", "content": "Line )" + n +
            "\"}]}\n";
    share += R"({"conversations": [{"from": "human", "value": "What is )" + n + R"(?"}, {"from": "gpt", "value": "Line )" + n +
             "\"}]}\n";
    tasks += R"({"instruction": "Count.", "input": ")" + n + R"(", "output": "Line )" + n + "\"}\n";
    code += R"({"prompt": "def f():\n", "canonical_solution": "  return )" + n + "\\n\"}\n";
  }
  p.write("talk.jsonl", talk), p.write("share.jsonl", share), p.write("tasks.jsonl", tasks), p.write("code.jsonl", code);
  const std::string start =
      "quantize " + p.model() + " " + p.path("q.safetensors") + " --recipe gptq-int4-g128 --calibration-tokens 128 --calibrate ";
  std::string bytes;
  const auto made = [&](const std::string& options) {
    const Ended e = p.run(start + options);
    INFO(e.err);
    REQUIRE(e.exit_code == 0);
    return p.read("q.safetensors");
  };
  const std::string plain = made(p.path("talk.jsonl") + " --template plain");
  CHECK(made(p.path("share.jsonl") + " --template plain") == plain);  // the same turns in another form
  CHECK(made(p.path("talk.jsonl") + " --template llama2") != plain);
  CHECK(made(p.path("tasks.jsonl") + " --template alpaca") != plain);
  CHECK(made(p.path("code.jsonl")) != plain);
  const auto refused = [&](const std::string& text, const std::string& says) {
    p.write("bad.jsonl", text);
    const Ended e = p.run(start + p.path("bad.jsonl"));
    CHECK(e.exit_code == 3);
    INFO(e.err);
    CHECK(contains(e.err, says));
  };
  refused(talk + "{\n", "line 61: is not JSON");
  refused("{\"question\": \"\"}\n", "line 1: has neither turns");
  CHECK(p.run(start + p.path("talk.jsonl") + " --template pirate").exit_code == 2);
}

TEST_CASE("generate: the same seed, the same text; greedy by itself; tokens one by one as all at once") {
  const Program p;
  const auto text = [&](const std::string& options) {
    const Ended o = p.run("generate " + p.model() + " --prompt 'Line 16 of' --tokens 12 --ignore-end --json - " + options);
    INFO(o.err);
    REQUIRE(o.exit_code == 0);
    return json::parse(o.out);
  };
  const json greedy = text("");
  CHECK(greedy.at("tokens").size() == 12);
  CHECK(greedy.at("stopped") == "length");
  CHECK(text("--temperature 1 --top-k 1 --seed 5").at("tokens") == greedy.at("tokens"));
  CHECK(text("--temperature 1 --top-p 1e-9 --seed 5").at("tokens") == greedy.at("tokens"));
  const json sampled = text("--temperature 2 --seed 5");
  CHECK(text("--temperature 2 --seed 5 --threads 1").at("tokens") == sampled.at("tokens"));
  CHECK(text("--temperature 2 --seed 6").at("tokens") != sampled.at("tokens"));

  // Greedy choices are those of one pass over prompt and continuation.
  const model::Model m = model::load_model(p.model()).value();
  std::vector<model::TokenId> ids = m.tokenizer.encode("Line 16 of").value();
  const auto& v = m.tokenizer.vocabulary();
  if (v.add_bos && v.bos) ids.insert(ids.begin(), *v.bos);
  const std::size_t prompt = ids.size();
  for (const json& t : greedy.at("tokens")) ids.push_back(t.get<model::TokenId>());
  nn::KvCache cache(cache_shape(m.decoder.config), static_cast<Index>(ids.size()));
  const Matrix logits = model::forward(m.decoder, ids, cache).value();
  for (std::size_t i = prompt; i < ids.size(); ++i) {
    const auto row = logits.view().row(static_cast<Index>(i) - 1);
    const float best = *std::max_element(row.begin(), row.end());
    CHECK(row[static_cast<std::size_t>(ids[i])] == Approx(best).epsilon(1e-3));
  }

  const Ended plain = p.run("generate " + p.model() + " --prompt 'Line 16 of' --tokens 12 --ignore-end");
  CHECK(plain.out.starts_with("Line 16 of"));
  CHECK(plain.err.empty());
}

TEST_CASE("tokenize prints ids as JSON, and their texts") {
  const Program p;
  p.write("texts.json", R"(["Line 7", "", "<unk>\u00e9"])");
  const Ended ids = p.run("tokenize " + p.model() + " --json " + p.path("texts.json"));
  INFO(ids.err);
  REQUIRE(ids.exit_code == 0);
  const json lists = json::parse(ids.out);
  CHECK(lists.size() == 3);
  CHECK(lists[1].empty());
  p.write("ids.json", ids.out);
  CHECK(json::parse(p.run("tokenize " + p.model() + " --decode --json " + p.path("ids.json")).out) ==
        json::parse(p.read("texts.json")));
  for (const auto& [written, in_message] : {std::pair{"{", "is no JSON"}, {"{}", "is no JSON list"}, {"[\"a\", 3]", "item 1"}}) {
    p.write("texts.json", written);
    const Ended o = p.run("tokenize " + p.model() + " --json " + p.path("texts.json"));
    CHECK(o.exit_code == 3);
    CHECK(contains(o.err, in_message));
  }
  for (const char* const bad : {"[3]", "[[\"a\"]]", "[[-1]]", "[[1000000]]", "[[1.5]]"}) {
    p.write("ids.json", bad);
    CHECK(contains(p.run("tokenize " + p.model() + " --decode --json " + p.path("ids.json")).err, "item 0 is not a list"));
  }
}

TEST_CASE("inspect shows any file that the library reads") {
  const Program p;
  const Ended gguf = p.run("inspect " + p.model());
  REQUIRE(gguf.exit_code == 0);
  CHECK(contains(gguf.out, "general.architecture = llama"));
  CHECK(contains(gguf.out, "blk.0.attn_q.weight"));
  CHECK(contains(gguf.out, "Q8_0"));
  const std::string header = R"({"w":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"__metadata__":{"a":"b"}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  p.write("s.safetensors", file + header + std::string(12, '\0'));
  const json facts = json::parse(p.run("inspect " + p.path("s.safetensors") + " --json -").out);
  CHECK(facts.at("format") == "safetensors");
  CHECK(facts.at("metadata").at("a") == "b");
  CHECK(facts.at("tensors")[0].at("shape") == json::array({2, 3}));
  CHECK(facts.at("bits_per_weight") == 16);
}

TEST_CASE("wrong use and bad input of the commands") {
  const Program p;
  p.write("short.txt", "ab");
  const std::string out = " " + p.path("o.safetensors");
  const struct {
    std::string arguments;
    int exit_code;
    std::string says;
  } cases[] = {
      {"quantize " + p.model(), 2, "OUT"},
      {"quantize " + p.model() + out, 2, "give --recipe or --target-bpw"},
      {"quantize " + p.model() + out + " --recipe gptq-int4-g128 --recipe nearest-sf4-g128", 2, "one file has one recipe"},
      {"quantize " + p.model() + out + " --recipe 'awq | gtpq uint4/g128/f16'", 2, "        ^"},
      {"quantize " + p.model() + " " + p.model() + " --recipe nearest-int4-g128", 2,
       "OUT " + p.model() + " would overwrite the model"},
      {"quantize " + p.model() + " " + p.path("") + " --recipe nearest-int4-g128", 4, "folder"},
      {"quantize " + p.path("text.txt") + out + " --recipe nearest-int4-g128", 3, "text.txt"},
      {"quantize " + p.model() + out + " --recipe gptq-int4-g128 --calibrate " + p.path("short.txt"), 3, "give a longer text"},
      {"quantize " + p.model() + out + " --recipe nearest-int4-g128 --guided 1", 2, "reads no Hessian"},
      {"quantize " + p.model() + out + " --recipe gptq-int4-g128 --guided 1 --sequential", 2, "exclude each other"},
      {"quantize " + p.model() + out + " --recipe gptq-int4-g128 --guided -1", 2, "at least 1"},
      {"quantize " + p.model() + out + " --recipe gptq-int4-g128 --guided 100000", 3, "100000 groups of"},
      {"perplexity " + p.model(), 2, "TEXT"},
      {"perplexity " + p.model() + " " + p.path("short.txt"), 3, "use at least 3"},
      {"perplexity " + p.model() + " " + p.path("text.txt") + " --window 1000000", 3, "context"},
      {"perplexity " + p.model() + " " + p.path("text.txt") + " --json " + p.path("text.txt"), 2, "would overwrite the text"},
      {"generate " + p.model(), 2, "give one of --prompt"},
      {"generate " + p.model() + " --prompt x --temperature -1", 2, "--temperature"},
      {"generate " + p.model() + " --prompt x --top-p 0", 2, "--top-p"},
      {"generate " + p.model() + " --prompt-file " + p.path("text.txt"), 3, "shorten the prompt"},
      {"generate " + p.path("absent.gguf") + " --prompt x", 3, "absent.gguf"},
      {"inspect " + p.path("absent"), 3, "absent"},
      {"inspect " + p.model() + " --json " + p.model(), 2, "would overwrite the file"},
  };
  const std::size_t before = p.files();
  for (const auto& c : cases) {
    const Ended o = p.run(c.arguments);
    INFO(c.arguments << "\n" << o.err);
    CHECK(o.exit_code == c.exit_code);
    CHECK(contains(o.err, c.says));
    CHECK(o.out.empty());
  }
  CHECK(p.files() == before);
  for (const std::string command : {"quantize", "compare", "perplexity", "generate", "tokenize", "inspect", "reproduce"}) {
    const Ended help = p.run(command + " --help");
    INFO(command);
    CHECK(help.exit_code == 0);
    CHECK(contains(help.out, "Example: anybit " + command));
    CHECK(contains(help.out, "Exit codes: "));
    CHECK(contains(help.out, "--json"));
  }
}

TEST_CASE("sampling: shares as the softmax gives them, top-k and top-p cut them") {
  const float logits[] = {0, 1, 2, 1};
  const auto shares = [&](tool::SamplerOptions o) {
    o.seed = 3;
    tool::Sampler sampler(o);
    std::vector<double> count(4);
    for (int i = 0; i < 20000; ++i) count[static_cast<std::size_t>(sampler.next(logits))] += 1.0 / 20000;
    return count;
  };
  const double sum = 1 + 2 * std::exp(1.0) + std::exp(2.0);
  std::vector<double> all = shares({.temperature = 1});
  for (std::size_t i = 0; i < 4; ++i) CHECK(all[i] == Approx(std::exp(double{logits[i]}) / sum).margin(0.015));
  CHECK(shares({.temperature = 1, .top_k = 2})[3] == 0);  // of equals the first
  CHECK(shares({.temperature = 1, .top_k = 2})[1] == Approx(1 / (1 + std::exp(1.0))).margin(0.015));
  CHECK(shares({.temperature = 1, .top_p = std::exp(2.0) / sum - 0.01})[2] == Approx(1));
  CHECK(shares({.temperature = 1, .top_p = std::exp(2.0) / sum + 0.01})[1] > 0.2);
  CHECK(shares({.temperature = 100})[0] == Approx(0.25).margin(0.02));
  CHECK(shares({})[2] == Approx(1));
}

TEST_CASE("characters that arrive in pieces are shown whole") {
  tool::Utf8Stream stream;
  const std::string euro = "\xe2\x82\xac";
  CHECK(stream.feed("a" + euro.substr(0, 1)) == "a");
  CHECK(stream.feed(euro.substr(1, 1)).empty());
  CHECK(stream.feed(euro.substr(2) + "b") == euro + "b");
  CHECK(stream.feed("\xff") == "\xef\xbf\xbd");
  CHECK(stream.feed("\xf0\x9f").empty());
  CHECK(stream.feed("x") == "\xef\xbf\xbd\xef\xbf\xbdx");
  CHECK(stream.feed("\xe2\x82").empty());
  CHECK(stream.finish() == "\xef\xbf\xbd\xef\xbf\xbd");
  CHECK(stream.finish().empty());
}

#endif
