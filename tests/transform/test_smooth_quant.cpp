#include <anybit/transform/smooth_quant.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>
#include <string>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/transform/awq.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using test_layers::random_matrix;

namespace {

using W8 = Nearest<SInt<8>, PerRow, ScaleF32>;

}  // namespace

TEST_CASE("smooth_quant: the worked example") {
  Matrix x(1, 3), w(1, 3);
  x(0, 0) = 8, x(0, 1) = -1, x(0, 2) = 0.5f;
  w(0, 0) = -0.5f, w(0, 1) = 1, w(0, 2) = 2;
  const auto stats = *accumulate<Needs::abs_max>(x.view());
  const ConstMatrix siblings[] = {w.view()};
  const auto half = SmoothQuant{}.fit(siblings, stats);
  CHECK((*half)[0] == Approx(4));
  CHECK((*half)[1] == Approx(1));
  CHECK((*half)[2] == Approx(0.5));
  CHECK((*SmoothQuant{.alpha = 0.8f}.fit(siblings, stats))[0] == Approx(6.0629).epsilon(1e-4));
}

TEST_CASE("smooth_quant changes nothing but the numbers: (X / s)(W s)^T = X W^T, and statistics follow") {
  const Matrix x = random_matrix(17, 9, 1), a = random_matrix(5, 9, 2), b = random_matrix(3, 9, 3);
  const Needs all = Needs::abs_max | Needs::mean_abs | Needs::mean_square | Needs::hessian | Needs::samples;
  Stats stats(9, all);
  REQUIRE(stats.accumulate(x.view()).ok());
  const ConstMatrix matrices[] = {a.view(), b.view()};
  Siblings set(matrices, stats);
  REQUIRE(SmoothQuant{.alpha = 0.7f}.apply(set, W8{}, {}).ok());
  REQUIRE(set.input_scale.size() == 9);
  Matrix divided = x;
  for (Index t = 0; t < 17; ++t)
    for (Index j = 0; j < 9; ++j) divided(t, j) /= set.input_scale[static_cast<std::size_t>(j)];
  for (Index t = 0; t < 17; ++t)
    for (Index r = 0; r < 5; ++r) {
      double before = 0, after = 0;
      for (Index j = 0; j < 9; ++j) {
        before += double{x(t, j)} * double{a(r, j)};
        after += double{divided(t, j)} * double{set.weights[0].view()(r, j)};
      }
      CHECK(after == Approx(before).epsilon(1e-5).margin(1e-5));
    }
  Stats again(9, all);
  REQUIRE(again.accumulate(divided.view()).ok());
  const Matrix h = set.stats->hessian(), h2 = again.hessian();
  for (std::size_t j = 0; j < 9; ++j) {
    CHECK(set.stats->abs_max()[j] == Approx(again.abs_max()[j]));
    CHECK(set.stats->mean_abs()[j] == Approx(again.mean_abs()[j]));
    CHECK(set.stats->mean_square()[j] == Approx(again.mean_square()[j]));
    for (std::size_t k = 0; k < 9; ++k) CHECK(h(Index(j), Index(k)) == Approx(h2(Index(j), Index(k))).margin(1e-5));
  }
  for (Index t = 0; t < 17; ++t)
    for (Index j = 0; j < 9; ++j) CHECK(set.stats->samples()(t, j) == Approx(divided(t, j)));
}

TEST_CASE("smooth_quant: descriptions name every option, so that a resumed run sees what changed") {
  CHECK(SmoothQuantSearch{}.describe() == "smooth_quant(searched)");
  CHECK(SmoothQuantSearch{.static_activations = true}.describe() == "smooth_quant(searched, static)");
  CHECK(SmoothQuantSearch{.steps = 10, .tokens = 64}.describe() == "smooth_quant(searched, steps=10, tokens=64)");
  CHECK(SmoothQuant{}.describe() == "smooth_quant(alpha=0.50)");
  CHECK(SmoothQuant{.alpha = 0.85f}.describe() == "smooth_quant(alpha=0.85)");
  CHECK(SmoothQuant{.alpha = 0.855f}.describe() != SmoothQuant{.alpha = 0.85f}.describe());
}

