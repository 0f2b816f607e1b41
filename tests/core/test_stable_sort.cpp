#include <anybit/core/stable_sort.hpp>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"

TEST_CASE("stable_sort gives what std::stable_sort gives, at every length", "[core]") {
  std::mt19937 rng(3);
  const auto by_key = [](const std::pair<int, int>& a, const std::pair<int, int>& b) { return a.first < b.first; };
  for (const int keys : {1, 3, 1000})
    for (int n = 0; n < 300; ++n) {
      std::vector<std::pair<int, int>> values;
      for (int i = 0; i < n; ++i) values.emplace_back(static_cast<int>(rng() % static_cast<unsigned>(keys)), i);
      auto expected = values;
      std::stable_sort(expected.begin(), expected.end(), by_key);
      anybit::stable_sort(values.begin(), values.end(), by_key);
      if (values != expected) FAIL(n << " values of " << keys << " keys");
    }
}

TEST_CASE("stable_sort moves what cannot be copied", "[core]") {
  std::vector<std::unique_ptr<int>> values;
  for (int i = 0; i < 100; ++i) values.push_back(std::make_unique<int>(i * 37 % 100));
  anybit::stable_sort(values.begin(), values.end(), [](const auto& a, const auto& b) { return *a < *b; });
  for (int i = 0; i < 100; ++i) CHECK(*values[static_cast<std::size_t>(i)] == i);
}
