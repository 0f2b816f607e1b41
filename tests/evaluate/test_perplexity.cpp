#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <anybit/evaluate/perplexity.hpp>
#include <anybit/evaluate/prompt_perplexity.hpp>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::evaluate;

TEST_CASE("exp_nonpositive is e^x") {
  for (double x = 0; x > -699; x -= 0.0371) {
    const double e = exp_nonpositive(x);
    REQUIRE(std::abs(e / std::exp(x) - 1) < 1e-14);
  }
  CHECK(exp_nonpositive(0) == 1);
  CHECK(exp_nonpositive(-1e9) < 1e-300);
  CHECK(exp_nonpositive(-std::numeric_limits<double>::infinity()) < 1e-300);
}

TEST_CASE("log_normalizer agrees with the plain sum at any length") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 4);
  for (const std::size_t n : {1u, 2u, 7u, 8u, 9u, 31u, 1000u}) {
    std::vector<float> logits(n);
    for (float& l : logits) l = normal(random);
    long double sum = 0;
    std::size_t top = 0;
    for (std::size_t i = 0; i < n; ++i) {
      sum += std::exp(static_cast<long double>(logits[i]));
      if (logits[i] > logits[top]) top = i;
    }
    const LogNormalizer got = log_normalizer(logits);
    CHECK(std::abs(got.log_sum_exp - static_cast<double>(std::log(sum))) < 1e-13);
    CHECK(got.top == static_cast<Index>(top));
  }
  CHECK(log_normalizer(std::vector<float>{5, 7, 7, 1}).top == 1);  // the first of equals
  CHECK(log_normalizer(std::vector<float>{1e30f, 0}).log_sum_exp == Approx(1e30));
  CHECK(std::isnan(log_normalizer(std::vector<float>{0, NAN, 1}).log_sum_exp));
  CHECK(std::isnan(log_normalizer(std::vector<float>(9, -INFINITY)).log_sum_exp));
  // A token ruled out altogether costs nothing.
  CHECK(log_normalizer(std::vector<float>{0, -INFINITY, 0}).log_sum_exp == Approx(std::log(2)));
}

TEST_CASE("mean survives cancellation") {
  CHECK(mean(std::vector<double>{1e16, 1, -1e16, 1}) == 0.5);
  CHECK(mean(std::vector<double>{}) == 0);
}

TEST_CASE("a token of no probability makes perplexity infinite") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  for (const std::size_t n : {2u, 30u})
    for (const std::size_t at : {std::size_t{0}, n - 1}) {
      std::vector<double> nll(n, 1.0);
      nll[at] = inf;
      const Perplexity p = perplexity(nll);
      CHECK(p.value == inf);
      CHECK(p.plus_minus == inf);
      CHECK(p.mean_nll == inf);
    }
  CHECK(perplexity(std::vector<double>(20, 800.0)).value == inf);
  CHECK(perplexity(std::vector<double>(20, 800.0)).plus_minus == inf);
  CHECK(mean(std::vector<double>{inf, 1, inf}) == inf);
  CHECK(mean(std::vector<double>{1e300, -inf, 2}) == -inf);
  CHECK(std::isnan(mean(std::vector<double>{inf, -inf})));
  CHECK(std::isnan(mean(std::vector<double>{1, std::numeric_limits<double>::quiet_NaN()})));
}

TEST_CASE("standard errors and percentiles, by hand") {
  std::vector<double> x(12, 0.0);
  x[0] = 12;  // mean 1, E[x^2] = 12, variance 11
  CHECK(estimate(x).value == 1);
  CHECK(estimate(x).plus_minus == Approx(1));  // sqrt(11 / 11)
  CHECK(estimate(std::span(x).first(10)).plus_minus == 0);
  const std::vector<double> sorted{1, 2, 4, 8};
  CHECK(percentile(sorted, 0) == 1);
  CHECK(percentile(sorted, 1) == 8);
  CHECK(percentile(sorted, 0.5) == 3);
  CHECK(percentile(sorted, 0.9) == Approx(6.8));  // 2.7: 0.3 * 4 + 0.7 * 8
  CHECK(percentile(std::vector<double>{3}, 0.7) == 3);
}

