// The commands on models with encoders: pairs in, quantized models and losses out; what runs one sequence refuses them.

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <anybit/model/container.hpp>
#include <anybit/model/run.hpp>

#include "model/letters.hpp"
#include "model/random_encoders.hpp"
#include "model/random_ids.hpp"
#include "tool/program.hpp"

using namespace anybit;
using nlohmann::json;
using test_tool::contains;
using test_tool::Ended;
using test_tool::Program;

namespace {

void save(const std::string& path, const model::Decoder& d) {
  REQUIRE(model::save_model(path, {"m", d, test_support::letters()}));
}

json pairs_of_ids(unsigned seed) {
  json pairs = json::array();
  for (unsigned i = 0; i < 6; ++i)
    pairs.push_back({{"src", test_support::ids(40, seed + 2 * i)}, {"ids", test_support::ids(30, seed + 2 * i + 1)}});
  return pairs;
}

}  // namespace

TEST_CASE("an encoder-decoder is quantized and measured by pairs") {
  const Program p;
  const std::string t5 = p.path("t5.safetensors"), out = p.path("q.safetensors");
  save(t5, test_support::random_t5(true));
  p.write("pairs.json", pairs_of_ids(1).dump());
  const auto perplexity = [&](const std::string& model) {
    const Ended o = p.run("perplexity " + model + " " + p.path("pairs.json") + " --json -");
    INFO(o.err);
    REQUIRE(o.exit_code == 0);
    CHECK(json::parse(o.out).at("predictions") == 6 * 29);
    return json::parse(o.out).at("mean_nll").get<double>();
  };
  const double exact = perplexity(t5);
  for (const std::string options : {"", " --sequential"}) {
    const Ended o =
        p.run("quantize " + t5 + " " + out + " --recipe gptq-int4-g128 --calibrate " + p.path("pairs.json") + options);
    INFO(o.err);
    REQUIRE(o.exit_code == 0);
    CHECK(contains(o.out, "8 bits"));  // wo, said
    CHECK(perplexity(out) != exact);
  }
  const Ended uncalibrated = p.run("quantize " + t5 + " " + out + " --recipe gptq-int4-g128");
  CHECK(uncalibrated.exit_code != 0);
  CHECK(contains(uncalibrated.err, "calibrates by pairs"));
  p.write("alone.json", R"([{"ids": [1, 2, 3]}])");
  const Ended alone = p.run("quantize " + t5 + " " + out + " --recipe gptq-int4-g128 --calibrate " + p.path("alone.json"));
  CHECK(alone.exit_code != 0);
  CHECK(contains(alone.err, "pair 0"));
}

TEST_CASE("generate continues from a source, by text or by ids") {
  const Program p;
  const model::Decoder d = test_support::random_t5(true);
  save(p.path("t5.safetensors"), d);
  save(p.path("whisper.safetensors"), test_support::random_whisper());
  p.write("source.json", R"([{"src": [3, 4, 5], "ids": [0]}])");
  const std::string t5 = "generate " + p.path("t5.safetensors");
  const Ended o = p.run(t5 + " --source " + p.path("source.json") + " --tokens 5 --ignore-end --temperature 0 --json -");
  INFO(o.err);
  REQUIRE(o.exit_code == 0);
  // The same tokens as passes over the whole text, one after the other.
  std::vector<model::TokenId> text{0}, source{3, 4, 5};
  for (int i = 0; i < 5; ++i) {
    auto encoded = model::encode(d, {.ids = source});
    REQUIRE(encoded.ok());
    nn::KvCache cache(model::cache_shape(d.config), 16);
    const auto logits = model::forward(d, text, cache, {.last_only = true, .encoded = &*encoded});
    REQUIRE(logits.ok());
    const auto row = logits->view().row(0);
    text.push_back(static_cast<model::TokenId>(std::max_element(row.begin(), row.end()) - row.begin()));
  }
  text.erase(text.begin());
  CHECK(json::parse(o.out).at("tokens").get<std::vector<model::TokenId>>() == text);
  CHECK(p.run(t5 + " --prompt A --tokens 3").exit_code == 0);
  const Ended deaf = p.run("generate " + p.path("whisper.safetensors") + " --prompt A");
  CHECK(deaf.exit_code == 3);
  CHECK(contains(deaf.err, "features of sound"));
  CHECK(p.run(t5 + " --prompt A --source " + p.path("source.json")).exit_code == 2);
  p.write("two.json", R"([{"src": [3], "ids": [0]}, {"src": [3], "ids": [0]}])");
  CHECK(p.run(t5 + " --source " + p.path("two.json")).exit_code == 3);
  const Ended alone = p.run("generate " + p.model() + " --source " + p.path("source.json"));
  CHECK(alone.exit_code == 3);
  CHECK(contains(alone.err, "--source is for models with an encoder"));
}

