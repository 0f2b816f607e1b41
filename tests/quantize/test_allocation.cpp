#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <anybit/quantize/allocation.hpp>

#include "support/catch.hpp"

using namespace anybit;
using evaluate::SizedCost;
using Items = std::vector<std::vector<SizedCost>>;

namespace {

/// The least cost by trying everything; infinity if nothing fits.
double least_cost(const Items& items, Index budget, std::size_t i = 0) {
  if (i == items.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const SizedCost& o : items[i])
    if (o.bytes <= budget) best = std::min(best, o.cost + least_cost(items, budget - o.bytes, i + 1));
  return best;
}

/// `widths` options an item, costs falling by about four from width to width as quantization errors do, or anyhow.
Items random_items(std::mt19937& random, std::size_t count, bool like_errors) {
  std::uniform_real_distribution<double> uniform(0.5, 2);
  Items items(count);
  for (auto& options : items) {
    const double scale = uniform(random);
    const auto size = static_cast<Index>(random() % 40 + 1);
    for (Index width = 2; width < 7; ++width)
      options.push_back(like_errors
                            ? SizedCost{size * width, scale * std::pow(4.0, -static_cast<double>(width)) * uniform(random)}
                            : SizedCost{static_cast<Index>(random() % 100), uniform(random)});
  }
  return items;
}

}  // namespace

TEST_CASE("the allocation costs as little as the best of all, and fits") {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const Items items = random_items(random, 1 + static_cast<std::size_t>(round) % 6, round % 2 == 0);
    Index low = 0, high = 0;
    for (const auto& options : items) {
      Index least = options.front().bytes, most = least;
      for (const SizedCost& o : options) least = std::min(least, o.bytes), most = std::max(most, o.bytes);
      low += least, high += most;
    }
    for (const Index budget : {low, low + (high - low) / 3, low + (high - low) / 2, high, 2 * high}) {
      const auto found = evaluate::allocate(items, budget).value();
      Index bytes = 0;
      double cost = 0;
      REQUIRE(found.chosen.size() == items.size());
      for (std::size_t i = 0; i < items.size(); ++i)
        bytes += items[i][found.chosen[i]].bytes, cost += items[i][found.chosen[i]].cost;
      CHECK(bytes == found.bytes);
      CHECK(cost == Approx(found.cost));
      CHECK(bytes <= budget);
      CHECK(cost == Approx(least_cost(items, budget)).epsilon(1e-12));
    }
  }
}

TEST_CASE("few states still fit, and lose little") {
  std::mt19937 random(4);
  const Items items = random_items(random, 60, true);
  Index low = 0, high = 0;
  for (const auto& options : items) low += options.front().bytes, high += options.back().bytes;
  for (const Index budget : {low, low + 1, (low + high) / 2, high}) {
    const auto exact = evaluate::allocate(items, budget).value();
    const auto coarse = evaluate::allocate(items, budget, 400).value();
    CHECK(coarse.bytes <= budget);
    CHECK(coarse.cost >= exact.cost * (1 - 1e-12));
    CHECK(coarse.cost <= exact.cost * 1.05);
    CHECK(evaluate::allocate(items, budget, 2).value().bytes <= budget);
  }
}

TEST_CASE("of equal costs the smaller, of equal options the first; no items are no bytes") {
  const Items items{{{7, 1.0}, {5, 1.0}, {5, 1.0}}, {{3, 0.5}, {3, 0.5}}};
  const auto found = evaluate::allocate(items, 100).value();
  CHECK(found.chosen == std::vector<std::size_t>{1, 0});
  CHECK(found.bytes == 8);
  const auto nothing = evaluate::allocate(Items{}, 0).value();
  CHECK(nothing.chosen.empty());
  CHECK(nothing.bytes == 0);
}

TEST_CASE("a budget that is too small, an item without options and costs that are no numbers are errors") {
  const Items items{{{10, 1.0}, {20, 0.5}}, {{4, 2.0}}};
  const auto message = [](const Items& i, Index budget) { return evaluate::allocate(i, budget).error().message; };
  CHECK(message(items, 13) == "the budget of 13 bytes is below what the smallest options take: they go from 14 to 24");
  CHECK(evaluate::allocate(items, 14).ok());
  CHECK(message({{{1, 1.0}}, {}}, 5).find("item 1 has no options") != std::string::npos);
  CHECK(message({{{1, std::numeric_limits<double>::quiet_NaN()}}}, 5).find("item 0") != std::string::npos);
  CHECK(message({{{-1, 1.0}}}, 5).find("-1 bytes") != std::string::npos);
}
