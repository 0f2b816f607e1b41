// The WASQ methods on a small decoder: gradients through the grid, which weights train, bits and defects, and that training
// lowers the loss of the rounded model.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/train/trainer.hpp>
#include <anybit/train/wasq/activations.hpp>
#include <anybit/train/wasq/fasteropt.hpp>
#include <anybit/train/wasq/fpm.hpp>
#include <anybit/train/wasq/opt.hpp>
#include <anybit/train/wasq/pack.hpp>
#include <anybit/train/wasq/vanilla.hpp>

#include "support/catch.hpp"
#include "support/same_bits.hpp"
#include "support/temporary_folder.hpp"
#include "train/small_decoder.hpp"
#include "train/wheel.hpp"

using namespace anybit;
using namespace train_tests;
namespace wasq = anybit::train::wasq;

namespace {

train::TrainOptions options_for(wasq::GridModel& m) {
  train::TrainOptions o;
  o.epochs = 40, o.batch = 3, o.seed = 2;
  o.schedule = {train::Decay::cosine, 1e-2, 4, 0, 0};
  o.adamw.weight_decay = 0;
  o.reparametrize = wasq::on_grid(m);
  return o;
}

/// First and last loss of a run.
std::pair<double, double> losses(model::Decoder& d, const Wheel& data, const train::TrainOptions& o) {
  double first = 0, last = 0;
  const auto done = train::train_decoder(d, data.examples, train::all_weights, o, [&](const train::TrainStep& s) {
    (s.step == 0 ? first : last) = s.loss;
    return true;
  });
  INFO((done ? std::string() : done.error().message));
  REQUIRE(done.ok());
  return {first, last};
}

std::vector<float> weights_of(const model::Decoder& d, const wasq::GridLayer& l) {
  const Matrix& w = *d[d.weight(l.name)].linear.dense();
  return {w.data(), w.data() + w.extents().size()};
}

}  // namespace

TEST_CASE("wasq: FPM trains the model that rounding has hurt and leaves every weight on its grid") {
  const Wheel data;
  for (const bool scales : {true, false}) {
    model::Decoder d = small_llama();
    wasq::GridModel m = wasq::Fpm{.bits = 3, .row_scales = scales}.make(d);
    REQUIRE(m.layers.size() == 14);
    CHECK(m.bits() > (scales ? 4.0 : 2.99));
    const auto [first, last] = losses(d, data, options_for(m));
    CHECK(last < 0.5 * first);
    for (const wasq::GridLayer& l : m.layers) {
      const auto w = weights_of(d, l);
      for (std::size_t i = 0; i < w.size(); ++i) {
        const float s = scales ? l.stored_scales[i / static_cast<std::size_t>(l.cols)] : 1.0f;
        if (w[i] != s * l.grid.round(l.values[i] / s)) FAIL(l.name << " " << i);
        if (!scales && std::abs(l.values[i]) > l.grid.largest()) FAIL(l.name << " left the range");
      }
    }
  }
}

TEST_CASE("wasq: gradients of weights and scales are those of the sum that rounding hides") {
  // With values between grid points W' changes with s as Q(U), and straight through with W as 1: checked against the formula on
  // one layer, element by element.
  wasq::GridLayer l{"w", 2, 3, {3}, {0.5f, 2.0f}};
  l.values = {0.3f, -0.2f, 0.9f, 1.5f, -2.6f, 0.1f};
  l.gradient.assign(6, 0.0f), l.scale_gradient.assign(2, 0.0f);
  wasq::detail::store_scales(l);
  const std::vector<float> by_weights{1, 2, 3, 4, 5, 6};
  wasq::GridModel m;
  wasq::detail::pull_back(m, l, by_weights);
  // U = .6 -.4 1.8 | .75 -1.3 .05, largest .75: the last of row 0 and the second of row 1 are outside.
  CHECK(l.gradient == std::vector<float>{1, 2, 0, 4, 0, 6});
  CHECK(l.scale_gradient[0] == Approx(1 * (0.5 - 0.6) + 2 * (-0.5 + 0.4) + 3 * 0.75));
  CHECK(l.scale_gradient[1] == Approx(4 * (0.75 - 0.75) + 5 * -0.75 + 6 * (0 - 0.05)));
  l.floats = {0, 0, 1, 0, 0, 0}, l.trained = {1, 0, 1, 1, 1, 1}, l.scale_gradient.assign(2, 0.0f);
  wasq::detail::pull_back(m, l, by_weights);
  CHECK(l.gradient == std::vector<float>{1, 0, 3, 4, 0, 6});
  CHECK(l.scale_gradient[0] == Approx(1 * (0.5 - 0.6) + 2 * (-0.5 + 0.4)));
  m.gradient_outside = true;
  l.floats.clear(), l.trained.clear();
  wasq::detail::pull_back(m, l, by_weights);
  CHECK(l.gradient == std::vector<float>{0, 0, 3, 0, 5, 0});
}

