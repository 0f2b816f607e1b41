#include <anybit/transform/awq.hpp>

#include <string>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"
#include "support/hostile_executor.hpp"

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
  test_support::HostileExecutor hostile;
  options.executor = hostile;
  CHECK(quantize_siblings(recipe, siblings, stats, options)->matrices[1].matrix == q->matrices[1].matrix);
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

TEST_CASE("awq: shares of weights and duo scales by their definition") {
  // Two groups of 2, two siblings: |w| over the largest of its group, the mean over three rows.
  Matrix a(2, 4), b(1, 4);
  const float av[] = {1, -2, 4, 0, 3, 3, -1, 2}, bv[] = {0, 0, -5, 1};
  std::copy(std::begin(av), std::end(av), a.data());
  std::copy(std::begin(bv), std::end(bv), b.data());
  const ConstMatrix siblings[] = {a.view(), b.view()};
  const auto share = awq::weight_share<Scheme<UInt<4>, PerGroup<2>>>(siblings);
  const double expected[] = {(0.5 + 1 + 0) / 3, (1.0 + 1 + 0) / 3, (1 + 0.5 + 1) / 3, (0 + 1 + 0.2) / 3};
  for (std::size_t j = 0; j < 4; ++j) CHECK(share[j] == Approx(expected[j]).epsilon(1e-5));
  const auto whole = awq::weight_share<Scheme<UInt<4>, PerTensor>>(siblings);
  CHECK(whole[0] == Approx((0.25 + 1 + 0) / 3).epsilon(1e-5));

  const float x[] = {4, 1, 0.25f, 0};
  for (const float ratio : {0.0f, 0.35f, 0.95f}) {
    const auto s = awq::duo_scale_for(x, share, ratio);
    double raw[4], low = 1e300, high = 0;
    for (std::size_t j = 0; j < 4; ++j) {
      raw[j] = std::max(std::pow(double{x[j]}, double{ratio}) / (std::pow(expected[j], 1.0 - double{ratio}) + 1e-4), 1e-4);
      if (j < 3) low = std::min(low, raw[j]), high = std::max(high, raw[j]);
    }
    for (std::size_t j = 0; j < 3; ++j) CHECK(s[j] == Approx(raw[j] / std::sqrt(low * high)).epsilon(1e-4));
    CHECK(s[3] == 1);  // nothing is known of it
  }
  const float huge[] = {1e38f, 1e38f};
  for (const float v : awq::duo_scale_for(huge, std::vector<float>{0, 0}, 1.0f)) CHECK(std::isfinite(v));
}

TEST_CASE("awq may choose between both kinds of scale, and takes the better") {
  const Matrix w = random_matrix(9, 66, 1), x = with_outliers(200, 66, 21);
  Matrix uneven = w;
  for (Index r = 0; r < 9; ++r)
    for (Index j = 0; j < 66; j += 5) uneven(r, j) *= 8;
  const auto stats = *accumulate<Awq::needs>(x.view());
  for (const Matrix* m : {&w, static_cast<const Matrix*>(&uneven)}) {
    const ConstMatrix siblings[] = {m->view()};
    const auto error = [&](AwqScaling scaling) {
      return output_error(siblings, *quantize_siblings(Awq{.scaling = scaling, .clip = false} | Sf4{}, siblings, stats), x);
    };
    const double plain = error(AwqScaling::activations), duo = error(AwqScaling::duo), both = error(AwqScaling::both);
    CHECK(plain != duo);
    CHECK(both == Approx(std::min(plain, duo)).epsilon(1e-6));
  }
  CHECK((Awq{.scaling = AwqScaling::duo}.describe()) == "awq(duo)");
  CHECK((Awq{.scaling = AwqScaling::both, .clip = false, .for_algorithm = false}.describe()) ==
        "awq(duo or not, for rounding, no clip)");
}