TEST_CASE("GPTQ windows: disjoint, the rest dropped, all but the first token scored") {
  std::vector<std::int32_t> tokens(23);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i);
  const Windows w = gptq_windows(tokens, 10).value();
  CHECK(w.count() == 2);
  CHECK(w.window(1)[0] == 10);
  CHECK(w.scored_per_window() == 9);
  CHECK(w.scored() == 18);
  CHECK(w.targets(0).front() == 1);
  CHECK(w.targets(1).back() == 19);
  const auto short_text = gptq_windows(tokens, 24);
  REQUIRE_FALSE(short_text.ok());
  CHECK(short_text.error().message.find("23 tokens") != std::string::npos);
  CHECK(short_text.error().message.find("at least 24") != std::string::npos);
  CHECK_FALSE(gptq_windows(tokens, 2).ok());
  CHECK_FALSE(gptq_windows(tokens, 0).ok());
  CHECK_FALSE(gptq_windows({}, 10).ok());
}

TEST_CASE("llama.cpp windows: the second half is scored, BOS replaces the first token") {
  std::vector<std::int32_t> tokens(1500, 7);
  const Windows w = llama_cpp_windows(tokens, 512).value();
  CHECK(w.count() == 2);
  CHECK(w.first_scored == 256);
  CHECK(w.scored_per_window() == 255);
  const Windows b = llama_cpp_windows(tokens, 512, 1).value();
  CHECK(b.window(0)[0] == 1);
  CHECK(b.window(1)[0] == 1);
  CHECK(b.window(1)[1] == 7);
  tokens.resize(1023);
  CHECK_FALSE(llama_cpp_windows(tokens, 512).ok());
}

TEST_CASE("perplexity of known losses") {
  const std::vector<double> uniform(20, std::log(50.0));
  CHECK(perplexity(uniform).value == Approx(50));
  CHECK(perplexity(uniform).plus_minus == Approx(0).margin(1e-12));
  // Mean of window means, as the GPTQ code writes it, is the same number.
  std::vector<double> nll;
  double by_windows = 0;
  for (int w = 0; w < 3; ++w) {
    double sum = 0;
    for (int i = 0; i < 7; ++i) {
      nll.push_back(0.1 * (w + 1) * i);
      sum += nll.back();
    }
    by_windows += sum / 7 * 8;  // mean cross entropy times seqlen
  }
  const Perplexity p = perplexity(nll);
  CHECK(p.value == Approx(std::exp(by_windows / (3 * 8))).epsilon(1e-12));
  CHECK(p.scored == 21);
  double e = 0, e2 = 0;
  for (const double x : nll) e += x / 21, e2 += x * x / 21;
  CHECK(p.plus_minus == Approx(p.value * std::sqrt((e2 - e * e) / 20)).epsilon(1e-10));
  CHECK(negative_log_likelihood(std::vector<float>{0, 0, 0, 0}, 2) == Approx(std::log(4.0)));
}

TEST_CASE("perplexity over prompts: the mean of prompts and the loss per token are different figures") {
  const double two = std::log(2.0), eight = std::log(8.0);
  const std::vector<std::vector<double>> nll{{two, two}, {}, {eight}};
  const PromptPerplexity p = prompt_perplexity(nll);
  CHECK(p.prompts == 2);
  CHECK(p.predictions == 3);
  CHECK(p.mean_of_prompts == Approx(5));                   // (2 + 8) / 2
  CHECK(p.per_token == Approx(std::pow(2.0, 5.0 / 3.0)));  // (2 * 2 * 8)^(1/3)
  CHECK(p.mean_nll == Approx(5.0 / 3.0 * two));
  const PromptPerplexity none = prompt_perplexity(std::vector<std::vector<double>>{{}});
  CHECK(none.prompts == 0);
  CHECK(none.predictions == 0);
}
