// LoRRA: gradients by central differences, targets, and that adapters do what taps do. Directions that quantization keeps.

#include <cmath>
#include <string>
#include <vector>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/model/arch/llama.hpp>
#include <anybit/quantize/one_shot.hpp>
#include <anybit/steer/keep.hpp>
#include <anybit/steer/lorra.hpp>
#include <anybit/steer/projection.hpp>
#include <anybit/tensor/pack_nearest.hpp>

#include "support/catch.hpp"
#include "train/small_decoder.hpp"

using namespace anybit;
using namespace anybit::steer;
using train_tests::small_decoder;

namespace {

constexpr Index width = 6;

std::vector<model::TokenId> some_tokens(Index count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<model::TokenId> out(static_cast<std::size_t>(count));
  for (auto& id : out) id = static_cast<model::TokenId>(random() % 11);
  return out;
}

BlockDirection direction_of(Index block, std::uint64_t seed, double sign = 1) {
  return {block,
          {.vector = random_unit(width, seed), .center = std::vector<double>(static_cast<std::size_t>(width)), .sign = sign}};
}

std::vector<LorraExample> examples_of(Index count, bool contrast) {
  std::vector<LorraExample> out;
  for (Index i = 0; i < count; ++i) {
    LorraExample e{.ids = some_tokens(5 + i % 3, static_cast<unsigned>(i))};
    if (contrast) {
      e.with = some_tokens(3, 50), e.without = some_tokens(4, 51), e.tail = 4;
      e.with.insert(e.with.end(), e.ids.begin(), e.ids.end());
      e.without.insert(e.without.end(), e.ids.begin(), e.ids.end());
    }
    out.push_back(std::move(e));
  }
  return out;
}

/// The mean score of the last tokens along a direction.
double score_of(const model::Decoder& d, const BlockDirection& b, std::span<const LorraExample> examples) {
  double sum = 0;
  for (const LorraExample& e : examples) {
    const Index blocks[] = {b.block};
    const auto h = steer::detail::tail_states(d, e.ids, 1, blocks, {}).value();
    sum += scores(b.direction, h[0].view()).front() / static_cast<double>(examples.size());
  }
  return sum;
}

}  // namespace

TEST_CASE("lorra: gradients of the distance by central differences, in blocks one behind the other") {
  model::Decoder d = small_decoder(model::llama_architecture, true);
  train::add_adapters(d, {.rank = 2, .seed = 3});
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (model::Weight& w : d.weights)
    if (nn::LowRank* const l = w.linear.own_adapter())
      for (Index i = 0; i < l->b.extents().size(); ++i) l->b.data()[i] = 0.2f * normal(random);
  const std::vector<BlockDirection> directions{direction_of(0, 5), direction_of(1, 6, -1)};
  const LorraOptions o{.alpha = 1.5, .beta = 0.5};
  const auto targets = lorra_targets(small_decoder(model::llama_architecture, true), examples_of(2, true), directions, o).value();
  const Index blocks[] = {0, 1};
  train::Gradients g = train::make_gradients(d, train::is_adapter);
  const double loss = state_loss_and_gradients(d, targets, blocks, g);
  CHECK(loss > 0.5);
  ThreadPool pool(3);
  train::Gradients unused = train::make_gradients(d, train::is_adapter);
  CHECK(state_loss_and_gradients(d, targets, blocks, unused, pool) == loss);
  const auto all = train::parameters(d, g);
  REQUIRE(all.size() == 28);  // 7 linears in 2 blocks, A and B
  std::size_t seen = 0;
  for (const train::Parameter& p : all)
    for (std::size_t i = 0; i < p.values.size(); i += 5) {
      const float here = p.values[i], step = 2e-3f;
      p.values[i] = here + step;
      const double above = state_loss_and_gradients(d, targets, blocks, unused);
      p.values[i] = here - step;
      const double below = state_loss_and_gradients(d, targets, blocks, unused);
      p.values[i] = here;
      CAPTURE(p.name, i);
      CHECK(static_cast<double>(p.gradient[i]) == Approx((above - below) / (2 * static_cast<double>(step))).margin(2e-3));
      seen += std::abs(p.gradient[i]) > 1e-3f;
    }
  CHECK(seen > 50);
}