TEST_CASE("smooth_quant: tied inputs share the largest maxima and one scale") {
  Matrix x(1, 4), w(1, 4);
  const float xs[] = {8, 1, 2, 0.5f}, ws[] = {0.5f, 1, 0.25f, -2};
  std::copy(std::begin(xs), std::end(xs), x.data());
  std::copy(std::begin(ws), std::end(ws), w.data());
  const auto stats = *accumulate<Needs::abs_max>(x.view());
  const ConstMatrix siblings[] = {w.view()};
  const std::vector<Index> tied{0, 1, 0, 1};
  const auto s = *SmoothQuant{}.fit(siblings, stats, tied);
  CHECK(s[0] == Approx(std::sqrt(8 / 0.5)));
  CHECK(s[1] == Approx(std::sqrt(1.0 / 2)));
  CHECK(s[2] == s[0]);
  CHECK(s[3] == s[1]);
  CHECK(SmoothQuant{}.fit(siblings, stats, std::vector<Index>{0, 1, 0}).error().message.find("3 entries for 4") !=
        std::string::npos);
}

TEST_CASE("smooth_quant searched: no alpha of the grid, nor none, has less error of the 8-bit product") {
  Matrix x = random_matrix(200, 20, 1);
  const Matrix a = random_matrix(30, 20, 2), b = random_matrix(7, 20, 3);
  for (Index t = 0; t < 200; ++t) x(t, 3) *= 60, x(t, 11) *= 25;
  const auto stats = *accumulate<SmoothQuantSearch::needs>(x.view());
  const ConstMatrix siblings[] = {a.view(), b.view()};
  // By the definition, in double.
  const auto error = [&](std::span<const float> s, bool fixed) {
    double largest = 0, sum = 0;
    std::vector<double> absmax(200);
    for (Index t = 0; t < 200; ++t) {
      for (std::size_t j = 0; j < 20; ++j)
        absmax[std::size_t(t)] = std::max(absmax[std::size_t(t)], std::fabs(double{x(t, Index(j))} / double{s[j]}));
      largest = std::max(largest, absmax[std::size_t(t)]);
    }
    for (const ConstMatrix& w : siblings)
      for (Index r = 0; r < w.rows; ++r) {
        double step = 0;
        for (std::size_t j = 0; j < 20; ++j) step = std::max(step, std::fabs(double{w(r, Index(j))} * double{s[j]}) / 127);
        for (Index t = 0; t < 200; ++t) {
          const double unit = (fixed ? largest : absmax[std::size_t(t)]) / 127;
          double d = 0;
          for (std::size_t j = 0; j < 20; ++j) {
            const double v = double{x(t, Index(j))}, u = double{w(r, Index(j))};
            d += v * u - std::nearbyint(v / double{s[j]} / unit) * unit * std::nearbyint(u * double{s[j]} / step) * step;
          }
          sum += d * d;
        }
      }
    return sum;
  };
  for (const bool fixed : {false, true}) {
    const SmoothQuantSearch search{.tokens = 1000, .static_activations = fixed};
    const auto q = quantize_siblings(search | W8{}, siblings, stats);
    REQUIRE(q.ok());
    REQUIRE(q->input_scale.size() == 20);
    const double mine = error(q->input_scale, fixed);
    double least = error(std::vector<float>(20, 1.0f), fixed);
    CHECK(mine < 0.5 * least);
    for (int k = 0; k <= 20; ++k)
      least = std::min(least, error(*SmoothQuant{.alpha = static_cast<float>(k) / 20}.fit(siblings, stats), fixed));
    CHECK(mine <= least * 1.02);
    CHECK(q->matrices[1].report.remarks.front().find("smooth_quant: alpha ") == 0);
  }
  // Nothing to smooth: every channel alike, so that no alpha need be better.
  const Matrix flat = random_matrix(4, 1, 9), one = random_matrix(3, 1, 8);
  const ConstMatrix narrow[] = {one.view()};
  CHECK(quantize_siblings(SmoothQuantSearch{} | W8{}, narrow, *accumulate<SmoothQuantSearch::needs>(flat.view())).ok());
  const auto message = [&](const SmoothQuantSearch& s) { return quantize_siblings(s | W8{}, siblings, stats).error().message; };
  CHECK(message({.steps = 0}).find("steps is 0; it must be 1 to 1000") != std::string::npos);
  CHECK(message({.tokens = 0}).find("tokens is 0") != std::string::npos);
  CHECK(quantize_siblings(SmoothQuantSearch{} | W8{}, siblings, *accumulate<Needs::abs_max>(x.view())).error().code ==
        ErrorCode::insufficient_data);
}

