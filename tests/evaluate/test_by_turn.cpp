// Several caches over one text, and comparisons by turn, against the readable KL of whole logits.

#include <span>
#include <vector>

#include <anybit/evaluate/by_turn.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/reference/kl.hpp>

#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"

using namespace anybit;

namespace {

reference::Vector as_vector(std::span<const float> row) {
  reference::Vector out(static_cast<Index>(row.size()));
  for (Index i = 0; i < out.size(); ++i) out[i] = double{row[static_cast<std::size_t>(i)]};
  return out;
}

}  // namespace

TEST_CASE("caches over one text: the KL and losses of whole logits, 0 for the reference's own width") {
  const model::Decoder d = test_support::random_decoder(2);
  const auto text = test_support::ids(200, 3);  // three stretches of 64 logits and a ragged one
  const std::vector<nn::KvCacheConfig> caches{{.bits = 16}, {.bits = 4}, {.bits = 2, .hadamard = true}};
  const auto compared = evaluate::compare_caches(d, text, {.bits = 16}, caches).value();
  REQUIRE(compared.size() == caches.size());
  const Matrix exact = test_support::logits_of(d, text, {.bits = 16});
  std::vector<double> whole;
  for (std::size_t c = 0; c < caches.size(); ++c) {
    REQUIRE(compared[c].size() == text.size() - 1);
    const Matrix logits = test_support::logits_of(d, text, caches[c]);
    double sum = 0;
    for (std::size_t i = 0; i + 1 < text.size(); ++i) {
      const auto p = static_cast<Index>(i);
      const auto want = as_vector(exact.view().row(p)), got = as_vector(logits.view().row(p));
      CHECK(compared[c][i].kl == Approx(reference::kl_divergence(want, got)).margin(1e-6));
      CHECK(compared[c][i].nll == Approx(evaluate::negative_log_likelihood(logits.view().row(p), text[i + 1])).epsilon(1e-5));
      CHECK(compared[c][i].nll_reference == compared[0][i].nll);
      sum += compared[c][i].kl;
      if (c == 0) CHECK(compared[c][i].kl == 0);
    }
    whole.push_back(sum);
  }
  CHECK(whole[1] > 0);
  CHECK(whole[2] > 4 * whole[1]);

  ThreadPool pool(3);
  const auto threaded = evaluate::compare_caches(d, text, {.bits = 16}, caches, pool).value();
  for (std::size_t c = 0; c < caches.size(); ++c)
    for (std::size_t i = 0; i < compared[c].size(); ++i) REQUIRE(threaded[c][i].kl == compared[c][i].kl);

  const auto one = evaluate::compare_caches(d, std::span(text).first(1), {.bits = 16}, caches).value();
  CHECK((one.size() == caches.size() && one[1].empty()));
  CHECK_FALSE(evaluate::compare_caches(d, text, {.bits = 16}, std::vector<nn::KvCacheConfig>{{.bits = 5}}));
}

TEST_CASE("by turn: means weighted by tokens give the whole mean, a token's prediction counts for its own turn") {
  std::vector<evaluate::TokenComparison> predictions;
  for (int i = 1; i <= 6; ++i) predictions.push_back({.kl = static_cast<double>(i), .nll = 10.0 * i});
  // Token 0 is predicted by nothing; turn 2 has no token of its own.
  const std::vector<Index> turns{0, 0, 0, 1, 1, 3, 3};
  std::vector<std::vector<evaluate::TokenComparison>> by_turn;
  evaluate::add_by_turn(predictions, turns, by_turn);
  REQUIRE(by_turn.size() == 4);
  CHECK((by_turn[0].size() == 2 && by_turn[1].size() == 2 && by_turn[2].empty() && by_turn[3].size() == 2));
  CHECK(evaluate::kl_statistics(by_turn[1]).kl.value == 3.5);
  evaluate::add_by_turn(std::span(predictions).first(1), std::vector<Index>{0, 1}, by_turn);
  REQUIRE(by_turn[1].size() == 3);
  double weighted = 0, count = 0;
  for (const auto& turn : by_turn) {
    const evaluate::KlStatistics s = evaluate::kl_statistics(turn);
    weighted += s.kl.value * static_cast<double>(s.count), count += static_cast<double>(s.count);
  }
  CHECK(weighted / count == Approx((1 + 2 + 3 + 4 + 5 + 6 + 1) / 7.0));
  evaluate::add_by_turn({}, {}, by_turn);
  CHECK(by_turn.size() == 4);
}