TEST_CASE("lorra: the first loss is the length of the step and training moves activations along the direction") {
  const model::Decoder plain = small_decoder(model::llama_architecture, true);
  const auto examples = examples_of(6, false);
  const std::vector<BlockDirection> one{direction_of(1, 9, -1)};
  for (const bool packed : {false, true}) {
    model::Decoder d = plain;
    if (packed)
      for (const model::WeightId id : residual_writers(*d.blueprint))
        d[id].linear =
            nn::Linear(AnyPacked(pack_nearest<Scheme<SInt<8>, PerGroup<8>, ScaleF32>>(d[id].linear.dense()->view()).value()));
    const double before = score_of(d, one[0], examples);
    Index told = 0;
    const auto losses = train_lorra(d, examples, one, {.alpha = 0.5, .steps = 60, .batch = 3, .schedule = {.peak = 0.02}},
                                    [&](const LorraStep& s) { return s.step == told++ && s.steps == 60; });
    REQUIRE(losses.ok());
    CHECK(told == 60);
    CHECK(losses->front() == Approx(0.5).epsilon(1e-5));  // B is zero at first
    CHECK(losses->back() < 0.4 * losses->front());
    CHECK(score_of(d, one[0], examples) - before == Approx(0.5).margin(0.25));
    CHECK(static_cast<bool>(d.linear(0, "attn_q").adapter()));
    CHECK_FALSE(static_cast<bool>(d.linear(0, "ffn_up").adapter()));
  }
  CHECK(score_of(plain, one[0], examples) == score_of(small_decoder(model::llama_architecture, true), one[0], examples));
}

TEST_CASE("lorra: contrast is the difference behind the prefixes") {
  const model::Decoder d = small_decoder(model::llama_architecture, true);
  const auto examples = examples_of(1, true);
  const std::vector<BlockDirection> one{direction_of(1, 9)};
  const auto t = lorra_targets(d, examples, one, {.alpha = 0, .beta = 2}).value();
  REQUIRE((t.size() == 1 && t[0].first == 1 && t[0].targets[0].rows() == 4));
  const Index blocks[] = {1};
  const auto h = steer::detail::tail_states(d, examples[0].ids, 4, blocks, {}).value(),
             with = steer::detail::tail_states(d, examples[0].with, 4, blocks, {}).value(),
             without = steer::detail::tail_states(d, examples[0].without, 4, blocks, {}).value();
  for (Index r = 0; r < 4; ++r)
    for (Index j = 0; j < width; ++j)
      CHECK(t[0].targets[0](r, j) == Approx(h[0](r, j) + 2 * (with[0](r, j) - without[0](r, j))).margin(1e-5));
}

TEST_CASE("lorra: what cannot be trained is said with the value and the remedy") {
  const model::Decoder d = small_decoder(model::llama_architecture, true);
  const auto message = [&](std::vector<LorraExample> examples, std::vector<BlockDirection> directions, LorraOptions o = {}) {
    model::Decoder copy = d;
    return train_lorra(copy, examples, directions, o).error().message;
  };
  const auto two = examples_of(2, false);
  CHECK(message({}, {direction_of(0, 1)}) == "steer: lorra: no examples: give at least one");
  CHECK(message(two, {}) == "steer: lorra: no directions: name at least one block");
  CHECK(message(two, {direction_of(1, 1), direction_of(0, 1)}) ==
        "steer: lorra: block 0 behind block 1: give one direction per block, in rising order");
  CHECK(message(two, {direction_of(2, 1)}) == "forward: a tap is in block 2, the model has 2, counted from 0");
  CHECK(message(two, {direction_of(0, 1)}, {.steps = 0}) == "steer: lorra: 0 steps of 4 examples: give at least 1 of each");
  CHECK(message({{}}, {direction_of(0, 1)}) == "steer: lorra: example 0 has no tokens: give a text");
  CHECK(message({{.ids = some_tokens(3, 1), .tail = 4}}, {direction_of(0, 1)}) ==
        "steer: lorra: example 0 trains its last 4 of 3 tokens: train as many as there are");
  CHECK(message(two, {direction_of(0, 1)}, {.beta = 1}) ==
        "steer: lorra: example 0 does not end with the same 5 tokens behind its prefixes: train fewer of its last tokens");
  CHECK(message(two, {direction_of(0, 1)}, {.lora = {.chosen = [](std::string_view) { return false; }}}) ==
        "steer: lorra: no linear was chosen for an adapter: choose by other names");
  BlockDirection other = direction_of(0, 1);
  other.direction.vector.pop_back();
  CHECK(message(two, {other}).find("has 5 values, activations at residual have 6") != std::string::npos);
  model::Decoder adapted = d;
  train::add_adapters(adapted, {.rank = 1});
  CHECK(train_lorra(adapted, two, std::vector{direction_of(0, 1)}).error().message ==
        "steer: lorra: the model has adapters already: merge them first");
}