TEST_CASE("fold and fold_rows divide what makes the input") {
  const std::vector<float> s{2, 4, 0.5f};
  std::vector<float> gain{1, 1, 1}, gemma{0, 1, -0.5f};
  fold(s, gain);
  CHECK(gain == std::vector<float>{0.5f, 0.25f, 2});
  fold(s, gemma, 1);
  CHECK(gemma == std::vector<float>{-0.5f, -0.5f, 0});
  Matrix upstream(5, 2);
  for (Index i = 0; i < 10; ++i) upstream.data()[i] = 8;
  fold_rows(s, upstream.view());
  CHECK(upstream(1, 0) == 8);
  CHECK(upstream(2, 1) == 4);
  CHECK(upstream(3, 0) == 2);
  CHECK(upstream(4, 1) == 16);
  fold({}, gain);
  CHECK(gain[0] == 0.5f);
}

TEST_CASE("smooth_quant refuses what it cannot use, naming value and range") {
  const Matrix x = random_matrix(4, 3, 1), w = random_matrix(2, 3, 2);
  const auto stats = *accumulate<Needs::abs_max>(x.view());
  const ConstMatrix siblings[] = {w.view()};
  for (const float alpha : {-0.1f, 1.1f, std::nanf("")}) {
    const auto e = SmoothQuant{.alpha = alpha}.fit(siblings, stats);
    REQUIRE(!e.ok());
    CHECK(e.error().message.find("0 to 1") != std::string::npos);
  }
  CHECK(SmoothQuant{}.fit({}, stats).error().message.find("empty") != std::string::npos);
  CHECK(SmoothQuant{}.fit(siblings, Stats(3, Needs::abs_max)).error().code == ErrorCode::insufficient_data);
  CHECK(SmoothQuant{}.fit(siblings, Stats(4, Needs::abs_max)).error().code == ErrorCode::shape_mismatch);
  CHECK(SmoothQuant{}.fit(siblings, Stats(3, Needs::hessian)).error().message.find("abs_max") != std::string::npos);
}

TEST_CASE("smooth_quant against the published code") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/smoothquant.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  const Matrix q = *file->read_f32("W_q"), k = *file->read_f32("W_k"), v = *file->read_f32("W_v"), x = *file->read_f32("X");
  const auto stats = *accumulate<Needs::abs_max>(x.view());
  const auto act = *file->read<float>("act_scales");
  for (std::size_t j = 0; j < act.size(); ++j) CHECK(stats.abs_max()[j] == act[j]);
  const ConstMatrix qkv[] = {q.view(), k.view(), v.view()}, alone[] = {k.view()};
  const auto ln = *file->read<float>("ln_weight"), bias = *file->read<float>("ln_bias");
  for (const int percent : {30, 50, 75, 90}) {
    const std::string id = "a" + std::to_string(percent);
    INFO(id);
    const SmoothQuant method{.alpha = static_cast<float>(percent) / 100};
    const auto all = *method.fit(qkv, stats), one = *method.fit(alone, stats);
    const auto expected = *file->read<float>(id + ".qkv.scales"), expected_one = *file->read<float>(id + ".k.scales");
    for (std::size_t j = 0; j < all.size(); ++j) {
      // The published code divides inputs that were always 0 by 1e-5.
      CHECK(all[j] == Approx(act[j] == 0 ? 1.0f : expected[j]).epsilon(2e-6));
      CHECK(one[j] == Approx(act[j] == 0 ? 1.0f : expected_one[j]).epsilon(2e-6));
    }
    if (!file->find(id + ".qkv.ln.ln_weight")) continue;
    auto gain = ln, offset = bias;
    fold(expected, gain);
    fold(expected, offset);
    const auto folded = *file->read<float>(id + ".qkv.ln.ln_weight"), folded_bias = *file->read<float>(id + ".qkv.ln.ln_bias");
    for (std::size_t j = 0; j < gain.size(); ++j) {
      CHECK(gain[j] == Approx(folded[j]).epsilon(3e-6));
      CHECK(offset[j] == Approx(folded_bias[j]).epsilon(3e-6));
    }
  }
  // 8 bits a channel of the smoothed weights.
  if (file->find("a50.Wq_smooth.per_channel")) {
    const ConstMatrix alone_q[] = {q.view()};
    Siblings set(alone_q, stats);
    recipe::scale_inputs(set, *file->read<float>("a50.qkv.scales"));
    const auto result = W8{}.quantize(set.weights[0].view());
    REQUIRE(result.ok());
    const Matrix expected = *file->read_f32("a50.Wq_smooth.per_channel"), back = dequantize(result->matrix);
    Index off = 0;
    for (Index r = 0; r < back.rows(); ++r)
      for (Index c = 0; c < back.cols(); ++c) {
        const float step = result->matrix.affine(r, 0).scale;
        CHECK(std::fabs(back(r, c) - expected(r, c)) <= 1.01f * step);
        off += std::fabs(back(r, c) - expected(r, c)) > 0.1f * step;
      }
    CHECK(off <= back.extents().size() / 1000);
  }
}

