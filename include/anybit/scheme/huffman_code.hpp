#pragma once
// Huffman codes for bytes: lengths of at most `limit` bits with the least total (package-merge: Larmore, Hirschberg 1990), and
// the canonical code that lengths alone determine. Readable twin: reference/lossless_bf16.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <anybit/core/config.hpp>
#include <anybit/core/stable_sort.hpp>

namespace anybit::huffman {
inline namespace ANYBIT_CODE {

using Counts = std::array<std::uint64_t, 256>;
/// Bits of each symbol's code, 0 for a symbol without one.
using Lengths = std::array<std::uint8_t, 256>;

/// The lengths with the least sum of count * length, of symbols whose count is above 0. At least two symbols have codes, so that
/// every code is complete: the sum of 2^-length is 1 and any bits decode. `limit` is 8 to 32.
inline Lengths lengths_of(const Counts& counts, int limit) {
  std::vector<std::pair<std::uint64_t, std::size_t>> leaves;  // count and symbol, rarest first
  for (std::size_t s = 0; s < counts.size(); ++s)
    if (counts[s] > 0) leaves.emplace_back(counts[s], s);
  for (std::size_t s = 0; leaves.size() < 2; ++s)
    if (counts[s] == 0) leaves.emplace_back(0, s);
  anybit::stable_sort(leaves.begin(), leaves.end(), [](const auto& a, const auto& b) { return a.first < b.first; });

  // A list for each bit, the last bit's first: leaves, merged with pairs of neighbours of the list before. Whatever is cheapest
  // among the first 2 n - 2 of the last list is taken with all that it is made of; a leaf gets a bit each time.
  std::vector<std::vector<bool>> is_leaf;
  std::vector<std::uint64_t> list;
  for (int bit = 0; bit < limit; ++bit) {
    std::vector<std::uint64_t> merged;
    std::vector<bool>& from = is_leaf.emplace_back();
    std::size_t leaf = 0, pair = 0;
    while (leaf < leaves.size() || pair + 1 < list.size()) {
      const bool take = pair + 1 >= list.size() || (leaf < leaves.size() && leaves[leaf].first <= list[pair] + list[pair + 1]);
      merged.push_back(take ? leaves[leaf].first : list[pair] + list[pair + 1]);
      from.push_back(take);
      take ? ++leaf : pair += 2;
    }
    list = std::move(merged);
  }
  Lengths lengths{};
  std::size_t taken = 2 * leaves.size() - 2;
  for (auto from = is_leaf.rbegin(); from != is_leaf.rend(); ++from) {
    std::size_t leaf = 0;
    for (std::size_t i = 0; i < taken; ++i)
      if ((*from)[i]) ++lengths[leaves[leaf++].second];
    taken = 2 * (taken - leaf);
  }
  return lengths;
}

/// The canonical code: codes rise with their length, and at one length with the symbol.
struct Codes {
  std::array<std::uint16_t, 256> code{};
  Lengths length{};
};
inline Codes codes_of(const Lengths& lengths) {
  Codes out{{}, lengths};
  unsigned next = 0;
  for (unsigned bits = 1; bits <= 16; ++bits, next *= 2)
    for (std::size_t s = 0; s < lengths.size(); ++s)
      if (lengths[s] == bits) out.code[s] = static_cast<std::uint16_t>(next++);
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::huffman

#include <anybit/core/macros_end.hpp>