TEST_CASE("wasq: a trained layer is packed to the values that it was trained with") {
  const Wheel data;
  model::Decoder d = small_llama();
  wasq::GridModel m = wasq::Fpm{.bits = 4}.make(d);
  losses(d, data, options_for(m));
  for (const wasq::GridLayer& l : m.layers) {
    REQUIRE(wasq::is_packable(l));
    const auto packed = PackedTensor<presets::ScaledSuperfloat<4>>::from(wasq::pack_layer<4>(l));
    REQUIRE(packed.ok());
    const Matrix values = dequantize(*packed);
    CHECK(test_support::same_bits(values, *d[d.weight(l.name)].linear.dense()));
  }
  wasq::GridLayer wide{"w", 2, 300, {5}};
  const Matrix w = some(3, 2, 300);
  wide.values.assign(w.data(), w.data() + 600);
  wasq::search_row_scales(wide, w.view());
  CHECK(wide.row_scales.size() == 6);
  CHECK(wide.bits() == Approx(5 + 16 * 6 / 600.0));
  std::vector<float> rounded(600);
  wasq::detail::round_layer(wide, wide.values, rounded);
  const auto packed = PackedTensor<presets::ScaledSuperfloat<5>>::from(wasq::pack_layer<5>(wide));
  REQUIRE(packed.ok());
  const Matrix values = dequantize(*packed);
  for (Index i = 0; i < 600; ++i) CHECK(values.data()[i] == rounded[static_cast<std::size_t>(i)]);
}

TEST_CASE("wasq: OPT moves the chosen weights and no others") {
  const Wheel data;
  model::Decoder d = small_llama();
  const auto fisher = wasq::fisher_of(d, data.examples, train::all_weights);
  REQUIRE(fisher.ok());
  wasq::GridModel m = wasq::Opt{.bits = 4, .critical = 0.2}.make(d, *fisher);
  const model::Decoder before = d;
  const auto [first, last] = losses(d, data, options_for(m));
  CHECK(last < first);
  Index moved = 0, chosen = 0;
  for (const wasq::GridLayer& l : m.layers) {
    const auto w = weights_of(before, l);
    for (std::size_t i = 0; i < w.size(); ++i) {
      chosen += l.trained[i];
      moved += l.values[i] != w[i];
      if (!l.trained[i] && l.values[i] != w[i]) FAIL(l.name << " " << i << " moved");
    }
  }
  CHECK(moved > chosen / 2);
  CHECK(chosen < 14 * 200);
  CHECK(d.output_norm() == before.output_norm());
}

TEST_CASE("wasq: fasteropt keeps to its budget with correct signs and takes the widest grid with inverted ones") {
  const Wheel data;
  model::Decoder d = small_llama();
  wasq::GridModel m = wasq::FasterOpt{.error_budget = 0.05, .outliers = 0.02}.make(d);
  for (const wasq::GridLayer& l : m.layers) CHECK((l.grid.bits == 4 || l.grid.bits == 8));
  CHECK(m.layers[0].kept_floats() == static_cast<Index>(0.02 * static_cast<double>(m.layers[0].size())));
  const auto [first, last] = losses(d, data, options_for(m));
  CHECK(last < first);
  const wasq::GridModel published = wasq::FasterOpt{.as_published = true}.make(small_llama());
  for (const wasq::GridLayer& l : published.layers) CHECK(l.grid.bits == 16);
}

