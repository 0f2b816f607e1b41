#pragma once
// Shared by the tests of file readers: what every parser must survive.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>

#include "support/catch.hpp"

namespace bad_bytes {

/// A copy with nothing behind its end, so that the address sanitizer sees the first byte read too far.
struct Exact {
  explicit Exact(std::string_view s) : data(new char[s.size()]), size(s.size()) {
    if (size) std::memcpy(data.get(), s.data(), size);
  }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span<const char>(data.get(), size)); }
  std::unique_ptr<char[]> data;
  std::size_t size;
};

/// True if the sentence ends with what to do: an imperative behind its last colon, or a comma behind that.
inline bool has_remedy(std::string_view message) {
  const std::size_t colon = message.rfind(": ");
  const std::string last = " " + std::string(message.substr(colon == std::string_view::npos ? 0 : colon));
  for (const char* verb : {"check", "choose", "convert", "export", "fetch", "give", "open", "quantize", "read", "remove",
                           "rename", "split", "take", "use", "write"})
    if (last.find(" " + std::string(verb) + " ") != std::string::npos) return true;
  return false;
}

/// One line that names the file, says something, and what to do.
template <class R>
void check_error(const R& r, std::string_view part) {
  REQUIRE(!r.ok());
  INFO(r.error().message);
  CHECK(r.error().message.find(part) != std::string::npos);
  CHECK(r.error().message.rfind("bad.file: ", 0) == 0);
  CHECK(r.error().message.find('\n') == std::string::npos);
  CHECK(has_remedy(r.error().message));
}

/// Every proper prefix is an error, or, where `use` accepts it, readable.
template <class Parse>
void every_prefix_is_refused(const std::string& good, Parse&& parse) {
  for (std::size_t n = 0; n < good.size(); ++n) {
    const Exact cut(std::string_view(good).substr(0, n));
    INFO("cut to " << n << " of " << good.size());
    REQUIRE(!parse(cut.bytes()));
  }
}

/// Calls `use(bytes)` with seeded mutations of `good`: single bits, bytes, digits, extreme 32- and 64-bit words, cuts and
/// repeats. Returns how often `use` said that it accepted one: the mutations must reach past the first check.
template <class Use>
int mutate(const std::string& good, int rounds, std::size_t header, Use&& use) {
  std::mt19937_64 random(20240521);
  const auto below = [&](std::size_t n) { return n ? static_cast<std::size_t>(random() % n) : 0; };
  const std::uint64_t extremes[] = {0,
                                    1,
                                    4,
                                    5,
                                    31,
                                    32,
                                    0x7F,
                                    0x80,
                                    0xFF,
                                    0xFFFF,
                                    0x7FFFFFFF,
                                    0x80000000,
                                    0xFFFFFFFF,
                                    0x100000000,
                                    0x3FFFFFFFFFFFFFFF,
                                    0x7FFFFFFFFFFFFFFF,
                                    0x8000000000000000,
                                    0xFFFFFFFFFFFFFFE0,
                                    0xFFFFFFFFFFFFFFFF};
  int accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string bad = good;
    for (std::size_t k = 1 + below(3); k > 0; --k) {
      const std::size_t at = below(below(8) ? std::min(header, bad.size()) : bad.size());  // mostly in the header
      if (bad.empty()) break;
      switch (below(8)) {
        case 0: bad[at] = static_cast<char>(bad[at] ^ (1 << below(8))); break;
        case 1: bad[at] = static_cast<char>(random()); break;
        case 2: {
          const std::uint64_t word = extremes[below(std::size(extremes))];
          std::memcpy(bad.data() + at, &word, std::min(bad.size() - at, below(2) ? sizeof word : sizeof word / 2));
          break;
        }
        case 3: bad.resize(at); break;
        case 4:
        case 5: {  // a number in text: only a digit changes, so the grammar still holds
          const std::size_t digit = bad.find_first_of("0123456789", at);
          if (digit != std::string::npos) bad[digit] = static_cast<char>('0' + below(10));
          break;
        }
        case 6: bad.insert(at, bad.substr(at, 1 + below(16))); break;
        default: bad.erase(at, 1 + below(16)); break;
      }
    }
    const Exact exact(bad);
    if (use(exact.bytes())) ++accepted;
  }
  return accepted;
}

}  // namespace bad_bytes