TEST_CASE("commands that run one sequence refuse models with encoders") {
  const Program p;
  save(p.path("t5.safetensors"), test_support::random_t5(false));
  save(p.path("bert.safetensors"), test_support::random_bert());
  for (const std::string name : {"t5", "bert"}) {
    const std::string model = p.path(name + ".safetensors");
    CAPTURE(name);
    if (name == "bert") CHECK(contains(p.run("generate " + model + " --prompt A").err, "an encoder"));
    for (const std::string& command : {"compare " + model + " --recipe gptq-int4-g128 --calibrate " + p.path("text.txt") +
                                       " --evaluate " + p.path("text.txt")}) {
      CAPTURE(command);
      const Ended o = p.run(command);
      CHECK(o.exit_code != 0);
      CHECK(contains(o.err, "encoder"));
    }
  }
  const Ended o = p.run("perplexity " + p.path("bert.safetensors") + " " + p.path("text.txt"));
  CHECK(o.exit_code != 0);
  CHECK(contains(o.err, "an encoder, which predicts no next token"));
}

TEST_CASE("logits: sources and types and what does not fit") {
  const Program p;
  save(p.path("t5.safetensors"), test_support::random_t5(true));
  save(p.path("bert.safetensors"), test_support::random_bert());
  save(p.path("whisper.safetensors"), test_support::random_whisper());
  const auto run = [&](const std::string& name, const std::string& prompts) {
    p.write("in.json", prompts);
    return p.run("logits " + p.path(name + ".safetensors") + " --ids " + p.path("in.json") + " --out " +
                 p.path("out.safetensors"));
  };
  CHECK(run("t5", R"([{"src": [1, 2], "ids": [0, 5]}])").exit_code == 0);
  CHECK(run("bert", R"([{"ids": [0, 5], "types": [0, 1]}, {"ids": [3]}])").exit_code == 0);
  for (const auto& [name, prompts, says] :
       {std::tuple{"t5", R"([{"ids": [1]}])", "no source: add \"src\""},
        std::tuple{"t5", R"([{"src": [1, -1], "ids": [1]}])", "src holds"},
        std::tuple{"t5", R"([{"features": [[1]], "ids": [1]}])", "reads tokens"},
        std::tuple{"whisper", R"([{"src": [1], "ids": [1]}])", "reads features"},
        std::tuple{"whisper", R"([{"features": [[1, 2], [3]], "ids": [1]}])", "equally many frames"},
        std::tuple{"whisper", R"([{"features": [[1, 2]], "ids": [1]}])", "frames of 1 bins"},
        std::tuple{"bert", R"([{"src": [1], "ids": [1]}])", "no encoder in front of a decoder"},
        std::tuple{"bert", R"([{"ids": [1], "types": [2]}])", "type 2"}}) {
    const Ended o = run(name, prompts);
    CAPTURE(name, prompts, o.err);
    CHECK(o.exit_code != 0);
    CHECK(contains(o.err, says));
  }
}
