// Training from beginning to end on decoders of a few hundred weights, and adapters in files.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include <anybit/train/lora.hpp>
#include <anybit/train/trainer.hpp>

#include "support/catch.hpp"
#include "support/same_bits.hpp"
#include "support/temporary_folder.hpp"
#include "train/small_decoder.hpp"

using namespace anybit;
using namespace train_tests;

namespace {

/// Cycles of the vocabulary, which a model learns soon.
std::vector<std::vector<model::TokenId>> cycles() {
  std::vector<std::vector<model::TokenId>> out;
  for (int first = 0; first < 7; ++first) {
    std::vector<model::TokenId>& ids = out.emplace_back();
    for (int t = 0; t < 8; ++t) ids.push_back((first + 3 * t) % 11);
  }
  return out;
}
std::vector<train::Example> all_of(const std::vector<std::vector<model::TokenId>>& ids) {
  std::vector<train::Example> out;
  for (const auto& one : ids) out.push_back({one, {}});
  return out;
}

train::TrainOptions quick() {
  train::TrainOptions o;
  o.epochs = 30, o.batch = 3, o.seed = 5;
  o.schedule = {train::Decay::cosine, 2e-2, 5, 0, 0};
  o.adamw.weight_decay = 0;
  return o;
}

}  // namespace

TEST_CASE("trainer: a small model learns cycles, to the same bits with threads") {
  const auto ids = cycles();
  const auto examples = all_of(ids);
  model::Decoder alone = small_decoder(model::llama_architecture, true, 12), threaded = alone;
  std::vector<train::TrainStep> steps;
  REQUIRE(train::train_decoder(alone, examples, train::all_weights, quick(), [&](const train::TrainStep& s) {
            steps.push_back(s);
            return true;
          }).ok());
  REQUIRE(steps.size() == 30 * 3);
  CHECK(steps.back().steps == 90);
  CHECK(steps.front().loss > 2);
  CHECK(steps.back().loss < 0.3);
  CHECK(steps[4].rate == Approx(2e-2));
  CHECK(steps.back().rate < 1e-4);

  ThreadPool pool(3);
  train::TrainOptions o = quick();
  o.loss.executor = pool;
  REQUIRE(train::train_decoder(threaded, examples, train::all_weights, o).ok());
  for (std::size_t i = 0; i < alone.weights.size(); ++i) {
    CHECK(alone.weights[i].values == threaded.weights[i].values);
    if (alone.weights[i].linear.dense())
      CHECK(test_support::same_bits(*alone.weights[i].linear.dense(), *threaded.weights[i].linear.dense()));
  }
}

TEST_CASE("trainer: moments in bytes and micro-batches learn as well") {
  const auto ids = cycles();
  const auto examples = all_of(ids);
  const auto last_loss = [&](const train::TrainOptions& o) {
    model::Decoder d = small_decoder(model::llama_architecture, true, 12);
    double last = 0;
    REQUIRE(train::train_decoder(d, examples, train::all_weights, o, [&](const train::TrainStep& s) {
              last = s.loss;
              return true;
            }).ok());
    return last;
  };
  train::TrainOptions bytes = quick(), pieces = quick();
  bytes.adamw.moments = train::Moments::bytes;
  pieces.micro_batch = 2, pieces.loss.recompute_blocks = false;
  CHECK(last_loss(bytes) < 0.4);
  CHECK(last_loss(pieces) < 0.3);
}

TEST_CASE("trainer: adapters learn while the model stays, and are the same when read again") {
  const auto ids = cycles();
  const auto examples = all_of(ids);
  model::Decoder d = small_decoder(model::qwen2_architecture, true, 12, qwen2_form());
  const model::Decoder before = d;
  train::LoraOptions lora;
  lora.rank = 4, lora.alpha = 8, lora.dropout = 0.1f, lora.seed = 3;
  lora.chosen = [](std::string_view name) { return name.find("ffn") != std::string_view::npos || name.starts_with("blk.1."); };
  train::add_adapters(d, lora);
  CHECK(d.linear(0, "attn_q").adapter() == nullptr);
  REQUIRE(d.linear(1, "attn_q").adapter() != nullptr);
  for (Index i = 0; i < 4 * 12; ++i) CHECK(std::abs(d.linear(1, "attn_q").adapter()->a.data()[i]) <= 1 / std::sqrt(12.f));

  train::TrainOptions o = quick();
  o.schedule.peak = 5e-2, o.loss.dropout = {.rate = lora.dropout, .seed = lora.seed};
  double first = 0, last = 0;
  REQUIRE(train::train_decoder(d, examples, train::is_adapter, o, [&](const train::TrainStep& s) {
            (s.step == 0 ? first : last) = s.loss;
            return true;
          }).ok());
  CHECK(last < 0.8 * first);
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    CHECK(d.weights[i].values == before.weights[i].values);
    if (before.weights[i].linear.dense()) CHECK(d.weights[i].linear.dense() == before.weights[i].linear.dense());
  }

  const test_support::TemporaryFolder folder;
  REQUIRE(train::save_adapters(folder / "a", d, lora, "a \"name\"").ok());
  model::Decoder again = before;
  const auto read = train::load_adapters(folder / "a", again);
  REQUIRE(read.ok());
  CHECK(read->rank == 4);
  CHECK(read->alpha == 8);
  CHECK(read->dropout == 0.1f);
  CHECK(again.linear(0, "attn_q").adapter() == nullptr);
  for (const char* name : {"attn_q", "ffn_down"}) {
    CHECK(test_support::same_bits(again.linear(1, name).adapter()->a, d.linear(1, name).adapter()->a));
    CHECK(test_support::same_bits(again.linear(1, name).adapter()->b, d.linear(1, name).adapter()->b));
    CHECK(again.linear(1, name).adapter()->scale == 2);
  }
  // Not all of q have one, all of down have.
  const std::string config = test_support::read_file(folder / "a/adapter_config.json");
  CHECK(config.find("\"model.layers.1.self_attn.q_proj\"") != std::string::npos);
  CHECK(config.find("\"down_proj\"") != std::string::npos);
}

