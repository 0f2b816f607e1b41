// Grids, searches and formats of reference/: worked examples, and the published values where they are at hand.

#include <cmath>
#include <random>
#include <string>

#include <anybit/reference/awq.hpp>
#include <anybit/reference/hqq.hpp>
#include <anybit/reference/kv_quantization.hpp>
#include <anybit/reference/matmul.hpp>
#include <anybit/reference/nearest.hpp>
#include <anybit/reference/scale_search.hpp>
#include <anybit/reference/superfloat.hpp>

#include "reference/vectors.hpp"

using namespace anybit;
using namespace reference_tests;

TEST_CASE("reference: the uniform grid, by hand") {
  const auto g = ref::min_max_grid({-1, 0.5, 2}, 2);  // 0 .. 3 over a range of 3
  CHECK((g.scale == 1 && g.zero == 1 && g.top == 3));
  CHECK(ref::code_of(-1, g) == 0);
  CHECK(ref::round_to(0.5, g) == 0);  // ties to even
  CHECK(ref::round_to(1.5, g) == 2);
  CHECK(ref::round_to(9, g) == 2);
  CHECK(ref::min_max_grid({0.5, 3}, 2).zero == 0);      // zero is in every grid
  const auto s = ref::min_max_grid({-15, 3}, 4, true);  // step 2 max|w| / 15
  CHECK((s.scale == 2 && s.zero == 8));
  CHECK(ref::round_to(15, s) == 14);  // the published grid is not centred
  CHECK(ref::round_to(-15, s) == -16);
  CHECK(ref::round_to(0, ref::min_max_grid({0, 0}, 4)) == 0);
  CHECK(ref::nearest_level(0.5, {-1, 0, 1}) == 1);  // of two equally near ones the lower
  const ref::Matrix w = some_matrix(2, 7, 1), q = ref::nearest(w, 8, 3);
  CHECK(relative_square(w, q) < 1e-4);
}

TEST_CASE("reference: a search finds the grid that the codes were made of") {
  ref::Vector w{-3, -2, -1, 0, 1, 2, 3, 4, 40};
  const auto whole = ref::min_max_grid(w, 3), cut = ref::shrink_search(w, 3, false);
  CHECK(ref::grid_error(w, cut, 2.4) < ref::grid_error(w, whole, 2.4));
  CHECK(cut.scale < whole.scale);
  // w = .5 (q - 3) without noise.
  const ref::Vector codes{0, 1, 2, 5, 7}, exact{-1.5, -1, -0.5, 1, 2};
  const auto line = ref::least_squares_line(exact, codes, 7);
  CHECK(line.scale == Approx(0.5));
  CHECK(line.zero == Approx(3));
  CHECK(ref::least_squares_scale(exact, codes, 3) == Approx(0.5));
  // Weights of the errors: the last value alone counts.
  CHECK(ref::least_squares_scale({1, 6}, {1, 2}, 0, {0, 5}) == Approx(3));
  const auto better = ref::refined(w, whole);
  CHECK(ref::grid_error(w, better, 2) <= ref::grid_error(w, whole, 2));
}

TEST_CASE("reference: HQQ lets an outlier go") {
  CHECK(ref::shrink(0, 10, 0.7) == 0);
  CHECK(ref::shrink(2, 10, 0.5) == Approx(2 - std::pow(2, -0.5) / 10));
  CHECK(ref::shrink(-0.01, 10, 0.7) == 0);
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  double before = 0, after = 0;
  for (int group = 0; group < 50; ++group) {
    ref::Vector w(64);
    for (double& v : w) v = normal(random);
    w[7] = 9;
    const auto error = [&](const ref::UniformGrid& g) {
      double sum = 0;
      for (const double v : w) sum += std::pow(std::abs(v - ref::value_of(ref::hqq_code(v, g), g)), 0.7);
      return sum;
    };
    before += error(ref::hqq(w, 3, {.rounds = 1}));  // the range alone
    after += error(ref::hqq(w, 3));
  }
  CHECK(after < 0.99 * before);
}

