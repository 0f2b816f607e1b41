// Tiles of linear codebooks as lines of bytes, on every instruction set, against the states one by one.

#include <anybit/simd/trellis_lines.hpp>

#include <array>
#include <cstring>
#include <random>
#include <vector>

#include <anybit/scheme/trellis.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

/// Levels that are not each other's negatives.
struct Lopsided {
  static constexpr std::string_view name = "lopsided";
  static constexpr auto hash = Quantiles::hash;
  static constexpr std::array<std::int8_t, 256> levels = [] {
    auto l = Quantiles::levels;
    l[3] = 5;
    return l;
  }();
  static constexpr int value(std::uint32_t state) {
    std::uint32_t index = 0;
    for (std::size_t i = 0; i < 16; ++i)
      if ((state >> i & 1) != 0) index ^= hash[i];
    return levels[index];
  }
};

template <int L, int K, class Book>
void check_lines() {
  CAPTURE(L, K, std::string_view(Book::name));
  std::mt19937 random(7 * L + K);
  struct Line {
    std::array<std::uint8_t, 64> bytes;
  };
  for (int repeat = 0; repeat < 4; ++repeat) {
    // The tile's bytes alone, so that reading beyond them is seen where that is checked.
    std::vector<std::byte> tile(32 * K);
    for (std::byte& b : tile) b = repeat == 0 ? std::byte{255} : std::byte(random() & 255);
    std::array<std::uint16_t, 256> states;
    BitshiftTrellis<L, K>::read(tile.data(), states);
    const auto check = [&](Index q, const void* line) {
      for (std::size_t i = 0; i < 64; ++i) {
        const auto expected = static_cast<std::uint8_t>(Book::value(states[64 * static_cast<std::size_t>(q) + i]) + 128);
        CAPTURE(q, i);
        REQUIRE(static_cast<const std::uint8_t*>(line)[i] == expected);
      }
    };
    const simd::TileLines<L, K, Book> lines(tile.data());
    for (Index q = 0; q < 4; ++q) {
      const Line line = lines.template line<Line>(q);
      check(q, line.bytes.data());
#if defined(ANYBIT_SIMD_X86_TRELLIS_LINES_AVX2)
      if constexpr (simd::TrellisLinesAvx2<L, K, Book>::usable) {
        const auto parts = simd::TrellisLinesAvx2<L, K, Book>::line(tile.data(), q);
        check(q, &parts);
      }
#endif
#if defined(ANYBIT_SIMD_ARM_TRELLIS_LINES_NEON)
      if constexpr (simd::TrellisLinesNeon<L, K, Book>::usable) {
        const auto parts = simd::TrellisLinesNeon<L, K, Book>::line(tile.data(), q);
        check(q, &parts);
      }
#endif
    }
  }
}

void check_widths() {
  using Book = Quantiles;
  check_lines<4, 1, Book>(), check_lines<6, 2, Book>(), check_lines<8, 1, Book>(), check_lines<8, 3, Book>();
  check_lines<9, 2, Book>(), check_lines<10, 4, Book>(), check_lines<12, 1, Book>(), check_lines<12, 2, Book>();
  check_lines<12, 3, Book>(), check_lines<12, 4, Book>(), check_lines<13, 3, Book>(), check_lines<16, 1, Book>();
  check_lines<16, 2, Book>(), check_lines<16, 3, Book>(), check_lines<16, 4, Book>(), check_lines<12, 5, Book>();
  check_lines<16, 5, Book>(), check_lines<16, 6, Book>(), check_lines<15, 7, Book>(), check_lines<16, 8, Book>();
}

}  // namespace

TEST_CASE("trellis lines: bytes are those of the states, at every width") { check_widths(); }
TEST_CASE("trellis lines: levels need not be symmetric") { check_lines<12, 2, Lopsided>(), check_lines<16, 4, Lopsided>(); }
