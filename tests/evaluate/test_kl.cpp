#include <cmath>
#include <random>
#include <vector>

#include <anybit/evaluate/kl.hpp>
#include <anybit/reference/kl.hpp>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::evaluate;

namespace {

std::vector<float> random_logits(std::size_t n, unsigned seed, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(n);
  for (float& l : logits) l = normal(random);
  return logits;
}

}  // namespace

TEST_CASE("KL of two known distributions") {
  // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL = 1/2 ln 2 + 1/4 ln 1/2 = 1/4 ln 2
  const std::vector<float> p{std::log(0.5f), std::log(0.25f), std::log(0.25f)}, q{p[1], p[2], p[0]};
  ReferenceLogits reference(1, 3);
  reference.set(0, p, 0);
  const TokenComparison t = reference.compare(0, q);
  CHECK(t.kl == Approx(0.25 * std::log(2.0)).epsilon(1e-6));
  CHECK(t.nll_reference == Approx(std::log(2.0)));
  CHECK(t.nll == Approx(std::log(4.0)));
  CHECK_FALSE(t.same_top);
  CHECK(reference.compare(0, p).kl == Approx(0).margin(1e-15));
  CHECK(reference.compare(0, p).same_top);
}

TEST_CASE("KL agrees with the reference at any vocabulary") {
  for (const std::size_t n : {1u, 3u, 8u, 17u, 999u}) {
    const auto p = random_logits(n, 1, 5), q = random_logits(n, 2, 5);
    ReferenceLogits base(2, static_cast<Index>(n));
    base.set(1, p, static_cast<std::int32_t>(n / 2));
    const double expected = reference::kl_divergence(reference::Vector(p), reference::Vector(q));
    CHECK(std::abs(base.compare(1, q).kl - expected) < 1e-12 * (1 + expected));
  }
}

TEST_CASE("Tokens that the reference holds below e^-16 do not count") {
  const std::vector<float> p{0, -17, 0}, q{0, 3, 0}, q_without{0, 3, 0};
  ReferenceLogits reference(1, 3);
  reference.set(0, p, 0);
  const double z = std::log(2 + std::exp(-17.0)), zq = std::log(2 + std::exp(3.0));
  const double counted = 2 * std::exp(-z) * (zq - z);
  CHECK(reference.compare(0, q).kl == Approx(counted).epsilon(1e-13));
  CHECK(std::abs(reference.compare(0, q).kl - (counted + std::exp(-17 - z) * (-17 - z - 3 + zq))) > 1e-7);
}

TEST_CASE("Reference kept as uint16: llama.cpp's own floor") {
  const auto p = random_logits(4096, 3, 3);
  ReferenceLogits exact(1, 4096), stored(1, 4096, ReferenceStorage::uint16);
  exact.set(0, p, 11);
  stored.set(0, p, 11);
  std::vector<double> a(4096), b(4096);
  exact.log_probabilities(0, a);
  stored.log_probabilities(0, b);
  double top = -1e9;
  for (const double v : a) top = std::max(top, v);
  for (std::size_t i = 0; i < a.size(); ++i) REQUIRE(std::abs(b[i] - std::max(a[i], top - 16)) < 16.0 / 65535 * 0.51 + 1e-5);
  CHECK(exact.compare(0, p).kl == Approx(0).margin(1e-15));
  CHECK(std::abs(stored.compare(0, p).kl) > 1e-9);
  CHECK(std::abs(stored.compare(0, p).kl) < 1e-3);
  // All logits equal: no range to cut into steps.
  ReferenceLogits flat(1, 5, ReferenceStorage::uint16);
  flat.set(0, std::vector<float>(5, 2.f), 0);
  CHECK(flat.compare(0, std::vector<float>(5, -1.f)).kl == Approx(0).margin(1e-7));
}

TEST_CASE("KL statistics against llama.cpp's formulas written out") {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<TokenComparison> tokens(101);
  for (auto& t : tokens) t = {uniform(random), 3 * uniform(random), 0, uniform(random) < 0.7};
  for (auto& t : tokens) t.nll = t.nll_reference + 0.3 * uniform(random);
  const double n = 101;
  double kl = 0, kl2 = 0, q = 0, q2 = 0, b = 0, b2 = 0, qb = 0, d = 0, d2 = 0, d4 = 0, same = 0;
  for (const auto& t : tokens) {
    kl += t.kl, kl2 += t.kl * t.kl, q += t.nll, q2 += t.nll * t.nll, b += t.nll_reference,
        b2 += t.nll_reference * t.nll_reference, qb += t.nll * t.nll_reference;
    const double dp = std::exp(-t.nll) - std::exp(-t.nll_reference);
    d += dp, d2 += dp * dp, d4 += dp * dp * dp * dp, same += t.same_top;
  }
  const auto error2 = [n](double sum, double squares) { return (squares / n - sum / n * sum / n) / (n - 1); };
  const double cov = (qb / n - q / n * b / n) / (n - 1);
  const KlStatistics s = kl_statistics(tokens);
  CHECK(s.kl.value == Approx(kl / n));
  CHECK(s.kl.plus_minus == Approx(std::sqrt(error2(kl, kl2))));
  CHECK(s.perplexity == Approx(std::exp(q / n)));
  CHECK(s.perplexity_reference == Approx(std::exp(b / n)));
  CHECK(s.log_perplexity_ratio.value == Approx((q - b) / n));
  const double ratio_error = std::sqrt(error2(q, q2) + error2(b, b2) - 2 * cov);
  CHECK(s.log_perplexity_ratio.plus_minus == Approx(ratio_error));
  CHECK(s.perplexity_ratio.value == Approx(std::exp((q - b) / n)));
  CHECK(s.perplexity_ratio.plus_minus == Approx(std::exp((q - b) / n) * ratio_error));
  CHECK(s.correlation_percent == Approx(100 * cov / std::sqrt(error2(q, q2) * error2(b, b2))));
  CHECK(s.dp_percent.value == Approx(100 * d / n));
  CHECK(s.rms_dp_percent.value == Approx(100 * std::sqrt(d2 / n)));
  CHECK(s.rms_dp_percent.plus_minus == Approx(100 * 0.5 / std::sqrt(d2 / n) * std::sqrt(error2(d2, d4))));
  CHECK(s.same_top_percent.value == Approx(100 * same / n));
  CHECK(s.same_top_percent.plus_minus == Approx(100 * std::sqrt(same / n * (1 - same / n) / (n - 1))));
  std::vector<double> values;
  for (const auto& t : tokens) values.push_back(t.kl);
  std::sort(values.begin(), values.end());
  CHECK(s.kl_min == values.front());
  CHECK(s.kl_max == values.back());
  CHECK(s.kl_percentiles[4] == Approx(values[50]));  // median of 101
  CHECK(s.kl_percentiles[1] == Approx(values[99]));  // 99 %: position 99
  CHECK(s.kl_percentiles[0] == Approx(0.1 * values[99] + 0.9 * values[100]));
  CHECK(s.enough());
  CHECK(to_text(s).find("Median  KLD") != std::string::npos);
  CHECK(to_text(s).find("99.9%   KLD") != std::string::npos);
  CHECK_FALSE(kl_statistics({}).enough());
}