TEST_CASE("wasq: vanilla chooses bits by the loss that rounding adds and the published choice is the widest") {
  const Wheel data;
  model::Decoder d = small_llama();
  const auto fisher = wasq::fisher_of(d, data.examples, train::all_weights);
  REQUIRE(fisher.ok());
  const wasq::Vanilla method{.bits = {2, 3, 4, 6, 8}, .loss_budget = 0.05};
  wasq::GridModel m = method.make(d, *fisher);
  const double narrow = wasq::Vanilla{.bits = {2, 3, 4, 6, 8}, .loss_budget = 10}.make(d, *fisher).bits();
  CHECK(m.bits() > narrow);
  for (const wasq::GridLayer& l : m.layers) CHECK(l.kept_floats() == l.cols);
  const auto [first, last] = losses(d, data, options_for(m));
  CHECK(last < first);
  const wasq::GridModel published = wasq::Vanilla{.as_published = true}.make(small_llama(), *fisher);
  for (const wasq::GridLayer& l : published.layers) CHECK(l.grid.bits == 16);
  CHECK(published.gradient_outside);
}

TEST_CASE("wasq: published FPM rounds once with the signs inverted and then trains floats") {
  const Wheel data;
  model::Decoder d = small_llama();
  const model::Decoder before = d;
  wasq::GridModel m = wasq::Fpm{.bits = 8, .as_published = true}.make(d);
  train::TrainOptions o = options_for(m);
  o.schedule.peak = 1e-30;  // nothing but the rounding
  losses(d, data, o);
  const wasq::GridLayer& l = m.layers.front();
  const auto w = weights_of(d, l), original = weights_of(before, l);
  for (std::size_t i = 0; i < w.size(); ++i) {
    CHECK(w[i] * original[i] <= 0);
    CHECK(std::abs(w[i]) <= std::abs(original[i]));
  }
}

TEST_CASE("wasq: a run on the grid resumes to the same bytes and another method's checkpoint is refused") {
  const Wheel data;
  const test_support::TemporaryFolder folder;
  const auto run = [&](wasq::GridModel& m, model::Decoder& d, bool resume, Index stop) {
    train::TrainOptions o = options_for(m);
    o.checkpoints = {.path = resume ? folder / "run" : std::string(), .resume = resume};
    return train::train_decoder(d, data.examples, train::all_weights, o,
                                [&](const train::TrainStep& s) { return s.step + 1 < stop; });
  };
  const wasq::Fpm method{.bits = 4};
  model::Decoder whole = small_llama(), first = small_llama(), second = small_llama();
  wasq::GridModel a = method.make(whole), b = method.make(first), c = method.make(second);
  REQUIRE(run(a, whole, false, 80).ok());
  REQUIRE(run(b, first, true, 30).ok());
  REQUIRE(run(c, second, true, 80).ok());
  for (std::size_t i = 0; i < a.layers.size(); ++i) {
    CHECK(a.layers[i].values == c.layers[i].values);
    CHECK(a.layers[i].row_scales == c.layers[i].row_scales);
    CHECK(weights_of(whole, a.layers[i]) == weights_of(second, c.layers[i]));
  }
  wasq::GridModel other = wasq::Fpm{.bits = 5}.make(first);
  model::Decoder fresh = small_llama();
  const auto refused = run(other, fresh, true, 80);
  REQUIRE(!refused.ok());
  CHECK(refused.error().message.find("its method is") != std::string::npos);
}

TEST_CASE("wasq: rounded activations change the loss and gradients still pass") {
  const Wheel data;
  model::Decoder d = small_llama();
  const auto mean = [&](const std::vector<model::Tap>& taps) {
    train::Gradients g = train::make_gradients(d, train::all_weights);
    const auto loss = train::loss_and_gradients(d, data.examples, g, {.taps = taps});
    REQUIRE(loss.ok());
    CHECK(train::global_norm(train::parameters(d, g), {}) > 0);
    return loss->mean();
  };
  const double plain = mean({}), fine = mean(wasq::activation_taps(11, wasq::SiteScale::token)),
               coarse = mean(wasq::activation_taps(3, wasq::SiteScale::token));
  CHECK(fine == Approx(plain).epsilon(0.01));
  CHECK(fine != plain);
  CHECK(std::abs(coarse - plain) > std::abs(fine - plain));
}
