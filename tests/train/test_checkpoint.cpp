// Runs that stop and go on: the same bytes as without a stop, and checkpoints that do not fit refused with their reason.

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

/// Seven examples of eight tokens: with three per step the last step of an epoch has one.
struct Cycles {
  std::vector<std::vector<model::TokenId>> ids;
  std::vector<train::Example> examples;

  Cycles() {
    for (int first = 0; first < 7; ++first) {
      std::vector<model::TokenId>& one = ids.emplace_back();
      for (int t = 0; t < 8; ++t) one.push_back((first + 3 * t) % 11);
    }
    for (const auto& one : ids) examples.push_back({one, {}});
  }
};

train::TrainOptions short_run() {
  train::TrainOptions o;
  o.epochs = 4, o.batch = 3, o.micro_batch = 2, o.seed = 5;
  o.schedule = {train::Decay::cosine, 2e-2, 2, 0, 0};
  return o;
}

void check_same_weights(const model::Decoder& a, const model::Decoder& b) {
  for (std::size_t i = 0; i < a.weights.size(); ++i) {
    CHECK(a.weights[i].values == b.weights[i].values);
    if (const Matrix* const m = a.weights[i].linear.dense()) CHECK(test_support::same_bits(*m, *b.weights[i].linear.dense()));
    if (const nn::LowRank* const l = a.weights[i].linear.adapter()) {
      CHECK(test_support::same_bits(l->a, b.weights[i].linear.adapter()->a));
      CHECK(test_support::same_bits(l->b, b.weights[i].linear.adapter()->b));
    }
  }
}

/// Stops before the step that follows `stop`; the losses of the steps that on_step saw.
std::vector<double> losses_until(Index stop, model::Decoder& d, const Cycles& data, const train::Trained& trained,
                                 const train::TrainOptions& o) {
  std::vector<double> out;
  const auto done = train::train_decoder(d, data.examples, trained, o, [&](const train::TrainStep& s) {
    out.push_back(s.loss);
    CHECK(s.steps == 12);
    return s.step + 1 < stop;
  });
  INFO((done ? std::string() : done.error().message));
  REQUIRE(done.ok());
  return out;
}

}  // namespace

TEST_CASE("checkpoint: a run that was stopped goes on to the same bytes") {
  const Cycles data;
  for (const auto moments : {train::Moments::floats, train::Moments::bytes}) {
    const test_support::TemporaryFolder folder;
    train::TrainOptions o = short_run();
    o.adamw.moments = moments;
    model::Decoder whole = small_llama();
    const auto all = losses_until(12, whole, data, train::all_weights, o);
    REQUIRE(all.size() == 12);

    o.checkpoints = {.path = folder / "run", .resume = true};  // no file: from the beginning
    model::Decoder first = small_llama(), second = small_llama();
    CHECK(losses_until(4, first, data, train::all_weights, o) == std::vector(all.begin(), all.begin() + 4));
    CHECK(losses_until(12, second, data, train::all_weights, o) == all);
    check_same_weights(whole, second);
    // A finished run has nothing left to do.
    model::Decoder third = small_llama();
    CHECK(losses_until(12, third, data, train::all_weights, o) == all);
    check_same_weights(whole, third);
    CHECK(folder.files() == 1);
  }
}

TEST_CASE("checkpoint: steps behind the last one are taken again") {
  const Cycles data;
  const test_support::TemporaryFolder folder;
  model::Decoder whole = small_llama();
  train::add_adapters(whole, {.rank = 2, .seed = 9});
  model::Decoder stopped = whole, resumed = whole;
  train::TrainOptions o = short_run();
  o.loss.dropout = {.rate = 0.2f, .seed = 4};
  const auto all = losses_until(12, whole, data, train::is_adapter, o);
  o.checkpoints = {.path = folder / "run", .every = 5, .resume = true};
  // A kill at step 7 leaves the file of step 5: later writes fail here.
  Index writes = 0;
  o.checkpoints.write = [&](const std::string& path, std::span<const io::TensorInfo> tensors,
                            const std::map<std::string, std::string>& facts) -> Status {
    if (++writes > 1) return {ErrorCode::io, path + ": cannot write (No space left on device)"};
    return io::write_safetensors(path, tensors, facts);
  };
  const auto full =
      train::train_decoder(stopped, data.examples, train::is_adapter, o, [](const train::TrainStep& s) { return s.step < 7; });
  REQUIRE(!full.ok());
  CHECK(full.error().message.find("No space left") != std::string::npos);
  o.checkpoints.write = {};
  CHECK(losses_until(12, resumed, data, train::is_adapter, o) == all);
  check_same_weights(whole, resumed);
}