TEST_CASE("gptq's column costs: what no later column can make up for") {
  const Matrix x = correlated(60, 12, 5);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  const Square h = hessian_of(stats);
  const Gptq<UInt<4>, PerGroup<4>> method{.damp = 0.05f};
  const auto costs = method.column_costs(stats);
  REQUIRE(costs.size() == 12);
  // Least d H d^T over d with d_k = 1, zeros before k: by Gauss-Seidel over the columns behind k.
  double damping = 0;
  for (Index j = 0; j < 12; ++j) damping += 0.05 * h(j, j) / 12;
  std::vector<double> expected;
  for (Index k = 0; k < 12; ++k) {
    reference::Vector d(12);
    d[k] = 1;
    const auto dot = [&](Index i) {
      double sum = damping * d[i];
      for (Index j = k; j < 12; ++j) sum += h(i, j) * d[j];
      return sum;
    };
    for (int round = 0; round < 4000; ++round)
      for (Index i = k + 1; i < 12; ++i) d[i] -= dot(i) / (h(i, i) + damping);
    expected.push_back(dot(k));
  }
  for (std::size_t k = 1; k < 12; ++k) CHECK(costs[k] / costs[0] == Approx(expected[k] / expected[0]).epsilon(1e-3));
  CHECK(Gptq<UInt<4>, PerGroup<4>>{}.column_costs(*accumulate<Needs::hessian>(Matrix(3, 12).view())).empty());
}

TEST_CASE("awq before gptq leaves no sibling worse than gptq alone, whatever the layer") {
  double gain = 0;
  for (const unsigned seed : {1u, 2u, 3u, 4u, 5u, 6u}) {
    const Matrix a = random_matrix(9, 66, seed), b = random_matrix(5, 66, seed + 10);
    const Matrix x = seed % 2 == 0 ? correlated(200, 66, seed + 20) : with_outliers(200, 66, seed + 20);
    const ConstMatrix siblings[] = {a.view(), b.view()};
    const auto stats = *accumulate<Awq::needs>(x.view());
    const auto check = [&](const auto& gptq) {
      const auto alone = *quantize_siblings(gptq, siblings, stats);
      for (const AwqScaling scaling : {AwqScaling::activations, AwqScaling::both}) {
        const auto both = *quantize_siblings(Awq{.scaling = scaling} | gptq, siblings, stats);
        for (std::size_t i = 0; i < 2; ++i) {
          CHECK(*both.matrices[i].report.output_error <= *alone.matrices[i].report.output_error * 1.0001);
          gain += std::log(*both.matrices[i].report.output_error / *alone.matrices[i].report.output_error);
        }
      }
    };
    check(Gptq<Superfloat<4>, PerGroup<16>>{});
    check(Gptq<UInt<3>, PerGroup<16>>{.act_order = true});
  }
  CHECK(gain / 48 < -0.02);
  // Inputs that were always 0 leave nothing to weigh by, and the published choice is made.
  const Matrix w = random_matrix(3, 20, 1);
  const ConstMatrix dead[] = {w.view()};
  CHECK(quantize_siblings(Awq{} | Gptq<SInt<4>, PerGroup<8>>{}, dead, *accumulate<Awq::needs>(Matrix(9, 20).view())).ok());
}

TEST_CASE("awq scales tied inputs alike") {
  const Matrix w = random_matrix(7, 12, 1), x = with_outliers(90, 12, 2);
  const auto stats = *accumulate<Awq::needs>(x.view());
  const ConstMatrix siblings[] = {w.view()};
  const std::vector<Index> tied{0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5};
  QuantizeOptions options;
  options.tied = tied;
  const auto check = [&](const auto& recipe) {
    const auto q = quantize_siblings(recipe, siblings, stats, options);
    REQUIRE(q.ok());
    REQUIRE(q->input_scale.size() == 12);
    for (std::size_t j : {0u, 1u, 2u, 6u, 7u, 8u}) CHECK(q->input_scale[j] == q->input_scale[j + 3]);
    CHECK(q->input_scale[0] != q->input_scale[1]);
  };
  check(Awq{} | Sf4{});
  check(Awq{.scaling = AwqScaling::duo} | Sf4{});
  check(Awq{.scaling = AwqScaling::both} | Gptq<Superfloat<3>, PerGroup<4>>{});
  const std::vector<Index> short_list{0, 1}, outside{0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 12};
  options.tied = short_list;
  CHECK(quantize_siblings(Sf4{}, siblings, stats, options).error().message.find("2 entries for 12 inputs") != std::string::npos);
  options.tied = outside;
  CHECK(quantize_siblings(Sf4{}, siblings, stats, options).error().message.find("12 for input 11; it must be 0 to 11") !=
        std::string::npos);
}

