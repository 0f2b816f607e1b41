#pragma once
// A 64-bit hash that tells inputs apart. It detects accidents; it is not cryptographic.

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// 64 bits of everything that was added, in its order; the same on every little-endian machine.
class Fingerprint {
 public:
  /// The length counts: "ab" and "c" differ from "a" and "bc".
  Fingerprint& add(std::span<const std::byte> bytes) {
    const std::byte* at = bytes.data();
    std::size_t left = bytes.size();
    // Four sums, because each step of one waits for the step before.
    for (; left >= 32; at += 32, left -= 32) {
      std::array<std::uint64_t, 4> words;
      std::memcpy(words.data(), at, 32);
      for (std::size_t lane = 0; lane < 4; ++lane) mix(lanes_[lane], words[lane]);
    }
    std::array<std::uint64_t, 4> rest{};
    if (left > 0) std::memcpy(rest.data(), at, left);
    for (std::size_t lane = 0; lane < 4; ++lane) mix(lanes_[lane], rest[lane]);
    mix(lanes_[0], bytes.size());
    return *this;
  }
  Fingerprint& add(std::string_view text) { return add(std::as_bytes(std::span(text.data(), text.size()))); }
  template <class T>
  Fingerprint& add(std::span<const T> values) {
    return add(std::as_bytes(values));
  }

  std::uint64_t value() const {
    std::uint64_t all = 0;
    for (const std::uint64_t lane : lanes_) mix(all, lane);
    mix(all, 0);
    return all;
  }
  /// 16 hexadecimal digits.
  std::string text() const {
    std::string out;
    for (int shift = 60; shift >= 0; shift -= 4) out += "0123456789abcdef"[(value() >> shift) & 15];
    return out;
  }

 private:
  static void mix(std::uint64_t& state, std::uint64_t word) {
    state = (state ^ word) * 0xD6E8FEB86659FD93u;  // odd, with bits of no pattern
    state ^= state >> 32;
  }
  std::array<std::uint64_t, 4> lanes_{1, 2, 3, 4};
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
