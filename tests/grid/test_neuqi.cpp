// NeUQI: the best zero point of a scale against all zero points, the search against a dense scan of scales and zero points.

#include <anybit/grid/grid_fit.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>
#include <vector>

#include <anybit/reference/neuqi.hpp>
#include <anybit/scheme/presets.hpp>

#include "support/catch.hpp"

using namespace anybit;
namespace ref = anybit::reference;

namespace {

/// Weights of a group with a few outliers, and the mean squares of its inputs.
std::vector<float> group_of(std::size_t n, unsigned seed, float centre = 0) {
  std::mt19937 gen(seed);
  std::normal_distribution<float> normal(centre, 0.02f);
  std::vector<float> v(n);
  for (float& x : v) x = normal(gen) * (gen() % 40 == 0 ? 4.0f : 1.0f);
  return v;
}
std::vector<float> squares_of(std::size_t n, unsigned seed) {
  std::vector<float> h = group_of(n, seed);
  for (float& x : h) x = 1e3f * x * x;
  return h;
}

template <class S>
double weighted_error(std::span<const float> w, Affine a, std::span<const float> h) {
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double off = static_cast<double>(dequantize_value<typename S::format>(quantize_value<typename S::format>(w[i], a), a)) -
                       static_cast<double>(w[i]);
    sum += (h.empty() ? 1.0 : static_cast<double>(h[i])) * off * off;
  }
  return sum;
}

}  // namespace

TEST_CASE("neuqi: the pieces of the error between rising codes give the best real zero point") {
  for (unsigned seed = 0; seed < 12; ++seed)
    for (const int bits : {1, 2, 3}) {
      const std::size_t n = seed == 0 ? 1 : 5 + 3 * seed;
      const ref::Vector w(group_of(n, seed, seed % 3 == 1 ? 0.05f : 0.0f));
      const ref::Vector h = seed % 2 ? ref::Vector(squares_of(n, 90 + seed)) : ref::Vector();
      const double top = std::exp2(bits) - 1;
      for (const double scale : {0.004, 0.02, 0.07}) {
        const ref::NeuqiZero best = ref::neuqi_zero(w, scale, bits, h);
        INFO(bits << " bits, " << n << " weights, scale " << scale << ", zero " << best.zero);
        CHECK(best.error == Approx(ref::neuqi_error(w, scale, best.zero, top, h)).epsilon(1e-9).margin(1e-15));
        double least = 1e30;
        for (double zero = -16 - top; zero <= 16 + top; zero += 0.003)
          least = std::min(least, ref::neuqi_error(w, scale, zero, top, h));
        CHECK(best.error <= least + 1e-15);
        // The error is quadratic where it is least: a step of 0.003 misses it by a little.
        double weight = 0;
        for (Index i = 0; i < w.size(); ++i) weight += h.size() ? h[i] : 1;
        CHECK(least <= best.error + scale * scale * weight * 0.0016 * 0.0016);
        CHECK(best.error <= ref::neuqi_whole_zero(w, scale, bits, h).error + 1e-15);
      }
    }
}

TEST_CASE("neuqi: sums by rounded weight give the error at every whole zero point") {
  const auto check = [&]<class S>(S) {
    constexpr int bits = S::bits;
    for (unsigned seed = 0; seed < 10; ++seed) {
      std::vector<float> w = group_of(seed == 0 ? 1 : 3 + 14 * seed, 20 + seed, seed % 3 == 1 ? -0.06f : 0.0f);
      if (seed == 5) std::fill(w.begin(), w.end(), 0.0f);
      const std::vector<float> squares = squares_of(w.size(), 40 + seed);
      const std::span<const float> h = seed % 2 ? std::span<const float>(squares) : std::span<const float>();
      grid::Trial trial(rounding_ops_v<S>, w, h);
      grid::ZeroScan scan(trial, bits);
      for (const float scale : {0.001f, 0.0078125f, 0.03f, 0.5f}) {
        const auto found = scan.best(scale);
        const ref::NeuqiZero expected = ref::neuqi_whole_zero(ref::Vector(w), static_cast<double>(scale), bits,
                                                              h.empty() ? ref::Vector() : ref::Vector(squares));
        INFO(bits << " bits, seed " << seed << ", scale " << scale);
        CHECK(found.error == Approx(expected.error).epsilon(1e-6).margin(1e-12));
        CHECK(weighted_error<S>(w, {scale, found.zero}, h) == Approx(found.error).epsilon(1e-4).margin(1e-12));
      }
    }
  };
  check(Scheme<UInt<1>>{}), check(Scheme<UInt<2>>{}), check(Scheme<UInt<3>>{}), check(Scheme<UInt<4>>{}),
      check(Scheme<UInt<8>>{});
}

