#include <anybit/transform/awq.hpp>

#include <string>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/algorithm/recipe.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace test_layers;

namespace {

using Sf4 = Nearest<Superfloat<4>, PerGroup<16>>;

Matrix with_outliers(Index tokens, Index inputs, unsigned seed) {
  Matrix x = correlated(tokens, inputs, seed);
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 0; j < inputs; j += 11) x(t, j) *= 20;
  return x;
}

/// Naive sum over siblings and tokens of the squared output difference, relative.
double output_error(std::span<const ConstMatrix> w, const SiblingResult<Sf4::scheme>& r, const Matrix& x) {
  double off = 0, all = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    Matrix back = dequantize(r.matrices[i].matrix);
    for (Index t = 0; t < x.rows(); ++t)
      for (Index o = 0; o < back.rows(); ++o) {
        double exact = 0, got = 0;
        for (Index j = 0; j < back.cols(); ++j) {
          exact += double{x(t, j)} * double{w[i](o, j)};
          got += double{x(t, j)} * double{back(o, j)} /
                 (r.input_scale.empty() ? 1.0 : double{r.input_scale[static_cast<std::size_t>(j)]});
        }
        off += (exact - got) * (exact - got);
        all += exact * exact;
      }
  }
  return off / all;
}

}  // namespace

TEST_CASE("awq: scales of the worked example") {
  const float mean[] = {4, 1, 0.25f};
  CHECK(awq::scale_for(mean, 0) == std::vector<float>{1, 1, 1});
  CHECK(awq::scale_for(mean, 0.5f) == std::vector<float>{2, 1, 0.5f});
  const auto s = awq::scale_for(mean, 0.95f);
  CHECK(s[0] == Approx(3.7321).epsilon(1e-4));
  CHECK(s[2] == Approx(0.26794).epsilon(1e-4));
}

TEST_CASE("awq with ratio 0 only is rounding to nearest") {
  const Matrix w = random_matrix(6, 40, 1), x = with_outliers(50, 40, 2);
  const auto stats = *accumulate<Awq::needs>(x.view());
  const ConstMatrix siblings[] = {w.view()};
  const auto q = quantize_siblings(Awq{.ratios = 1, .clip = false} | Sf4{}, siblings, stats);
  REQUIRE(q.ok());
  CHECK(q->input_scale.empty());
  CHECK(q->matrices[0].matrix == Sf4{}.quantize(w.view())->matrix);
}

TEST_CASE("awq lowers the output error of siblings, and never raises it") {
  for (const unsigned seed : {1u, 2u, 3u}) {
    const Matrix a = random_matrix(9, 66, seed), b = random_matrix(5, 66, seed + 10), x = with_outliers(200, 66, seed + 20);
    const auto stats = *accumulate<Awq::needs>(x.view());
    const ConstMatrix siblings[] = {a.view(), b.view()};
    const double plain = output_error(siblings, *quantize_siblings(Sf4{}, siblings, stats), x);
    const auto scaled = quantize_siblings(Awq{.clip = false} | Sf4{}, siblings, stats),
               clipped = quantize_siblings(Awq{} | Sf4{}, siblings, stats);
    const double by_scale = output_error(siblings, *scaled, x), by_both = output_error(siblings, *clipped, x);
    CHECK(by_scale < plain);
    CHECK(by_both < by_scale);
    CHECK(clipped->matrices.size() == 2);
    CHECK(clipped->input_scale.size() == 66);
    CHECK(clipped->matrices[0].report.remarks.size() >= 1);
    CHECK(clipped->matrices[1].report.requested == "awq | nearest superfloat4/g16/f16/bits");
  }
}

TEST_CASE("clipping leaves excluded siblings alone") {
  const Matrix a = random_matrix(9, 32, 1), x = with_outliers(100, 32, 20);
  const auto stats = *accumulate<Awq::needs>(x.view());
  const ConstMatrix siblings[] = {a.view(), a.view()};
  const bool clip[] = {false, true};
  QuantizeOptions options;
  options.clip = clip;
  const auto q = quantize_siblings(Awq{} | Sf4{}, siblings, stats, options),
             none = quantize_siblings(Awq{.clip = false} | Sf4{}, siblings, stats);
  CHECK(q->matrices[0].matrix == none->matrices[0].matrix);
  CHECK(!(q->matrices[1].matrix == none->matrices[1].matrix));
  options.clip = std::span<const bool>(clip, 1);
  CHECK(!quantize_siblings(Awq{} | Sf4{}, siblings, stats, options).ok());
}

