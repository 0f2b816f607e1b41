// Optimizers, clipping, schedules, random numbers and data order: worked numbers, plain loops in double, and a step that torch
// took.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include <anybit/io/safetensors.hpp>
#include <anybit/train/data_order.hpp>
#include <anybit/train/optimizer.hpp>
#include <anybit/train/schedule.hpp>

#include "support/catch.hpp"
#include "support/test_data.hpp"
#include "train/differences.hpp"

using namespace anybit;
using namespace train_tests;

namespace {

struct Tensor {
  std::string name;
  std::vector<float> values, gradient;
  train::Parameter parameter(bool decays = true) { return {name, values, gradient, decays}; }
};
Tensor tensor(std::string name, std::vector<float> values, std::vector<float> gradient) {
  return {std::move(name), std::move(values), std::move(gradient)};
}
std::vector<std::byte> saved(const std::vector<train::StateSpan>& state) {
  std::vector<std::byte> out;
  for (const auto& s : state) out.insert(out.end(), s.bytes.begin(), s.bytes.end());
  return out;
}

}  // namespace

TEST_CASE("SGD: momentum and decay by hand") {
  Tensor a = tensor("a", {1, -2}, {0.5f, 1}), b = tensor("b", {3}, {-1});
  const std::vector<train::Parameter> p{a.parameter(), b.parameter(false)};
  train::Sgd sgd({.momentum = 0.5f, .weight_decay = 0.1f}, p);
  sgd.step(p, 0.1, {});
  CHECK(a.values[0] == Approx(1 - 0.1 * 0.6));  // v = 0.5 + 0.1 * 1
  CHECK(a.values[1] == Approx(-2 - 0.1 * 0.8));
  CHECK(b.values[0] == Approx(3.1));  // no decay
  sgd.step(p, 0.1, {});
  CHECK(a.values[0] == Approx(0.94 - 0.1 * (0.3 + 0.5 + 0.094)));
  CHECK(b.values[0] == Approx(3.1 + 0.1 * 1.5));
  CHECK(sgd.state().size() == 2);
  CHECK(train::Sgd({}, p).state().empty());  // without momentum there is no state
}

TEST_CASE("AdamW: twenty steps as a plain loop in double takes them, with any number of threads") {
  const Index size = 9001;
  std::vector<float> alone;
  for (const Index threads : {1, 3}) {
    ThreadPool pool(threads);
    Tensor t = tensor("t", some_values(1, size), std::vector<float>(static_cast<std::size_t>(size)));
    std::vector<double> x(t.values.begin(), t.values.end()), m(x.size()), v(x.size());
    const std::vector<train::Parameter> p{t.parameter()};
    train::AdamW adam({.beta1 = 0.9, .beta2 = 0.95, .weight_decay = 0.1f}, p);
    for (int step = 1; step <= 20; ++step) {
      t.gradient = some_values(static_cast<unsigned>(step + 5), size);
      t.gradient[7] = 0;
      adam.step({{train::Parameter{"t", t.values, t.gradient}}}, 1e-2, pool);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double g = static_cast<double>(t.gradient[i]);
        x[i] *= 1 - 1e-2 * static_cast<double>(0.1f);
        m[i] = 0.9 * m[i] + 0.1 * g, v[i] = 0.95 * v[i] + 0.05 * g * g;
        x[i] -= 1e-2 / (1 - std::pow(0.9, step)) * m[i] / (std::sqrt(v[i] / (1 - std::pow(0.95, step))) + 1e-8);
      }
    }
    CHECK(off(t.values.data(), x) < 1e-6);
    if (threads == 1)
      alone = t.values;
    else
      CHECK(alone == t.values);
  }
}

