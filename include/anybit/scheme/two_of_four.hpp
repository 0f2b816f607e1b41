#pragma once
// A layout for 2:4 sparse codes: it stores the two codes that may differ from zero, and their places among the four.

#include <array>

#include <anybit/core/fixed_string.hpp>
#include <anybit/scheme/layout.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// The two columns of four that each pattern keeps. Three bits say which of the six it is; two bits a column, as GPUs have it,
/// would take a quarter bit more for every weight. Patterns 6 and 7 are never written and read as 5.
inline constexpr std::array<std::array<std::uint8_t, 2>, 8> two_of_four_patterns{
    {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}, {2, 3}, {2, 3}}};

/// Four columns are one field of 2 Bits + 3 bits: both codes, each xor Zero, then the pattern; fields stand LSB first without
/// gaps. A last field of fewer columns has the same width. Zero is the code that pruned weights have.
/// With 4 bits that is 11/4 = 2.75 bits a weight.
template <int Zero = 0>
struct TwoOfFour {
  static constexpr auto name = [] {
    if constexpr (Zero == 0)
      return FixedString("2of4");
    else
      return "2of4z" + decimal<Zero>();
  }();
  static constexpr Code zero_code = Zero;
  static constexpr Index granule = 32;
  template <int Bits>
  static constexpr int field_bits = 2 * Bits + 3;

  template <int Bits>
  static constexpr Index packed_bytes(Index n) {
    return ceil_div(ceil_div(n, 4) * field_bits<Bits>, 8);
  }
  /// The first code that has two others in its four columns before it, or -1 if pack() can hold them all.
  template <int Bits>
  static ANYBIT_INLINE Index misfit(std::span<const StoredCode<Bits>> codes) {
    for (std::size_t i = 0, left = 0; i < codes.size(); ++i) {
      if (i % 4 == 0) left = 0;
      left += codes[i] != Zero;
      if (left > 2) return static_cast<Index>(i);
    }
    return -1;
  }
  template <int Bits>
  static ANYBIT_INLINE void pack(std::span<const StoredCode<Bits>> codes, std::byte* out) {
    std::uint64_t window = 0;
    int filled = 0;
    for (std::size_t i = 0; i < codes.size(); i += 4) {
      const std::size_t n = codes.size() - i < 4 ? codes.size() - i : 4;
      unsigned four[4] = {}, kept = 0;
      for (std::size_t j = 0; j < n; ++j) {
        four[j] = static_cast<unsigned>(codes[i + j]) ^ Zero;
        kept |= (four[j] != 0 ? 1u : 0u) << j;
      }
      // The first pattern that has all columns of `kept`.
      unsigned p = 0;
      while (p < 6 && (kept & ~(1u << two_of_four_patterns[p][0] | 1u << two_of_four_patterns[p][1])) != 0) ++p;
      ANYBIT_CHECK(p < 6,
                   "the layout TwoOfFour holds two codes of every four columns, and these are more: prune with "
                   "Sparsity::n_of_m(2, 4) first (check_packable() says where)");
      window |= (std::uint64_t{four[two_of_four_patterns[p][0]]} | std::uint64_t{four[two_of_four_patterns[p][1]]} << Bits |
                 std::uint64_t{p} << (2 * Bits))
                << filled;
      for (filled += field_bits<Bits>; filled >= 8; filled -= 8, window >>= 8) *out++ = static_cast<std::byte>(window & 0xFF);
    }
    if (filled > 0) *out = static_cast<std::byte>(window & 0xFF);
  }
  template <int Bits>
  static ANYBIT_INLINE void unpack(const std::byte* in, Index, Index first, std::span<StoredCode<Bits>> out) {
    constexpr std::uint64_t code_mask = (std::uint64_t{1} << Bits) - 1;
    const std::byte* p = in + first / 32 * field_bits<Bits>;
    std::uint64_t window = 0;
    int filled = 0;
    for (std::size_t i = 0; i < out.size(); i += 4) {
      for (; filled < field_bits<Bits>; filled += 8) window |= std::to_integer<std::uint64_t>(*p++) << filled;
      const auto& columns = two_of_four_patterns[window >> (2 * Bits) & 7];
      std::uint64_t four[4] = {Zero, Zero, Zero, Zero};
      four[columns[0]] = (window & code_mask) ^ Zero;
      four[columns[1]] = (window >> Bits & code_mask) ^ Zero;
      for (std::size_t j = 0; j < 4 && i + j < out.size(); ++j) out[i + j] = static_cast<StoredCode<Bits>>(four[j]);
      window >>= field_bits<Bits>;
      filled -= field_bits<Bits>;
    }
  }
};

/// For a format whose code of 0 is not 0 (Nf4, Ternary).
template <Format F>
using TwoOfFourFor = TwoOfFour<static_cast<int>(F::encode(0))>;

template <class L>
constexpr bool is_two_of_four_v = false;
template <int Zero>
constexpr bool is_two_of_four_v<TwoOfFour<Zero>> = true;

}  // namespace ANYBIT_ABI
}  // namespace anybit
