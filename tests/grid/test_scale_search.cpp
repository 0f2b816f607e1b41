#include <anybit/evaluate/rate_distortion.hpp>
#include <anybit/grid/grid_fit.hpp>
#include <anybit/scheme/presets.hpp>

#include <random>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;

namespace {

std::vector<float> normal_values(std::size_t n, unsigned seed, float deviation = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

template <Format F>
double error_of(std::span<const float> values, Affine a, double norm, std::span<const float> importance = {}) {
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double d = double{dequantize_value<F>(quantize_value<F>(values[i], a), a)} - double{values[i]};
    sum += (importance.empty() ? 1.0 : double{importance[i]}) * std::pow(std::abs(d), norm);
  }
  return sum;
}

}  // namespace

TEST_CASE("powers of errors are those of the library, at every magnitude") {
  using grid::power_lanes, grid::powers;
  std::mt19937 random(1);
  for (const float norm : {2.0f, 2.4f, 0.7f, 1.0f, 3.0f, 16.0f, 0.01f})
    for (int exponent = -124; exponent < 126; exponent += norm == 2.4f ? 1 : 5) {
      float d[power_lanes];
      double got[power_lanes];
      for (float& v : d)
        v = std::ldexp(std::uniform_real_distribution<float>(1, 2)(random), exponent) * (random() % 2 ? 1.0f : -1.0f);
      d[0] = std::ldexp(1.0f, exponent);
      d[1] = std::nextafter(std::ldexp(2.0f, exponent), 0.0f);
      powers(d, norm, got);
      for (Index j = 0; j < power_lanes; ++j) {
        // As 2.4, not as the float next to it.
        const double expected = std::pow(std::abs(double{d[j]}), norm == 2.4f ? 2.4 : double{norm});
        if (expected < 1e-290 || expected > 1e290) continue;
        INFO(norm << " " << d[j]);
        CHECK(std::abs(got[j] / expected - 1) < 1e-10);
      }
    }
  const float infinity = std::numeric_limits<float>::infinity(), tiny = std::numeric_limits<float>::denorm_min();
  float special[power_lanes] = {0, -0.0f, infinity, -infinity, std::nanf(""), tiny, -tiny, 3e38f};
  for (const float norm : {2.0f, 2.4f, 0.7f}) {
    double got[power_lanes];
    powers(special, norm, got);
    CHECK(got[0] == 0);
    CHECK(got[1] == 0);
    CHECK(got[2] == double{infinity});
    CHECK(got[3] == double{infinity});
    CHECK(got[4] != got[4]);
    CHECK(got[5] >= 0);
    CHECK(got[5] < 1e-20);
    CHECK(std::isfinite(got[7]));
  }
}

TEST_CASE("sums of powers, ragged and weighted, and their early end") {
  const auto a = normal_values(200, 1), b = normal_values(200, 2);
  auto h = normal_values(200, 3);
  for (float& v : h) v *= v;
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Index n : {0, 1, 15, 16, 17, 63, 64, 65, 129, 200})
    for (const float norm : {2.0f, 2.4f, 0.7f}) {
      double plain = 0, weighted = 0;
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        const double p = std::pow(std::abs(double{a[i] - b[i]}), norm == 2.4f ? 2.4 : double{norm});
        plain += p;
        weighted += double{h[i]} * p;
      }
      CHECK(grid::power_sum(a.data(), b.data(), nullptr, n, norm, infinity) == Approx(plain).epsilon(1e-9));
      CHECK(grid::power_sum(a.data(), b.data(), h.data(), n, norm, infinity) == Approx(weighted).epsilon(1e-9));
      if (n == 200) CHECK(grid::power_sum(a.data(), b.data(), nullptr, n, norm, plain / 4) >= plain / 4);
    }
}

