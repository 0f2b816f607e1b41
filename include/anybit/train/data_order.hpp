#pragma once
// The order in which examples are seen.

#include <cstdint>
#include <vector>

#include <anybit/core/stable_sort.hpp>
#include <anybit/core/types.hpp>
#include <anybit/train/random.hpp>

namespace anybit::train {
inline namespace ANYBIT_ABI {

/// Every example 0 .. count - 1 once: sorted by Draws(seed, epoch)(example), the smaller example first where two draws are equal.
/// It depends on nothing else, so a run resumes in the middle of an epoch.
inline std::vector<Index> epoch_order(Index count, std::uint64_t seed, std::uint64_t epoch) {
  struct Key {
    std::uint64_t draw;
    Index example;
  };
  const Draws draws(seed, epoch);
  std::vector<Key> keys;
  keys.reserve(static_cast<std::size_t>(count));
  for (Index i = 0; i < count; ++i) keys.push_back({draws(static_cast<std::uint64_t>(i)), i});
  anybit::stable_sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) { return a.draw < b.draw; });
  std::vector<Index> out;
  out.reserve(keys.size());
  for (const Key& k : keys) out.push_back(k.example);
  return out;
}

}  // namespace ANYBIT_ABI
}  // namespace anybit::train
