// The statistics that fits are made of, at every length, against plain loops.

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <anybit/format/format.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity(), not_a_number = std::numeric_limits<float>::quiet_NaN();

float plain_abs_max(const std::vector<float>& v) {
  float m = 0;
  for (const float x : v) m = std::abs(x) > m ? std::abs(x) : m;
  return m;
}
LowHigh plain_low_high(const std::vector<float>& v) {
  LowHigh r;
  for (const float x : v) r = {x < r.low ? x : r.low, x > r.high ? x : r.high};
  return r;
}
/// 16 interleaved sums, added by halves.
float plain_abs_mean(const std::vector<float>& v) {
  double sums[16] = {};
  for (std::size_t i = 0; i < v.size(); ++i) sums[i % 16] += std::abs(static_cast<double>(v[i]));
  for (std::size_t half = 8; half > 0; half /= 2)
    for (std::size_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  return v.empty() ? 0.0f : static_cast<float>(sums[0] / static_cast<double>(v.size()));
}
bool equal(float a, float b) { return a == b || (a != a && b != b); }
bool equal(LowHigh a, LowHigh b) { return a.low == b.low && a.high == b.high; }

}  // namespace

TEST_CASE("abs_max, low_high and abs_mean: every length, the extremes at every place") {
  std::mt19937 engine(3);
  std::normal_distribution<float> normal;
  for (std::size_t n = 0; n <= 150; ++n) {
    std::vector<float> v(n);
    for (float& x : v) x = normal(engine);
    INFO(n << " values");
    for (const float scale : {1.0f, 1e-36f, 1e-43f, 0.0f, 5e37f}) {
      std::vector<float> w = v;
      for (float& x : w) x *= scale;
      REQUIRE(equal(abs_mean(w), plain_abs_mean(w)));
    }
    for (std::size_t at = 0; at <= n; ++at)
      for (const float extreme : {9.0f, -9.0f, inf, -inf, not_a_number, -not_a_number}) {
        std::vector<float> w = v;
        if (at < n) w[at] = extreme;
        REQUIRE(abs_max(w) == plain_abs_max(w));
        REQUIRE(equal(low_high(w), plain_low_high(w)));
        REQUIRE(equal(abs_mean(w), plain_abs_mean(w)));
      }
  }
}
TEST_CASE("low_high: values of one sign leave the other end at 0") {
  for (std::size_t n = 1; n <= 70; ++n) {
    const std::vector<float> ones(n, 1.5f), minus(n, -0.25f), zeros(n, -0.0f);
    REQUIRE(equal(low_high(ones), {0, 1.5f}));
    REQUIRE(equal(low_high(minus), {-0.25f, 0}));
    REQUIRE(equal(low_high(zeros), {0, 0}));
  }
}
TEST_CASE("abs_max, low_high and abs_mean: compile time gives what run time gives") {
  static constexpr float v[] = {0.5f, -3, 2, 0.25f, -1, 7, 7, -8, 0, 1, 2, 3, 4, 5, 6, 7, -9, 1};
  STATIC_REQUIRE(abs_max(v) == 9);
  STATIC_REQUIRE(low_high(v).low == -9);
  STATIC_REQUIRE(low_high(v).high == 7);
  constexpr float mean = abs_mean(v);
  CHECK(abs_mean(v) == mean);
}