TEST_CASE("AdamW: a step that torch took, clipped") {
  ANYBIT_TEST_DATA_OR_SKIP(golden_path, "vectors/arch/train_llama/golden.safetensors");
  ANYBIT_TEST_DATA_OR_SKIP(model_path, "vectors/arch/train_llama/model.safetensors");
  const auto golden = io::SafetensorsFile::open(golden_path), model = io::SafetensorsFile::open(model_path);
  REQUIRE(golden.ok());
  REQUIRE(model.ok());
  std::vector<Tensor> tensors;
  std::vector<train::Parameter> parameters;
  for (const io::TensorInfo& t : model->tensors())
    tensors.push_back(tensor(t.name, *model->read<float>(t.name), *golden->read<float>("grad." + t.name)));
  for (Tensor& t : tensors) parameters.push_back(t.parameter());
  CHECK(train::clip_gradients(parameters, 1, {}) == Approx(8.103134155273438).epsilon(1e-5));  // golden.json
  CHECK(train::global_norm(parameters, {}) == Approx(1).epsilon(1e-5));
  train::AdamW adam({.beta1 = 0.9, .beta2 = 0.95, .weight_decay = 0.1f}, parameters);
  adam.step(parameters, 1e-3, {});
  for (const Tensor& t : tensors) {
    const std::vector<float> want = *golden->read<float>("after1." + t.name);
    REQUIRE(want.size() == t.values.size());
    for (std::size_t i = 0; i < want.size(); ++i) REQUIRE(std::abs(want[i] - t.values[i]) < 2e-5f);
  }
}

TEST_CASE("gradient clipping: small gradients stay, zeros are no division") {
  Tensor t = tensor("t", {0, 0}, {3, 4}), zero = tensor("z", {1}, {0});
  const std::vector<train::Parameter> p{t.parameter(), zero.parameter()};
  CHECK(train::clip_gradients(p, 10, {}) == 5);
  CHECK(t.gradient == std::vector<float>{3, 4});
  CHECK(train::clip_gradients(p, 1, {}) == 5);
  CHECK(t.gradient[0] == Approx(3 / 5.000001));
  train::zero_gradients(p);
  CHECK(train::clip_gradients(p, 1, {}) == 0);
  CHECK(t.gradient == std::vector<float>{0, 0});
}

TEST_CASE("byte moments: every code is a fixed point, rounding is unbiased, second moments stay above 0") {
  namespace bytes = train::byte_moments;
  for (unsigned code = 0; code < 256; ++code)
    for (const std::uint32_t random : {0u, 0xFFFFFu}) {
      CHECK(bytes::decode_unsigned(bytes::encode_unsigned(bytes::decode_unsigned(static_cast<std::uint8_t>(code)), random)) ==
            bytes::decode_unsigned(static_cast<std::uint8_t>(code)));
      const float x = bytes::decode_signed(static_cast<std::uint8_t>(code));
      CHECK(bytes::decode_signed(bytes::encode_signed(x, random)) == x);
    }
  CHECK(bytes::decode_unsigned(255) == 1);
  CHECK(bytes::decode_signed(127) == 1);
  CHECK(bytes::decode_signed(255) == -1);
  CHECK(bytes::decode_unsigned(bytes::encode_unsigned(1e-30f, 0xFFFFF)) > 0);
  CHECK(bytes::encode_unsigned(0, 0) == 0);
  CHECK(bytes::encode_unsigned(1.00001f, 0xFFFFF) == 255);
  const train::Draws draws(1);
  for (const float x : {0.7f, -0.03f, 1.3e-3f, -1e-5f}) {
    double sum = 0;
    const int count = 20000;
    for (int i = 0; i < count; ++i)
      sum += static_cast<double>(
          bytes::decode_signed(bytes::encode_signed(x, static_cast<std::uint32_t>(draws(static_cast<std::uint64_t>(i)) >> 44))));
    CHECK(sum / count == Approx(static_cast<double>(x)).epsilon(0.02));
  }
}