TEST_CASE("the whole composition: smoothed, scaled, fed back") {
  const Matrix a = random_matrix(12, 64, 1), b = random_matrix(8, 64, 2), x = with_outliers(300, 64, 3);
  const auto recipe = SmoothQuant{.alpha = 0.5f} | Awq{} | Gptq<Superfloat<4>, PerGroup<16>>{.damp = 0.01f};
  const auto stats = *accumulate<decltype(recipe)::needs>(x.view());
  const ConstMatrix siblings[] = {a.view(), b.view()};
  ThreadPool pool(3);
  QuantizeOptions options;
  options.executor = pool;
  const auto q = quantize_siblings(recipe, siblings, stats), threaded = quantize_siblings(recipe, siblings, stats, options);
  REQUIRE(q.ok());
  CHECK(q->matrices[1].matrix == threaded->matrices[1].matrix);
  CHECK(q->input_scale == threaded->input_scale);
  CHECK(q->matrices[0].report.done == "smooth_quant(alpha=0.50) | awq | gptq(damp=0.01) superfloat4/g16/f16/bits");
  const double error = output_error(siblings, *q, x);
  const auto plain = quantize_siblings(Sf4{}, siblings, stats);
  CHECK(error < output_error(siblings, *plain, x));
  // The report's error is that of the outputs, whatever the scaling.
  double off = 0, all = 0;
  const Square h = hessian_of(stats);
  const Matrix zero_a(12, 64), zero_b(8, 64);
  const double sizes[] = {objective(a.view(), zero_a.view(), h), objective(b.view(), zero_b.view(), h)};
  for (std::size_t i = 0; i < 2; ++i) {
    off += std::pow(*q->matrices[i].report.output_error, 2) * sizes[i];
    all += sizes[i];
  }
  CHECK(off / all == Approx(error).epsilon(1e-2));
}

TEST_CASE("awq of odd layers: dead inputs, one column, one scale a tensor, block losses that are not numbers") {
  Matrix w = random_matrix(3, 20, 1), x = with_outliers(30, 20, 2);
  for (Index t = 0; t < 30; ++t) x(t, 4) = 0;
  const auto stats = *accumulate<Awq::needs>(x.view());
  const ConstMatrix siblings[] = {w.view()};
  CHECK(quantize_siblings(Awq{} | Sf4{}, siblings, stats).ok());
  const auto tensor = quantize_siblings(Awq{} | Nearest<SInt<4>, PerTensor>{}, siblings, stats);
  REQUIRE(tensor.ok());
  CHECK(tensor->matrices[0].report.as_requested());
  const Awq lost{.block_loss = [](std::span<const ConstMatrix>) { return std::nan(""); }};
  const auto q = quantize_siblings(lost | Sf4{}, siblings, stats);
  REQUIRE(q.ok());
  CHECK(q->input_scale.empty());
  CHECK(!q->matrices[0].report.as_requested());
  QuantizeOptions strict;
  strict.strict = true;
  CHECK(quantize_siblings(lost | Sf4{}, siblings, stats, strict).error().code == ErrorCode::degraded);
  const Matrix narrow = random_matrix(4, 1, 3), y = random_matrix(9, 1, 4);
  const ConstMatrix one[] = {narrow.view()};
  CHECK(quantize_siblings(Awq{} | Sf4{}, one, *accumulate<Awq::needs>(y.view())).ok());
}

TEST_CASE("awq and recipes refuse what they cannot use") {
  const Matrix w = random_matrix(3, 20, 1), other = random_matrix(3, 19, 1), x = with_outliers(30, 20, 2);
  const auto stats = *accumulate<Awq::needs>(x.view());
  const ConstMatrix siblings[] = {w.view()}, uneven[] = {w.view(), other.view()};
  const auto message = [](const auto& result) { return result.ok() ? std::string("no error") : result.error().message; };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  CHECK(has(message(quantize_siblings(Awq{.ratios = 0} | Sf4{}, siblings, stats)), "ratios is 0; it must be 1 to 1000"));
  CHECK(has(message(quantize_siblings(Awq{.clip_steps = 0} | Sf4{}, siblings, stats)), "clip_steps is 0"));
  CHECK(has(message(quantize_siblings(Awq{} | Sf4{}, {}, stats)), "empty"));
  CHECK(has(message(quantize_siblings(Awq{} | Sf4{}, uneven, stats)), "sibling 1 has 19 inputs"));
  CHECK(has(message(quantize_siblings(Awq{} | Sf4{}, siblings, Stats(20, Awq::needs))), "0 tokens"));
  CHECK(has(message(quantize_siblings(Awq{} | Sf4{}, siblings, Stats(20, Needs::hessian))), "mean_abs"));
  CHECK(has(message(quantize_siblings(SmoothQuant{.alpha = 2} | Sf4{}, siblings, *accumulate<Needs::abs_max>(x.view()))),
            "alpha is 2"));
  Matrix bad = w;
  bad(1, 2) = std::nanf("");
  const ConstMatrix broken[] = {w.view(), bad.view()};
  CHECK(has(message(quantize_siblings(Awq{} | Sf4{}, broken, stats)), "sibling 1: weight at row 1, column 2"));
}