TEST_CASE("reference: superfloat's codes") {
  struct {
    int bits;
    double x;
    std::uint32_t truncated;
    double value;
  } const table[] = {{4, 0.3, 0x2, 0.25}, {4, -0.3, 0xA, -0.25}, {8, 0.3, 0x26, 0.296875}, {8, -1.5, 0xFF, -0.9921875}};
  for (const auto& row : table) {
    CHECK(ref::superfloat_code(row.x, row.bits, ref::SuperfloatRounding::truncate) == row.truncated);
    CHECK(ref::superfloat_value(row.truncated, row.bits) == row.value);
  }
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  for (int b = 4; b <= 16; ++b) {
    const std::string id = "sf" + std::to_string(b);
    const auto x = *file->read<float>(id + ".x"), value = *file->read<float>(id + ".nearest_value");
    const auto nearest = *file->read<std::uint16_t>(id + ".nearest_code"), cut = *file->read<std::uint16_t>(id + ".trunc_code");
    for (std::size_t i = 0; i < x.size(); ++i) {
      INFO(b << " bits, " << x[i]);
      REQUIRE(ref::superfloat_code(double{x[i]}, b) == nearest[i]);
      REQUIRE(ref::superfloat_code(double{x[i]}, b, ref::SuperfloatRounding::truncate) == cut[i]);
      REQUIRE(ref::superfloat_value(nearest[i], b) == double{value[i]});
    }
  }
}

TEST_CASE("reference: keys share a scale per channel, values per token") {
  const ref::Vector four = ref::kv_rounded({1, 2, 3, 5.6}, 2, ref::as_is);  // s = 4.6 / 3
  CHECK(four[1] == Approx(1 + 4.6 / 3));
  CHECK(four[3] == Approx(5.6));
  CHECK(ref::kv_rounded({7, 7}, 2, ref::as_is) == ref::Vector{7, 7});
  ref::Matrix k(5, 2);
  for (Index t = 0; t < 5; ++t) k(t, 0) = 100.0 + static_cast<double>(t % 2), k(t, 1) = static_cast<double>(t) / 10;
  const ref::Matrix keys = ref::kv_rounded_keys(k, 2, 4, ref::as_is), values = ref::kv_rounded_values(k, 2, 32, 2, ref::as_is);
  for (Index t = 0; t < 5; ++t) CHECK(keys(t, 1) == Approx(k(t, 1)));  // 0, .1, .2, .3 are the four steps; the last token waits
  CHECK(values(1, 0) == Approx(101));
  CHECK(values(1, 1) == Approx(0.1));
  // Heads do not share.
  ref::Matrix v(1, 4);
  v(0, 0) = 0, v(0, 1) = 1, v(0, 2) = 300, v(0, 3) = 600;
  CHECK(ref::kv_rounded_values(v, 1, 32, 2, ref::as_is) == v);
}

TEST_CASE("reference: activations in 8 bits, and products") {
  const float x[] = {1, -2, 127, 0, 0, 0}, broken[] = {1, INFINITY, 0};
  const auto token = [](Index) { return Index{99}; };
  const auto r = ref::round_activations({x, 2, 3}, token);
  CHECK((r.codes(0, 0) == 1 && r.codes(0, 1) == -2 && r.codes(0, 2) == 127 && r.scales(0, 0) == 1));
  CHECK((r.codes(1, 0) == 0 && r.scales(1, 0) == 0));
  CHECK(r.values()(0, 1) == -2);
  const auto runs = ref::round_activations({x, 2, 3}, [](Index k) { return k + 1; });
  CHECK((runs.codes(0, 0) == 127 && runs.scales(0, 1) == 2.0f / 127));
  CHECK(ref::round_activations({x, 2, 3}, token, 0.5f).codes(0, 1) == -4);
  const auto spoiled = ref::round_activations({broken, 1, 3}, token);
  CHECK((std::isnan(spoiled.scales(0, 2)) && spoiled.codes(0, 0) == 0));
  ref::Matrix a(1, 2), b(2, 2);
  a.values = {1, 2}, b.values = {3, 4, 5, 6};
  CHECK(ref::times_transposed(a, b).values == std::vector<double>{11, 17});
}
