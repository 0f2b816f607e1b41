// Huffman codes of limited length: against Huffman's own cost where the limit does not bind, against all codes where it does.

#include <anybit/scheme/huffman_code.hpp>

#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <anybit/reference/lossless_bf16.hpp>

#include "support/catch.hpp"

using namespace anybit;
namespace ref = anybit::reference;

namespace {

Index cost_of(const huffman::Counts& counts, const huffman::Lengths& lengths) {
  Index cost = 0;
  for (std::size_t s = 0; s < 256; ++s) cost += static_cast<Index>(counts[s]) * lengths[s];
  return cost;
}
Index huffman_cost_of(const huffman::Counts& counts) {
  ref::Row<Index> row(256);
  for (Index s = 0; s < 256; ++s) row[s] = static_cast<Index>(counts[static_cast<std::size_t>(s)]);
  return ref::huffman_cost(row);
}

/// Complete, within the limit, and a code for each symbol that occurs.
void check_code(const huffman::Counts& counts, const huffman::Lengths& lengths, int limit) {
  double kraft = 0;
  for (std::size_t s = 0; s < 256; ++s) {
    REQUIRE(lengths[s] <= limit);
    if (counts[s] > 0) REQUIRE(lengths[s] > 0);
    if (lengths[s] > 0) kraft += std::ldexp(1.0, -lengths[s]);
  }
  REQUIRE(kraft == 1);
}

/// The least cost of symbols `from` on with lengths up to `limit`, of which 2^limit * sum of 2^-length is `room` at most.
Index least_cost(const std::vector<std::uint64_t>& counts, std::size_t from, int limit, int room) {
  if (from == counts.size()) return 0;
  Index best = std::numeric_limits<Index>::max() / 2;
  for (int length = 1; length <= limit; ++length)
    if (const int used = 1 << (limit - length); used <= room)
      best = std::min(best, static_cast<Index>(counts[from]) * length + least_cost(counts, from + 1, limit, room - used));
  return best;
}

}  // namespace

TEST_CASE("huffman: lengths cost what Huffman's do where the limit leaves room") {
  std::mt19937 random(3);
  for (const int symbols : {1, 2, 3, 17, 100, 256}) {
    huffman::Counts counts{};
    for (int i = 0; i < symbols; ++i) counts[(random() >> 8) % 256] += 1 + random() % 1000;
    const huffman::Lengths lengths = huffman::lengths_of(counts, 32);
    check_code(counts, lengths, 32);
    CHECK(cost_of(counts, lengths) == huffman_cost_of(counts));
  }
}

TEST_CASE("huffman: with a limit no other code is cheaper") {
  std::mt19937 random(5);
  for (int round = 0; round < 40; ++round) {
    const std::size_t n = 2 + random() % 6;
    const int limit = 3 + static_cast<int>(random() % 2);
    huffman::Counts counts{};
    std::vector<std::uint64_t> list;
    for (std::size_t i = 0; i < n; ++i) list.push_back(counts[7 * i] = std::uint64_t{1} << (random() % 12));
    const huffman::Lengths lengths = huffman::lengths_of(counts, limit);
    check_code(counts, lengths, limit);
    CHECK(cost_of(counts, lengths) == least_cost(list, 0, limit, 1 << limit));
  }
  // Counts of Fibonacci make Huffman's own code as long as can be.
  huffman::Counts counts{};
  std::uint64_t a = 1, b = 1;
  for (std::size_t s = 0; s < 40; ++s) counts[s] = a, b = a + b, std::swap(a, b);
  check_code(counts, huffman::lengths_of(counts, 12), 12);
  CHECK(cost_of(counts, huffman::lengths_of(counts, 12)) > huffman_cost_of(counts));
  // All alike.
  counts.fill(5);
  for (const std::uint8_t length : huffman::lengths_of(counts, 8)) REQUIRE(length == 8);
}

TEST_CASE("huffman: two symbols have codes even where fewer occur, and codes are canonical") {
  for (const std::size_t only : {0u, 1u, 127u, 255u}) {
    huffman::Counts counts{};
    counts[only] = 9;
    const huffman::Lengths lengths = huffman::lengths_of(counts, 12);
    check_code(counts, lengths, 12);
    CHECK(lengths[only] == 1);
  }
  check_code({}, huffman::lengths_of({}, 12), 12);

  huffman::Counts counts{};
  std::mt19937 random(7);
  for (std::size_t s = 50; s < 90; ++s) counts[s] = random() % 500;
  const huffman::Lengths lengths = huffman::lengths_of(counts, 12);
  const huffman::Codes codes = huffman::codes_of(lengths);
  ref::Row<Index> row(256);
  for (Index s = 0; s < 256; ++s) row[s] = lengths[static_cast<std::size_t>(s)];
  const auto expected = ref::canonical_code(row);
  for (std::size_t s = 0; s < 256; ++s) {
    REQUIRE(codes.code[s] == expected[static_cast<Index>(s)]);
    for (std::size_t t = 0; t < 256; ++t)  // no code begins with another
      if (s != t && lengths[s] > 0 && lengths[s] <= lengths[t])
        REQUIRE(codes.code[t] >> (lengths[t] - lengths[s]) != codes.code[s]);
  }
}