TEST_CASE("keep: the weight in the Hessian makes GPTQ keep what a linear does with a direction") {
  const model::Decoder d = small_decoder(model::llama_architecture, true, 24);
  const std::vector<BlockDirection> one{{0, {.vector = random_unit(24, 4), .center = std::vector<double>(24)}}};
  const auto recipe = model::model_recipe("gptq", Gptq<UInt<3>, PerGroup<24>, ScaleF32>{});
  const auto embedding = pack_embedding(d).value();
  const model::SiteId site = d.site(1, "attn_q");
  const std::vector<double> u = direction_at_site(d, site, one[0].direction).value();
  CHECK(norm(u) == Approx(1));
  const auto error_along = [&](double lambda) {
    model::ModelStats stats(d, recipe.needs);
    for (unsigned i = 0; i < 6; ++i) REQUIRE(stats.accumulate(d, some_tokens(20, i), {}).ok());
    const double energy = [&] {
      double sum = 0;
      for (const float s : stats.at(site, Needs::none).mean_square()) sum += static_cast<double>(s);
      return sum;
    }();
    if (lambda > 0) {
      REQUIRE(keep_directions(stats, d, one, lambda).ok());
      // 121 tokens where there were 120, and lambda times their energy along u.
      const Matrix h = stats.at(site, Needs::hessian).hessian();
      double along = 0, trace = 0;
      for (Index i = 0; i < 24; ++i) {
        trace += static_cast<double>(h(i, i));
        for (Index j = 0; j < 24; ++j)
          along += u[static_cast<std::size_t>(i)] * u[static_cast<std::size_t>(j)] * static_cast<double>(h(i, j));
      }
      CHECK(trace == Approx(2 * (1 + lambda) * energy * 120 / 121).epsilon(1e-3));
      CHECK(along > 2 * lambda * energy * 120 / 121 * 0.999);
    }
    const auto q = quantize_model(d, stats, recipe, embedding).value();
    double sum = 0;
    for (const char* name : {"attn_q", "attn_k", "attn_v"}) {
      std::vector<float> exact(24), coarse(24);
      for (Index r = 0; r < d.linear(1, name).extents().rows; ++r) {
        d.linear(1, name).read_row(r, exact), q.decoder.linear(1, name).read_row(r, coarse);
        sum += std::pow(dot(exact, u) - dot(coarse, u), 2);
      }
    }
    return std::sqrt(sum);
  };
  const double without = error_along(0), with = error_along(10);
  CHECK(with < 0.5 * without);

  model::ModelStats none(d, recipe.needs);
  CHECK(keep_directions(none, d, one, 1).error().message ==
        "steer: no calibration token was seen: accumulate a text before directions are kept");
  CHECK(keep_directions(none, d, one, -1).error().message ==
        "steer: a weight of -1.000000 in the Hessian: it must be finite and not negative");
  CHECK(direction_at_site(d, d.site(1, "ffn_down"), one[0].direction).error().code == ErrorCode::unsupported);
  CHECK(direction_at_site(d, site, {.vector = {1, 2}}).error().code == ErrorCode::shape_mismatch);
}