namespace {

/// ||X W^T - Q8(X / s) Q(W s)^T||^2 over that of X W^T, 8 bits a token.
template <class S>
double int8_error(const Matrix& w, const SiblingResult<S>& r, const Matrix& x) {
  Matrix divided = x;
  if (!r.input_scale.empty())
    for (Index t = 0; t < x.rows(); ++t)
      for (Index j = 0; j < x.cols(); ++j) divided(t, j) /= r.input_scale[static_cast<std::size_t>(j)];
  const Matrix rounded = smooth_quant::rounded_to_int8<>(divided.view()), q = dequantize(r.matrices[0].matrix);
  double off = 0, all = 0;
  for (Index t = 0; t < x.rows(); ++t)
    for (Index o = 0; o < w.rows(); ++o) {
      double exact = 0, got = 0;
      for (Index j = 0; j < x.cols(); ++j)
        exact += double{x(t, j)} * double{w(o, j)}, got += double{rounded(t, j)} * double{q(o, j)};
      off += (exact - got) * (exact - got), all += exact * exact;
    }
  return std::sqrt(off / all);
}

/// Input 7 is 0 in calibration and small later.
struct DeadInput {
  Matrix w = random_matrix(24, 32, 1, 0.1f), seen = random_matrix(100, 32, 2), later = random_matrix(50, 32, 3);
  DeadInput() {
    for (Index t = 0; t < seen.rows(); ++t) seen(t, 7) = 0;
    for (Index t = 0; t < later.rows(); ++t) later(t, 7) *= 0.02f;
  }
};

template <class Recipe>
void check_dead_input(const Recipe& recipe, const char* who, double most) {
  const DeadInput layer;
  INFO(who);
  const auto stats = *accumulate < Needs::abs_max | Needs::mean_abs | Needs::hessian | Needs::samples > (layer.seen.view());
  const ConstMatrix siblings[] = {layer.w.view()};
  const auto q = quantize_siblings(recipe, siblings, stats);
  REQUIRE(q.ok());
  CHECK(int8_error(layer.w, *q, layer.later) < most);
  if (q->input_scale.empty()) return;
  CHECK(q->input_scale[7] == 1);
  REQUIRE(!q->matrices[0].report.as_requested());
  CHECK(q->matrices[0].report.fallbacks[0] ==
        std::string(who) + ": 1 of 32 inputs were 0 on all calibration tokens and were not scaled");
  CHECK(quantize_siblings(recipe, siblings, stats, {.strict = true}).error().code == ErrorCode::degraded);
  // Tied to an input that was not 0, it shares that one's scale, and nothing is to be said.
  std::vector<Index> tied(32);
  for (std::size_t j = 0; j < 32; ++j) tied[j] = static_cast<Index>(j);
  tied[7] = tied[8] = 7;
  const auto shared = quantize_siblings(recipe, siblings, stats, {.strict = true, .tied = tied});
  REQUIRE(shared.ok());
  CHECK(shared->input_scale[7] == shared->input_scale[8]);
  // Tied to another dead one, both stay at 1.
  Matrix both = layer.seen;
  for (Index t = 0; t < both.rows(); ++t) both(t, 8) = 0;
  const auto two = quantize_siblings(
      recipe, siblings, *accumulate < Needs::abs_max | Needs::mean_abs | Needs::hessian | Needs::samples > (both.view()),
      {.tied = tied});
  CHECK(two->input_scale[8] == 1);
  CHECK(two->matrices[0].report.fallbacks[0].find(": 2 of 32 inputs") != std::string::npos);
}

}  // namespace

TEST_CASE("inputs that were always 0 in calibration stay as they are, and the report says so") {
  check_dead_input(SmoothQuant{.alpha = 0.5f} | W8{}, "smooth_quant", 0.02);
  check_dead_input(SmoothQuantSearch{} | W8{}, "smooth_quant", 0.02);
  check_dead_input(Awq{.clip = false} | Nearest<UInt<4>, PerGroup<16>>{.range = Range::min_max}, "awq", 0.2);
  check_dead_input(Awq{.scaling = AwqScaling::duo, .clip = false} | Nearest<SInt<8>, PerRow, ScaleF32>{}, "awq", 0.02);
}
