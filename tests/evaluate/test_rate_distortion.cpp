#include <anybit/evaluate/rate_distortion.hpp>

#include <random>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::evaluate;

namespace {

/// Midpoint rule, for moments over [low, high].
template <class Source>
CellMoments integrated(const Source& source, double low, double high) {
  CellMoments m;
  const int cells = 200000;
  const double h = (high - low) / cells;
  for (int i = 0; i < cells; ++i) {
    const double x = low + (i + 0.5) * h, p = source.density(x) * h;
    m.mass += p;
    m.first += p * x;
    m.second += p * x * x;
  }
  return m;
}

/// Mean square error of rounding to the nearest level, integrated without our moments.
template <class Source>
double distortion_by_hand(const Source& source, const std::vector<double>& levels) {
  double sum = 0;
  const double h = 1e-4;
  for (double x = -24 + h / 2; x < 24; x += h) {
    double best = 1e9;
    const auto above = std::lower_bound(levels.begin(), levels.end(), x);
    if (above != levels.end()) best = *above - x;
    if (above != levels.begin()) best = std::min(best, x - *(above - 1));
    sum += best * best * source.density(x) * h;
  }
  return sum;
}

}  // namespace

TEST_CASE("moments of cells are integrals of the density") {
  const auto check = [](const auto& source) {
    for (const auto& [low, high] : {std::pair{-1.0, 2.0}, {0.0, 0.3}, {2.5, 6.0}, {-7.0, -3.0}, {-3.0, 0.0}}) {
      const CellMoments m = source.moments(low, high), expected = integrated(source, low, high);
      CHECK(m.mass == Approx(expected.mass).epsilon(1e-7));
      CHECK(m.first == Approx(expected.first).epsilon(1e-7));
      CHECK(m.second == Approx(expected.second).epsilon(1e-7));
    }
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const CellMoments all = source.moments(-infinity, infinity);
    CHECK(all.mass == Approx(1));
    CHECK(std::abs(all.first) < 1e-15);
    CHECK(all.second == Approx(1));
    CHECK(source.moments(8, infinity).mass > 0);
  };
  check(GaussianSource{});
  check(LaplaceSource{});
}

TEST_CASE("Lloyd-Max quantizers of Gaussian and Laplace sources are the published ones") {
  // Distortions and entropies for 1 to 8 bits; Max (1960) prints the first with 4 digits.
  const double gaussian[8][2] = {{0.363380, 1.000},   {0.117482, 1.911},   {0.0345478, 2.825},  {0.00950101, 3.765},
                                 {0.00250467, 4.730}, {0.00064424, 5.710}, {0.00016348, 6.699}, {4.1186e-5, 7.692}};
  const double laplace[8][2] = {{0.5, 1.000},        {0.176195, 1.728},   {0.0544760, 2.565},  {0.0153725, 3.475},
                                {0.00410218, 4.427}, {0.00106095, 5.402}, {0.00026987, 6.389}, {6.8063e-5, 7.380}};
  for (int bits = 1; bits <= 8; ++bits) {
    INFO(bits);
    const double tolerance = bits <= 6 ? 3e-5 : 3e-4, entropy_tolerance = bits <= 6 ? 1.1e-3 : 4e-3;
    const auto g = lloyd_max(GaussianSource{}, 1 << bits), l = lloyd_max(LaplaceSource{}, 1 << bits);
    CHECK(g.distortion == Approx(gaussian[bits - 1][0]).epsilon(tolerance));
    CHECK(std::abs(g.entropy - gaussian[bits - 1][1]) < entropy_tolerance);
    CHECK(l.distortion == Approx(laplace[bits - 1][0]).epsilon(tolerance));
    CHECK(std::abs(l.entropy - laplace[bits - 1][1]) < entropy_tolerance);
    if (bits <= 5) {
      CHECK(g.distortion == Approx(distortion_by_hand(GaussianSource{}, g.levels)).epsilon(1e-5));
      CHECK(l.distortion == Approx(distortion_by_hand(LaplaceSource{}, l.levels)).epsilon(1e-5));
    }
  }
  const double four_bits[8] = {0.1284, 0.3880, 0.6568, 0.9423, 1.2562, 1.6180, 2.0690, 2.7326};
  const double laplace_four_bits[8] = {.1240, .4048, .7287, 1.1110, 1.5778, 2.1773, 3.0169, 4.4311};
  const auto g = lloyd_max(GaussianSource{}, 16), l = lloyd_max(LaplaceSource{}, 16);
  for (std::size_t i = 0; i < 8; ++i) {
    CHECK(std::abs(g.levels[8 + i] - four_bits[i]) < 6e-5);
    CHECK(g.levels[7 - i] == Approx(-g.levels[8 + i]));
    CHECK(std::abs(l.levels[8 + i] - laplace_four_bits[i]) < 6e-5);
  }
}

