#pragma once
// A text that a small decoder learns in a few dozen epochs.

#include <vector>

#include <anybit/train/loss.hpp>

namespace train_tests {

/// Six texts of eight ids below 11, each three on from the one before it. Not copied: examples refer to the ids.
struct Wheel {
  std::vector<std::vector<anybit::model::TokenId>> ids;
  std::vector<anybit::train::Example> examples;

  Wheel() {
    for (int first = 0; first < 6; ++first) {
      std::vector<anybit::model::TokenId>& one = ids.emplace_back();
      for (int t = 0; t < 8; ++t) one.push_back((first + 3 * t) % 11);
    }
    for (const auto& one : ids) examples.push_back({one, {}});
  }
  Wheel(const Wheel&) = delete;
  Wheel& operator=(const Wheel&) = delete;
};

}  // namespace train_tests
