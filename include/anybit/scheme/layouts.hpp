#pragma once
// The library's layouts: BitStream for any width, Base3 for ternary codes. These bodies are the definition;
// tensor/unpack.hpp has the fast ones.

#include <anybit/scheme/layout.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Codes LSB first, one after the other, without gaps inside a row.
struct BitStream {
  static constexpr auto name = FixedString("bits");
  static constexpr Index granule = 8;
  template <int Bits>
  static constexpr Index packed_bytes(Index n) {
    return ceil_div(n * Bits, 8);
  }

  template <int Bits>
  static ANYBIT_INLINE void pack(std::span<const StoredCode<Bits>> codes, std::byte* out) {
    std::uint32_t window = 0;
    int filled = 0;
    for (const auto c : codes) {
      window |= static_cast<std::uint32_t>(c) << filled;
      for (filled += Bits; filled >= 8; filled -= 8, window >>= 8) *out++ = static_cast<std::byte>(window & 0xFF);
    }
    if (filled > 0) *out = static_cast<std::byte>(window & 0xFF);
  }
  template <int Bits>
  static ANYBIT_INLINE void unpack(const std::byte* in, Index, Index first, std::span<StoredCode<Bits>> out) {
    const std::byte* p = in + first * Bits / 8;
    std::uint32_t window = 0;
    int filled = 0;
    for (auto& c : out) {
      for (; filled < Bits; filled += 8) window |= std::to_integer<std::uint32_t>(*p++) << filled;
      c = static_cast<StoredCode<Bits>>(window & ((1u << Bits) - 1));
      window >>= Bits;
      filled -= Bits;
    }
  }
};

/// Five codes 0, 1, 2 in a byte: byte = ((((c0 * 3 + c1) * 3 + c2) * 3 + c3) * 3 + c4 (8/5 bits a code). A short last byte is
/// filled with zeros.
struct Base3 {
  static constexpr auto name = FixedString("base3");
  static constexpr Index granule = 5;
  template <int Bits>
  static constexpr Index packed_bytes(Index n) {
    static_assert(Bits == 2, "anybit: the Base3 layout packs ternary codes only (2 bits, values 0 to 2)");
    return ceil_div(n, 5);
  }
  template <int Bits>
  static ANYBIT_INLINE void pack(std::span<const StoredCode<Bits>> codes, std::byte* out) {
    for (std::size_t i = 0; i < codes.size(); i += 5) {
      unsigned b = 0;
      for (std::size_t j = 0; j < 5; ++j) b = b * 3 + (i + j < codes.size() ? codes[i + j] : 0u);
      *out++ = static_cast<std::byte>(b);
    }
  }
  template <int Bits>
  static ANYBIT_INLINE void unpack(const std::byte* in, Index, Index first, std::span<StoredCode<Bits>> out) {
    const std::byte* p = in + first / 5;
    for (std::size_t i = 0; i < out.size(); i += 5) {
      unsigned b = std::to_integer<unsigned>(*p++);
      for (std::size_t j = 5; j-- > 0; b /= 3)
        if (i + j < out.size()) out[i + j] = static_cast<StoredCode<Bits>>(b % 3);
    }
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
