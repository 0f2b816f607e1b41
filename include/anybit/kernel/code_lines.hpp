#pragma once
// The order of codes in the kernel layout. Codes of 16 rows by 4 columns, 64 of them, are a step; byte i of a line of 64
// bytes holds bits of code i of several steps. So a step comes out of its lines with a shift and a mask or two, for all 64
// codes at once, on any instruction set, and every line is read once, from an aligned address.
//
// A byte of a line holds as many codes as fit whole, from bit 0 up. The bits left at the tops of a unit's lines, from line 0's
// lowest on, hold the last steps. Steps are a, b, .. here, bit 7 stands on the left:
//
//   bits  steps  lines   a byte of the lines
//   1     8      1       h g f e d c b a
//   2     4      1       dd cc bb aa
//   3     8      3       gg bbb aaa | h g ddd ccc | hh fff eee
//   4     2      1       bbbb aaaa
//   5     8      5       fff aaaaa | g ff bbbbb | ggg ccccc | hh g ddddd | hhh eeeee
//   6     4      3       dd aaaaaa | dd bbbbbb | dd cccccc
//   7     8      7       h aaaaaaa | h bbbbbbb | .. | h ggggggg
//   8     1      1       aaaaaaaa

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>

#include <anybit/core/types.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

inline constexpr Index line_bytes = 64;

/// Steps and lines of the smallest stretch that is whole in both.
constexpr Index unit_steps(int bits) { return 8 / std::gcd(bits, 8); }
constexpr Index unit_lines(int bits) { return bits / std::gcd(bits, 8); }

template <int Bits>
struct CodeLines {
  static_assert(Bits >= 1 && Bits <= 8);
  static constexpr int steps = static_cast<int>(unit_steps(Bits)), lines = static_cast<int>(unit_lines(Bits));
  static constexpr Index bytes = lines * line_bytes;

  /// Code `Step` of a unit as 64 bytes. Arch is a vocabulary of kernel/arch.hpp.
  template <class Arch, int Step>
  static ANYBIT_INLINE typename Arch::Bytes read(const std::byte* unit) {
    constexpr Fields all = fields(Step);
    const auto line = [unit](const Field& f) __attribute__((always_inline)) {
      return Arch::load_bytes(reinterpret_cast<const std::uint8_t*>(unit + f.line * line_bytes));
    };
    auto code = Arch::template field<all.at[0].from - all.at[0].to, all.at[0].mask()>(line(all.at[0]));
    [&]<std::size_t... I>(std::index_sequence<I...>) __attribute__((always_inline)) {
      ((code = Arch::template add_field<all.at[I + 1].from - all.at[I + 1].to, all.at[I + 1].mask()>(code, line(all.at[I + 1]))),
       ...);
    }
    (std::make_index_sequence<static_cast<std::size_t>(all.count - 1)>());
    return code;
  }

  /// Puts the 64 codes of step `step` into a unit where their bits are still 0.
  static void write(int step, const std::uint8_t* codes, std::byte* unit) {
    const Fields all = fields(step);
    for (int i = 0; i < all.count; ++i) {
      const Field f = all.at[static_cast<std::size_t>(i)];
      auto* line = reinterpret_cast<std::uint8_t*>(unit + f.line * line_bytes);
      for (Index j = 0; j < line_bytes; ++j)
        line[j] = static_cast<std::uint8_t>(line[j] | ((codes[j] & f.mask()) >> f.to << f.from));
    }
  }

 private:
  /// Bits from .. from + count - 1 of a byte of a line are bits `to` and up of the code.
  struct Field {
    int line = 0, from = 0, to = 0, count = 0;
    constexpr int mask() const { return ((1 << count) - 1) << to; }
  };
  struct Fields {
    int count = 0;
    std::array<Field, 8> at{};
  };
  static constexpr Fields fields(int step) {
    constexpr int whole = 8 / Bits, top = 8 % Bits;
    Fields f;
    if (step < lines * whole) {
      f.at[0] = {step / whole, step % whole * Bits, 0, Bits};
      f.count = 1;
      return f;
    }
    if constexpr (top > 0) {
      int bit = (step - lines * whole) * Bits;  // of all the tops
      for (int to = 0; to < Bits;) {
        const int in_top = bit % top, count = std::min(top - in_top, Bits - to);
        f.at[static_cast<std::size_t>(f.count++)] = {bit / top, 8 - top + in_top, to, count};
        bit += count, to += count;
      }
    }
    return f;
  }
};

}  // namespace anybit::kernel::inline ANYBIT_CODE