TEST_CASE("adapters: files that are no adapter of the model are refused in one line") {
  const test_support::TemporaryFolder folder;
  model::Decoder d = small_decoder(model::llama_architecture, true), wide = small_decoder(model::llama_architecture, true, 12);
  train::LoraOptions lora;
  lora.rank = 2;
  CHECK(train::save_adapters(folder / "none", d, lora, "x").error().message.find("no adapters to save") != std::string::npos);
  train::add_adapters(d, lora);
  REQUIRE(train::save_adapters(folder / "a", d, lora, "x").ok());
  const auto message = [&](const std::string& name, model::Decoder of) {
    const auto read = train::load_adapters(folder / name, of);
    return read ? std::string() : read.error().message;
  };
  CHECK(message("a", d).empty());
  CHECK(message("a", wide).find("is 2 x 6, rank 2 and the model need 2 x 12: use the adapter of this model") !=
        std::string::npos);
  CHECK(message("a", model::first_blocks(d, 1)).find("fits no linear of the llama model") != std::string::npos);
  CHECK(!message("absent", d).empty());
  const auto rewrite = [&](const std::string& from, const std::string& to) {
    std::string text = test_support::read_file(folder / "a/adapter_config.json");
    text.replace(text.find(from), from.size(), to);
    std::filesystem::create_directories(folder / "b");
    std::filesystem::copy_file(folder / "a/adapter_model.safetensors", folder / "b/adapter_model.safetensors",
                               std::filesystem::copy_options::overwrite_existing);
    std::ofstream(folder / "b/adapter_config.json") << text;
    return message("b", d);
  };
  CHECK(rewrite("\"r\": 2", "\"r\": 3").find("rank 3") != std::string::npos);
  CHECK(rewrite("\"r\": 2", "\"r\": 0").find("r is 0, not 1 to 2^20") != std::string::npos);
  CHECK(rewrite("\"r\": 2", "\"r\": 2, \"use_dora\": true").find("use_dora is true") != std::string::npos);
  CHECK(rewrite("LORA", "IA3").find("anybit reads LORA") != std::string::npos);
  CHECK(rewrite("\"none\"", "\"all\"").find("without biases") != std::string::npos);
  CHECK(rewrite("\"lora_alpha\": 16", "\"lora_alpha\": \"16\"").find("lora_alpha is '16', not a number") != std::string::npos);
}

TEST_CASE("trainer: a loss that is not finite ends it with the weights of the step before") {
  const auto ids = cycles();
  const auto examples = all_of(ids);
  model::Decoder d = small_decoder(model::llama_architecture, true), kept;
  train::TrainOptions o = quick();
  o.schedule = {train::Decay::constant, 1e30, 0, 0, 0};
  o.clip = 0;
  std::vector<float> last;
  const auto done = train::train_decoder(d, examples, train::all_weights, o, [&](const train::TrainStep&) {
    last = d.output_norm();
    return true;
  });
  REQUIRE_FALSE(done.ok());
  CHECK(done.error().code == ErrorCode::not_finite);
  CHECK(done.error().message.starts_with("train: step "));
  CHECK(d.output_norm() == last);
}

TEST_CASE("trainer: ends where it is told to, refuses nothing to do") {
  const auto ids = cycles();
  const auto examples = all_of(ids);
  model::Decoder d = small_decoder(model::llama_architecture, true);
  int steps = 0;
  REQUIRE(
      train::train_decoder(d, examples, train::all_weights, quick(), [&](const train::TrainStep&) { return ++steps < 4; }).ok());
  CHECK(steps == 4);
  CHECK_FALSE(train::train_decoder(d, {}, train::all_weights, quick()).ok());
  CHECK(train::train_decoder(d, examples, train::is_adapter, quick()).error().message.find("nothing is trained") !=
        std::string::npos);
}