TEST_CASE("a refit is the least squares line, and its zero point is whole") {
  const auto noise = normal_values(37, 4, 0.05f);
  auto h = normal_values(37, 5);
  for (float& v : h) v = 0.1f + v * v;
  std::vector<float> levels(37), targets(37);
  const Affine made{0.37f, 6}, guess{0.3f, 9};
  for (std::size_t i = 0; i < 37; ++i) {
    const float code = static_cast<float>(i * 7 % 16);
    levels[i] = code - guess.zero;
    targets[i] = made.scale * (code - made.zero) + noise[i];
  }
  const auto fitted = [&](Affine a, float highest_zero, const float* weights) {
    return grid::refit(grid::level_sums(levels.data(), targets.data(), weights, 37, true),
                       grid::target_sums(targets.data(), weights, 37), a, highest_zero);
  };
  const auto error = [&](double scale, double zero) {
    double sum = 0;
    for (std::size_t i = 0; i < 37; ++i)
      sum += double{h[i]} * std::pow(scale * (double{levels[i]} + double{guess.zero} - zero) - double{targets[i]}, 2);
    return sum;
  };
  const auto found = fitted(guess, 15, h.data());
  CHECK(found.affine.zero == 6);
  CHECK(found.error == Approx(error(double{found.affine.scale}, 6)).epsilon(1e-5));
  for (const double other : {0.999, 1.001}) CHECK(error(double{found.affine.scale} * other, 6) > found.error);
  const auto fixed = fitted(guess, 0, h.data());
  CHECK(fixed.affine.zero == 9);
  CHECK(fixed.error == Approx(error(double{fixed.affine.scale}, 9)).epsilon(1e-5));
  // No scale above 0 turns these levels into their targets.
  for (float& t : targets) t = -t;
  CHECK(fitted({1, 9}, 0, nullptr).affine == Affine{1, 9});
  levels.assign(37, 0.0f);
  CHECK(fitted({2, 3}, 15, nullptr).affine == Affine{2, 3});
}

TEST_CASE("the least squares search finds what a dense scan of scales finds") {
  const auto check = [&]<class S>(S) {
    using F = typename S::format;
    for (unsigned seed = 0; seed < 12; ++seed) {
      INFO(std::string_view(S::name) << " " << seed);
      const auto values = normal_values(seed % 2 ? 40 : 128, 10 + seed, 0.02f);
      std::vector<float> importance = normal_values(values.size(), 50 + seed);
      for (float& v : importance) v = v * v;
      const std::span<const float> h = seed % 3 == 0 ? std::span<const float>(importance) : std::span<const float>();
      const Affine full = F::fit(values);
      double least = 1e30;
      for (int i = 0; i < 3000; ++i) {
        Affine a = full;
        a.scale *= 0.2f + 1.1f * static_cast<float>(i) / 3000;
        if (!has_zero_point_v<F>)
          least = std::min(least, error_of<F>(values, stored<S>(a), 2, h));
        else
          for (a.zero = 0; a.zero < static_cast<float>(1 << F::bits); ++a.zero)
            if (i % 10 == 0) least = std::min(least, error_of<F>(values, stored<S>(a), 2, h));
      }
      const Affine found = GridFit{.search = Search::least_squares}.fit<S>(values, h);
      CHECK(found == stored<S>(found));
      CHECK(error_of<F>(values, found, 2, h) <= (F::bits == 8 ? 1.4 : 1.1) * least);
      CHECK(error_of<F>(values, found, 2, h) <= error_of<F>(values, GridFit{}.fit<S>(values), 2, h));
    }
  };
  check(Scheme<LloydMax<4>>{});
  check(Scheme<LloydMax<2>>{});
  check(Scheme<Superfloat<4>>{});
  check(Scheme<SInt<2>, PerGroup<128>, ScaleF32>{});
  check(Scheme<SInt<8>>{});
  check(Scheme<UInt<3>>{});
  check(presets::Nf4Plain{});
  check(Scheme<Ternary>{});
  check(presets::Mxfp4{});
}

TEST_CASE("the half-quadratic search is not worse than plain rounding in its own norm, and lets outliers go") {
  auto values = normal_values(128, 6, 0.02f);
  values[17] = 0.5f;
  const auto check = [&]<class S>(S) {
    using F = typename S::format;
    const GridFit search{.search = Search::half_quadratic};
    const Affine found = search.fit<S>(values), plain = GridFit{}.fit<S>(values);
    CHECK(error_of<F>(values, found, 0.7) < error_of<F>(values, plain, 0.7));
    CHECK(found.scale < 0.5f * plain.scale);
  };
  check(Scheme<UInt<4>>{});
  check(Scheme<SInt<3>>{});
  check(Scheme<Nf4>{});
}