TEST_CASE("AdamW with moments in bytes: near the steps of floats, resumed to the same bits") {
  const Index size = 1000;  // the last block is short
  const auto run = [&](train::Moments moments, int stop) {
    Tensor t = tensor("t", some_values(1, size), std::vector<float>(static_cast<std::size_t>(size)));
    const std::vector<float> goal = some_values(2, size);
    std::vector<train::Parameter> p{t.parameter()};
    const train::AdamWOptions options{.beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0, .moments = moments, .seed = 3};
    train::AdamW adam(options, p);
    for (int step = 0; step < 300; ++step) {
      if (step == stop) {  // as after a kill: another optimizer takes the state over
        const auto state = saved(adam.state());
        adam = train::AdamW(options, p);
        adam.set_steps(step);
        const std::byte* from = state.data();
        for (const auto& s : adam.state()) std::memcpy(s.bytes.data(), from, s.bytes.size()), from += s.bytes.size();
      }
      for (std::size_t i = 0; i < goal.size(); ++i) t.gradient[i] = (t.values[i] - goal[i]) * (i % 5 == 0 ? 1e-3f : 1.0f);
      adam.step(p, 1e-2, {});
    }
    double off = 0;
    for (std::size_t i = 0; i < goal.size(); ++i) off += std::abs(static_cast<double>(t.values[i] - goal[i]));
    return std::pair(t.values, off / static_cast<double>(size));
  };
  const auto floats = run(train::Moments::floats, -1), bytes = run(train::Moments::bytes, -1);
  CHECK(bytes.second < 2 * floats.second + 0.01);
  CHECK(run(train::Moments::bytes, 150).first == bytes.first);
  CHECK(run(train::Moments::floats, 150).first == floats.first);
}

TEST_CASE("schedules: warm-up, linear and cosine by hand") {
  const train::Schedule cosine{train::Decay::cosine, 1, 4, 12, 0.1};
  CHECK(cosine.rate(0) == Approx(0.25));
  CHECK(cosine.rate(3) == Approx(1));
  CHECK(cosine.rate(4) == Approx(1));
  CHECK(cosine.rate(8) == Approx(0.55));
  CHECK(cosine.rate(12) == Approx(0.1));
  CHECK(cosine.rate(100) == Approx(0.1));
  const train::Schedule linear{train::Decay::linear, 2, 0, 10, 0};
  CHECK(linear.rate(0) == 2);
  CHECK(linear.rate(5) == Approx(1));
  const train::Schedule constant{train::Decay::constant, 3, 0, 0, 0};
  CHECK(constant.rate(0) == 3);
  CHECK(constant.rate(1000) == 3);
  CHECK(train::Schedule{train::Decay::cosine, 1, 5, 5, 0}.rate(4) == 1);  // nothing but warm-up
}

TEST_CASE("random numbers by counter: SplitMix64's own, streams differ, uniform numbers fill [0, 1)") {
  CHECK(train::mix_bits(0x9E3779B97F4A7C15u) == 0xE220A8397B1DCDAFu);  // its first output for the seed 0, as published
  CHECK(train::Draws(1)(0) != train::Draws(2)(0));
  CHECK(train::Draws(1, 0)(0) != train::Draws(1, 1)(0));
  double sum = 0;
  for (std::uint64_t i = 0; i < 10000; ++i) {
    const float u = train::Draws(7).uniform(i);
    REQUIRE((u >= 0 && u < 1));
    sum += static_cast<double>(u);
  }
  CHECK(sum / 10000 == Approx(0.5).margin(0.01));
}

TEST_CASE("data order: every example once, another order in every epoch, the same for a seed") {
  const auto order = train::epoch_order(100, 5, 0);
  CHECK(std::set<Index>(order.begin(), order.end()).size() == 100);
  CHECK(*std::max_element(order.begin(), order.end()) == 99);
  CHECK(order == train::epoch_order(100, 5, 0));
  CHECK(order != train::epoch_order(100, 5, 1));
  CHECK(order != train::epoch_order(100, 6, 0));
  CHECK(train::epoch_order(0, 5, 0).empty());
  CHECK(train::epoch_order(1, 5, 0) == std::vector<Index>{0});
}