TEST_CASE("awq of odd layers: dead inputs, one column, one scale a tensor, block losses that are not numbers") {
  Matrix w = random_matrix(3, 20, 1), x = with_outliers(30, 20, 2);
  for (Index t = 0; t < 30; ++t) x(t, 4) = 0;
  const auto stats = *accumulate<Awq::needs>(x.view());
  const ConstMatrix siblings[] = {w.view()};
  CHECK(quantize_siblings(Awq{} | Sf4{}, siblings, stats).ok());
  const auto tensor = quantize_siblings(Awq{} | Nearest<SInt<4>, PerTensor>{}, siblings, stats);
  REQUIRE(tensor.ok());
  CHECK(tensor->matrices[0].report.fallbacks ==
        std::vector<std::string>{"awq: 1 of 20 inputs were 0 on all calibration tokens and were not scaled"});
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

TEST_CASE("awq: a block loss is given the weights that meet the original inputs, whatever transforms went before") {
  const Matrix a = random_matrix(5, 32, 1), b = random_matrix(3, 32, 2), x = with_outliers(60, 32, 3);
  const auto stats = *accumulate < Awq::needs | Needs::abs_max > (x.view());
  const ConstMatrix siblings[] = {a.view(), b.view()};
  double farthest = 0;
  int calls = 0;
  const Awq told{.clip = false, .block_loss = [&](std::span<const ConstMatrix> w) {
                   double sum = 0;
                   for (std::size_t i = 0; i < 2; ++i) sum += relative_error(siblings[i], w[i]);
                   ++calls;
                   farthest = std::max(farthest, sum);
                   return sum;
                 }};
  using Fine = Nearest<UInt<8>, PerGroup<16>>;
  REQUIRE(quantize_siblings(SmoothQuant{} | told | Fine{}, siblings, stats).ok());
  CHECK(calls == 20);
  CHECK(farthest < 0.1);
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

TEST_CASE("awq on inputs of any size: the same choices at 1e20 as at 1, no weight is lost") {
  const Matrix w = random_matrix(12, 48, 1), x = with_outliers(90, 48, 2);
  const ConstMatrix siblings[] = {w.view()};
  const auto at_size = [&](int exponent, const auto& recipe) {
    Matrix sized = x;
    for (Index i = 0; i < x.extents().size(); ++i) sized.data()[i] = std::ldexp(x.data()[i], exponent);
    return *quantize_siblings(recipe, siblings, *accumulate<Awq::needs>(sized.view()), {.strict = true});
  };
  const auto check_sizes = [&](const auto& recipe) {
    const auto plain = at_size(0, recipe);
    const auto q = at_size(66, recipe);
    CHECK(q.matrices[0].report.weight_error == Approx(plain.matrices[0].report.weight_error).epsilon(0.02));
    CHECK(q.matrices[0].report.weight_error < 0.3);
  };
  check_sizes(Awq{} | Sf4{});
  check_sizes(Awq{.scaling = AwqScaling::both} | Sf4{});
  check_sizes(Awq{} | Gptq<Superfloat<4>, PerGroup<16>>{});
}

TEST_CASE("awq: groups for which no clip limit has a finite loss are not cut, and the report says so") {
  Matrix w = random_matrix(3, 32, 1), x = with_outliers(40, 32, 2);
  for (Index j = 0; j < 16; ++j) w(1, j) *= 1e30f;  // squares of its errors overflow
  const ConstMatrix siblings[] = {w.view()};
  const auto recipe = Awq{.ratios = 1} | Nearest<Superfloat<4>, PerGroup<16>, ScaleF32>{};
  const auto stats = *accumulate<Awq::needs>(x.view());
  const auto q = *quantize_siblings(recipe, siblings, stats);
  const Matrix back = dequantize(q.matrices[0].matrix);
  CHECK(abs_max(back.view().row(1)) > 0.5f * abs_max(w.view().row(1)));
  const Report& report = q.matrices[0].report;
  CHECK(std::count(report.fallbacks.begin(), report.fallbacks.end(),
                   "awq: no clip limit of 1 groups gave a finite loss; they were not clipped") == 1);
  CHECK(quantize_siblings(recipe, siblings, stats, {.strict = true}).error().code == ErrorCode::degraded);
}