TEST_CASE("searches survive zeros, equal weights, huge and tiny ones") {
  const float huge = 1e37f;  // of the largest floats some grids overflow without a search, too
  for (const Search search : {Search::mse, Search::least_squares, Search::half_quadratic, Search::neuqi})
    for (const std::vector<float>& values :
         {std::vector<float>(5, 0.0f), std::vector<float>{1}, std::vector<float>{-3}, std::vector<float>(17, 2.0f),
          std::vector<float>{huge, -huge, 1}, std::vector<float>{1e-40f, -1e-40f, 0}, std::vector<float>{}}) {
      const auto check = [&]<class S>(S) {
        using F = typename S::format;
        const Affine a = GridFit{.search = search}.fit<S>(values);
        CHECK(a.scale >= 0);
        CHECK(std::isfinite(a.scale));
        for (const float v : values) CHECK(std::isfinite(dequantize_value<F>(quantize_value<F>(v, a), a)));
      };
      check(Scheme<UInt<3>, PerGroup<128>, ScaleF32>{});
      check(Scheme<SInt<4>>{});
      check(Scheme<LloydMax<3>, PerGroup<128>, ScaleF32>{});
      check(presets::Mxfp4{});
    }
}

TEST_CASE("Lloyd-Max codes of searched scales, scale bits counted, stay within 0.3 dB of Lloyd-Max at their rate") {
  const Extents shape{1024, 256};
  const auto values = normal_values(static_cast<std::size_t>(shape.size()), 7);
  const auto check = [&]<class S>(S) {
    using F = typename S::format;
    const std::size_t groups = values.size() / 128;
    std::vector<float> scales(groups);
    for (std::size_t g = 0; g < groups; ++g)
      scales[g] = GridFit{.search = Search::least_squares}.fit<S>(std::span(values).subspan(128 * g, 128)).scale;
    S::scale_store::round_trip(scales);
    double error = 0;
    for (std::size_t g = 0; g < groups; ++g) error += error_of<F>(std::span(values).subspan(128 * g, 128), {scales[g], 0}, 2);
    const double bits = S::bits_per_weight(shape), distortion = error / static_cast<double>(values.size());
    INFO(F::bits << " bits: " << evaluate::decibels(distortion) << " dB at " << bits);
    CHECK(evaluate::decibels(distortion) >
          evaluate::decibels(evaluate::lloyd_max_distortion(evaluate::GaussianSource{}, bits)) - 0.3);
  };
  check(presets::NormalCodebook<4>{});
  check(presets::NormalCodebook<3>{});
  check(presets::NormalCodebook<2>{});
}

TEST_CASE("options of the searches that mean nothing are refused") {
  CHECK(!check_search(HalfQuadratic{.norm = 0}).ok());
  CHECK(!check_search(HalfQuadratic{.norm = 1.5f}).ok());
  CHECK(!check_search(HalfQuadratic{.beta = 0}).ok());
  CHECK(!check_search(HalfQuadratic{.growth = 0.5f}).ok());
  CHECK(!check_search(HalfQuadratic{.rounds = 0}).ok());
  CHECK(check_search(HalfQuadratic{}).ok());
}

TEST_CASE("a search names what differs from the defaults") {
  CHECK(GridFit{}.describe() == "");
  CHECK(GridFit{.range = Range::symmetric}.describe() == "symmetric range");
  CHECK(GridFit{.search = Search::mse}.describe() == "search");
  CHECK(GridFit{.range = Range::min_max, .search = Search::mse, .shrink = {.steps = 50, .norm = 2}}.describe(true) ==
        "min_max range, weighted search(steps=50, norm=2)");
  CHECK(GridFit{.search = Search::half_quadratic, .half_quadratic = {.norm = 0.5f}}.describe() ==
        "half-quadratic search(norm=0.5)");
}