TEST_CASE("neuqi: never worse than the range in its own error, and what a dense scan of scales and zero points finds") {
  const auto check = [&]<class S>(S, double tolerance) {
    for (unsigned seed = 0; seed < 10; ++seed) {
      INFO(std::string_view(S::name) << " " << seed);
      const std::vector<float> w = group_of(seed % 2 ? 40 : 128, 60 + seed, seed % 4 == 1 ? 0.03f : 0.0f);
      const std::vector<float> squares = squares_of(w.size(), 80 + seed);
      const std::span<const float> h = seed % 3 ? std::span<const float>(squares) : std::span<const float>();
      for (const Range range : {Range::format, Range::symmetric, Range::min_max}) {
        if (!S::has_zero_point && range != Range::format) continue;
        const GridFit plain{.range = range}, search{.range = range, .search = Search::neuqi};
        const Affine found = search.fit<S>(w, h);
        CHECK(found == stored<S>(found));
        CHECK(weighted_error<S>(w, found, h) <= weighted_error<S>(w, plain.fit<S>(w), h) * (1 + 1e-6));
        if (range == Range::symmetric) CHECK(found.zero == plain.fit<S>(w).zero);
      }
      const Affine full = GridFit{}.plain<typename S::format>(w);
      double least = 1e30;
      for (int i = 0; i < 1500; ++i) {
        Affine a = full;
        a.scale *= 0.2f + 1.05f * static_cast<float>(i) / 1500;
        for (int zero = 0; zero < (S::has_zero_point ? 1 << S::bits : 1); ++zero) {
          a.zero = static_cast<float>(zero);
          least = std::min(least, weighted_error<S>(w, stored<S>(a), h));
        }
      }
      CHECK(weighted_error<S>(w, GridFit{.search = Search::neuqi}.fit<S>(w, h), h) <= tolerance * least);
    }
  };
  check(Scheme<UInt<2>, PerGroup<128>, ScaleF32>{}, 1.01);
  check(Scheme<UInt<3>>{}, 1.01);
  check(Scheme<UInt<4>>{}, 1.02);
  check(Scheme<SInt<3>>{}, 1.01);
  check(Scheme<LloydMax<2>>{}, 1.01);
  check(presets::Mxfp4{}, 1.001);
}

TEST_CASE("neuqi: the twin with a real zero point bounds the search from below") {
  for (unsigned seed = 0; seed < 4; ++seed) {
    const std::vector<float> w = group_of(32, 120 + seed), squares = squares_of(32, 130 + seed);
    using S = Scheme<UInt<2>, PerGroup<32>, ScaleF32>;
    const double found = weighted_error<S>(w, GridFit{.search = Search::neuqi}.fit<S>(w, squares), squares);
    const ref::Vector values(w), h(squares);
    const ref::UniformGrid real = ref::neuqi(values, 2, h, false, 400), whole = ref::neuqi(values, 2, h, true, 400);
    CHECK(ref::neuqi_error(values, real.scale, real.zero, 3, h) <= found);
    CHECK(found <= 1.01 * ref::grid_error(values, whole, 2, h));
  }
}

TEST_CASE("neuqi: a search names itself and its options") {
  CHECK(GridFit{.search = Search::neuqi}.describe() == "neuqi");
  CHECK(GridFit{.search = Search::neuqi, .shrink = {0.5f, 20, 2.4f}}.describe(true) == "weighted neuqi(shrink=0.5, steps=20)");
}
