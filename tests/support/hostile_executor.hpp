#pragma once

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include <anybit/core/types.hpp>

namespace test_support {

/// Keeps an executor's contract and nothing beyond it: slices of odd lengths that begin where it likes, from the last to the
/// first, cut differently at every call, a grain that is not looked at, and more threads announced than there are.
class HostileExecutor {
 public:
  explicit HostileExecutor(unsigned seed = 1) : rng_(seed) {}
  anybit::Index concurrency() const { return 5; }
  template <class Body>
  void parallel_for(anybit::Index n, anybit::Index /*grain*/, Body&& body) {
    std::vector<std::pair<anybit::Index, anybit::Index>> slices;
    for (anybit::Index begin = 0; begin < n;) {
      const anybit::Index end = std::min(n, begin + 1 + static_cast<anybit::Index>(rng_() % 7));
      slices.emplace_back(begin, end);
      begin = end;
    }
    std::reverse(slices.begin(), slices.end());
    for (const auto& [begin, end] : slices) body(begin, end);
  }

 private:
  std::mt19937 rng_;
};

}  // namespace test_support