TEST_CASE("checkpoint: one of another run is refused by the fact that differs") {
  const Cycles data;
  const test_support::TemporaryFolder folder;
  train::TrainOptions o = short_run();
  o.checkpoints = {.path = folder / "run", .resume = true};
  model::Decoder d = small_llama();
  losses_until(4, d, data, train::all_weights, o);
  const auto refused = [&](model::Decoder model, const train::TrainOptions& other, const train::Trained& trained,
                           std::span<const train::Example> examples) {
    const auto before = test_support::read_file(folder / "run");
    const auto done = train::train_decoder(model, examples, trained, other);
    REQUIRE(!done.ok());
    CHECK(test_support::read_file(folder / "run") == before);
    return done.error().message;
  };
  const auto has = [](const std::string& text, const std::string& part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  has(refused(small_decoder(model::llama_architecture, false, 12), o, train::all_weights, data.examples), "its model is");
  train::TrainOptions other = o;
  other.batch = 2;
  has(refused(small_llama(), other, train::all_weights, data.examples), "its batch size is '3', here it is '2'");
  other = o, other.schedule.peak = 1e-2;
  has(refused(small_llama(), other, train::all_weights, data.examples), "its schedule is");
  has(refused(small_llama(), o, train::all_weights, std::span(data.examples).first(6)), "its data is");
  has(refused(small_llama(), o, [](std::string_view name) { return name == "nothing"; }, data.examples), "nothing is trained");
  std::ofstream(folder / "other") << "no checkpoint";
  other = o, other.checkpoints.path = folder / "other";
  CHECK(!train::train_decoder(d, data.examples, train::all_weights, other).ok());
  const std::vector<float> values(3);
  REQUIRE(io::write_safetensors(folder / "other", std::vector{io::tensor_of<float>("x", {3}, values)}).ok());
  const auto done = train::train_decoder(d, data.examples, train::all_weights, other);
  REQUIRE(!done.ok());
  has(done.error().message, "is no checkpoint of a training run");
  // Every cut of a good file is refused, and changes no weight.
  const std::string good = test_support::read_file(folder / "run");
  for (const std::size_t size : {good.size() - 1, good.size() / 2, std::size_t{100}, std::size_t{0}}) {
    std::ofstream(folder / "other", std::ios::binary | std::ios::trunc) << good.substr(0, size);
    model::Decoder fresh = small_llama();
    CHECK(!train::train_decoder(fresh, data.examples, train::all_weights, other).ok());
    check_same_weights(fresh, small_llama());
  }
}

TEST_CASE("checkpoint: a run that diverges names the step that the file holds") {
  const Cycles data;
  const test_support::TemporaryFolder folder;
  train::TrainOptions o = short_run();
  o.checkpoints = {.path = folder / "run", .every = 1};
  o.clip = 0, o.schedule = {train::Decay::constant, std::numeric_limits<float>::max(), 0, 0, 0};
  model::Decoder d = small_llama();
  const auto done = train::train_decoder(d, data.examples, train::all_weights, o);
  REQUIRE(!done.ok());
  CHECK(done.error().code == ErrorCode::not_finite);
  INFO(done.error().message);
  CHECK(done.error().message.find("step 1 of 12") != std::string::npos);
  CHECK(done.error().message.find("run holds step 0") != std::string::npos);
}