TEST_CASE("an odd number of levels has one at zero, and the distortion falls between those beside it") {
  const auto five = lloyd_max(GaussianSource{}, 5);
  CHECK(std::abs(five.levels[2]) < 1e-12);
  CHECK(five.distortion == Approx(0.07994).epsilon(1e-3));  // Max (1960)
  CHECK(lloyd_max(GaussianSource{}, 1).distortion == Approx(1));
  CHECK(lloyd_max_distortion(GaussianSource{}, 2) == Approx(lloyd_max(GaussianSource{}, 4).distortion));
  const double between = lloyd_max_distortion(GaussianSource{}, 2.2);
  CHECK(between < lloyd_max(GaussianSource{}, 4).distortion);
  CHECK(between > five.distortion);
}

TEST_CASE("Lloyd-Max of samples comes near that of their source") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> values(200000);
  for (float& v : values) v = normal(random);
  const SampleSource source{values};
  const auto q = lloyd_max(source, 8);
  CHECK(q.distortion / source.variance() == Approx(lloyd_max(GaussianSource{}, 8).distortion).epsilon(0.01));
  double by_hand = 0;
  for (const float v : values) {
    double best = 1e9;
    for (const double l : q.levels) best = std::min(best, std::pow(l - double{v}, 2));
    by_hand += best;
  }
  CHECK(q.distortion == Approx(by_hand / static_cast<double>(values.size())).epsilon(1e-6));
  CHECK(lloyd_max(SampleSource(std::vector<float>{1, 1, 5}), 2).distortion < 1e-12);
  CHECK(lloyd_max(SampleSource(std::vector<float>{7}), 4).distortion < 1e-12);
}

TEST_CASE("Lloyd-Max of samples with long tails comes near that of their source at many levels too") {
  std::mt19937 random(1);
  std::exponential_distribution<float> exponential(std::sqrt(2.0f));
  std::vector<float> values(200000);
  for (float& v : values) v = exponential(random) * (random() % 2 == 0 ? 1.0f : -1.0f);
  const SampleSource source{values};
  for (const int count : {8, 64, 192}) {
    INFO(count);
    const double d = lloyd_max(source, count).distortion / source.variance(),
                 of_source = lloyd_max(LaplaceSource{}, count).distortion;
    CHECK(d < 1.03 * of_source);
    CHECK(d > 0.85 * of_source);  // samples end somewhere
  }
}

TEST_CASE("optimal uniform quantizers are the published ones") {
  const double step_and_distortion[][2] = {{1.5958, .36338},  {.9958, .118846},   {.5857, .0374397},
                                           {.3352, .0115429}, {.1880, .00349523}, {.1041, .00104005}};
  for (int bits = 1; bits <= 6; ++bits) {
    const int n = 1 << bits;
    const auto q = best_uniform(GaussianSource{}, -(n - 1) / 2.0, n);
    CHECK(std::abs(q.levels[1] - q.levels[0] - step_and_distortion[bits - 1][0]) < 4e-4);
    CHECK(q.distortion == Approx(step_and_distortion[bits - 1][1]).epsilon(1e-4));
  }
  // Two's complement has one level more than Superfloat, on one side.
  const auto integer = best_uniform(GaussianSource{}, -8, 16), superfloat = best_uniform(GaussianSource{}, -7, 15);
  CHECK(integer.distortion < superfloat.distortion);
  CHECK(superfloat.distortion == Approx(distortion_by_hand(GaussianSource{}, superfloat.levels)).epsilon(1e-5));
  CHECK(integer.distortion == Approx(distortion_by_hand(GaussianSource{}, integer.levels)).epsilon(1e-5));
}

TEST_CASE("entropy-coded uniform quantizers are the published ones") {
  const double known[][2] = {{1, .3484}, {1.5, .1777}, {2, .0890}, {2.5, .0445}, {3, .02224}, {4, .00556}};
  for (const auto& [bits, distortion] : known) {
    const auto q = entropy_coded_uniform(GaussianSource{}, bits);
    CHECK(q.entropy == Approx(bits).epsilon(1e-6));
    CHECK(q.distortion == Approx(distortion).epsilon(2e-3));
  }
  // 1.53 dB at high rates, for any smooth source.
  CHECK(decibels(gaussian_distortion(7)) - decibels(entropy_coded_uniform(GaussianSource{}, 7).distortion) ==
        Approx(1.5329).margin(1e-3));
  CHECK(decibels(shannon_lower_bound(LaplaceSource{}, 7)) - decibels(entropy_coded_uniform(LaplaceSource{}, 7).distortion) ==
        Approx(1.5329).margin(5e-3));
}

TEST_CASE("bounds: values, inverses and order") {
  CHECK(decibels(gaussian_distortion(1)) == Approx(6.0206));
  CHECK(gaussian_rate(gaussian_distortion(2.5)) == Approx(2.5));
  CHECK(gaussian_rate(1.5) == 0);
  CHECK(shannon_lower_bound(GaussianSource{}, 3) == Approx(gaussian_distortion(3)));
  CHECK(shannon_lower_bound(LaplaceSource{}, 0) == Approx(std::exp(1.0) / 3.14159265358979));
  for (int bits = 1; bits <= 6; ++bits) {
    const auto order = [bits](const auto& source) {
      CHECK(shannon_lower_bound(source, bits) < entropy_coded_uniform(source, bits).distortion);
      CHECK(entropy_coded_uniform(source, bits).distortion < lloyd_max(source, 1 << bits).distortion);
    };
    order(GaussianSource{});
    order(LaplaceSource{});
  }
}
