#pragma once
// Chooses one option per item with the least sum of costs within a number of bytes: the multiple-choice
// knapsack problem. See docs/bits.md.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/stable_sort.hpp>
#include <anybit/core/types.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

struct SizedCost {
  Index bytes = 0;
  double cost = 0;
};

struct Allocation {
  std::vector<std::size_t> chosen;  ///< the option of each item
  Index bytes = 0;
  double cost = 0;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// The least sum of costs whose bytes do not exceed `budget`, by a dynamic program over the sums that no other beats in both
/// bytes and cost. Exact while there are at most `states` of them; beyond that their range is cut into `states` parts, and of
/// each part the cheapest sum stays, so that a slightly better one may be missed. Of equal costs the smaller, then the option
/// named first. Deterministic.
inline Result<Allocation> allocate(std::span<const std::vector<SizedCost>> items, Index budget, std::size_t states = 16384) {
  ANYBIT_CHECK(states >= 2, "allocate: fewer than 2 states");
  std::vector<Index> least_after(items.size() + 1, 0);  // bytes that items i.. take at least
  Index most = 0;
  for (std::size_t i = items.size(); i-- > 0;) {
    if (items[i].empty())
      return Error{ErrorCode::invalid_argument,
                   "allocate: item " + std::to_string(i) + " has no options: give each at least one"};
    Index low = items[i].front().bytes, high = low;
    for (const SizedCost& o : items[i]) {
      if (!is_finite(o.cost) || o.bytes < 0)
        return Error{ErrorCode::not_finite, "allocate: item " + std::to_string(i) + " has an option of " +
                                                std::to_string(o.bytes) + " bytes and cost " + std::to_string(o.cost) +
                                                ": sizes must not be negative and costs finite"};
      low = std::min(low, o.bytes), high = std::max(high, o.bytes);
    }
    least_after[i] = least_after[i + 1] + low;
    most += high;
  }
  if (budget < least_after[0])
    return Error{ErrorCode::invalid_argument, "the budget of " + std::to_string(budget) +
                                                  " bytes is below what the smallest options take: they go from " +
                                                  std::to_string(least_after[0]) + " to " + std::to_string(most)};

  struct State {
    Index bytes = 0;
    double cost = 0;
    std::uint32_t before = 0, option = 0;  ///< the state it came from, and what was chosen since
  };
  std::vector<std::vector<State>> levels{{State{}}};
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::vector<State>& from = levels.back();
    std::vector<State> all;
    for (std::size_t s = 0; s < from.size(); ++s)
      for (std::size_t o = 0; o < items[i].size(); ++o)
        if (const Index bytes = from[s].bytes + items[i][o].bytes; bytes + least_after[i + 1] <= budget)
          all.push_back({bytes, from[s].cost + items[i][o].cost, static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(o)});
    anybit::stable_sort(all.begin(), all.end(),
                        [](const State& a, const State& b) { return a.bytes != b.bytes ? a.bytes < b.bytes : a.cost < b.cost; });
    std::vector<State> kept;
    for (const State& s : all)
      if (kept.empty() || s.cost < kept.back().cost) kept.push_back(s);
    if (kept.size() > states) {  // the smallest stays whatever happens: it always can be completed
      const Index first = kept.front().bytes, bucket = (kept.back().bytes - first) / static_cast<Index>(states - 1) + 1;
      std::vector<State> fewer{kept.front()};
      Index last = -1;
      for (std::size_t s = 1; s < kept.size(); ++s) {
        const Index b = (kept[s].bytes - first) / bucket;
        if (b == last)
          fewer.back() = kept[s];
        else
          fewer.push_back(kept[s]);
        last = b;
      }
      kept = std::move(fewer);
    }
    levels.push_back(std::move(kept));
  }

  Allocation out;
  out.bytes = levels.back().back().bytes, out.cost = levels.back().back().cost;
  out.chosen.resize(items.size());
  std::size_t at = levels.back().size() - 1;
  for (std::size_t i = items.size(); i-- > 0;) {
    const State& s = levels[i + 1][at];
    out.chosen[i] = s.option, at = s.before;
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
