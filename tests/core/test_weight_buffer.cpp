#include <anybit/core/weight_buffer.hpp>

#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;

namespace {

/// Every byte of a buffer is `mark`.
bool holds(const WeightBuffer& b, std::byte mark) {
  for (std::size_t i = 0; i < b.size(); ++i)
    if (b.data()[i] != mark) return false;
  return true;
}

}  // namespace

TEST_CASE("weight buffers: aligned, zero at first, apart from each other, copied whole") {
  CHECK(WeightBuffer().size() == 0);
  CHECK(WeightBuffer(0).data() == nullptr);
  std::vector<WeightBuffer> all;
  for (const std::size_t bytes : {1u, 63u, 64u, 65u, 1000000u, 17u << 20, 5u, 3u << 20}) {
    all.emplace_back(bytes);
    REQUIRE(reinterpret_cast<std::uintptr_t>(all.back().data()) % 64 == 0);
    REQUIRE(all.back().size() == bytes);
    REQUIRE(holds(all.back(), std::byte{0}));
    std::memset(all.back().data(), static_cast<int>(all.size()), bytes);
  }
  for (std::size_t i = 0; i < all.size(); ++i) REQUIRE(holds(all[i], static_cast<std::byte>(i + 1)));
  WeightBuffer copy = all[4], moved = std::move(all[3]);
  CHECK(all[3].size() == 0);
  std::memset(all[4].data(), 99, all[4].size());
  CHECK(holds(copy, std::byte{5}));
  CHECK(holds(moved, std::byte{4}));
  copy = moved;
  CHECK(copy.size() == 65);
  CHECK(holds(copy, std::byte{4}));
}

TEST_CASE("weight buffers come and go in any order, on several threads") {
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t t = 0; t < 4; ++t)
    threads.emplace_back([t, &wrong] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<WeightBuffer> mine;
      for (int i = 0; i < 200; ++i) {
        const auto mark = static_cast<std::byte>(t + 1);
        if (!mine.empty() && random() % 3 == 0) {
          const std::size_t at = random() % mine.size();
          if (!holds(mine[at], mark)) ++wrong[t];
          mine.erase(mine.begin() + static_cast<std::ptrdiff_t>(at));
        } else {
          mine.emplace_back(random() % 40000);
          if (!holds(mine.back(), std::byte{0})) ++wrong[t];
          if (mine.back().size() > 0) std::memset(mine.back().data(), static_cast<int>(mark), mine.back().size());
        }
      }
      for (const WeightBuffer& b : mine)
        if (!holds(b, static_cast<std::byte>(t + 1))) ++wrong[t];
    });
  for (auto& t : threads) t.join();
  for (const int w : wrong) CHECK(w == 0);
}

TEST_CASE("few bytes take few pages and many take large ones") {
  CHECK(PageChunk(2048, 0).size() == 4096);
  CHECK(PageChunk(5000, 4096).size() == 8192);
  CHECK(PageChunk(2048, 300000).size() == 303104);  // as much again as came before, in whole small pages
  CHECK(PageChunk(2048, 5 * PageChunk::page + 1).size() == 6 * PageChunk::page);
  CHECK(PageChunk(5 * PageChunk::page, 0).size() == 5 * PageChunk::page);
  CHECK(PageChunk(2048).size() == PageChunk::usual);
  PageChunk chunk(100, 0);
  REQUIRE(chunk.take(4000) != nullptr);
  CHECK(chunk.take(200) == nullptr);
  CHECK(chunk.left() == 96);
}
