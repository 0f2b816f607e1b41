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

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>

#include <anybit/core/types.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

inline constexpr Index line_bytes = 64;

/// Steps and lines of the smallest stretch that is whole in both.
constexpr Index unit_steps(int bits) { return 8 / std::gcd(bits, 8); }
constexpr Index unit_lines(int bits) { return bits / std::gcd(bits, 8); }

namespace detail {

/// Bits from .. from + count - 1 of a byte of a line are bits `to` and up of a code.
struct CodeField {
  int line = 0, from = 0, to = 0, count = 0;
  constexpr int mask() const { return ((1 << count) - 1) << to; }
};
struct CodeFields {
  int count = 0;
  std::array<CodeField, 8> at{};
};
/// Where the codes of a unit's step are.
constexpr CodeFields code_fields(int bits, int step) {
  const int lines = static_cast<int>(unit_lines(bits)), whole = 8 / bits, top = 8 % bits;
  CodeFields f;
  if (step < lines * whole) {
    f.at[0] = {step / whole, step % whole * bits, 0, bits};
    f.count = 1;
    return f;
  }
  int bit = (step - lines * whole) * bits;  // of all the tops
  for (int to = 0; to < bits;) {
    const int in_top = bit % top, count = std::min(top - in_top, bits - to);
    f.at[static_cast<std::size_t>(f.count++)] = {bit / top, 8 - top + in_top, to, count};
    bit += count, to += count;
  }
  return f;
}

}  // namespace detail

/// Puts the 64 codes of step `step` into a unit where their bits are still 0.
inline void write_codes(int bits, int step, const std::uint8_t* codes, std::byte* unit) {
  const detail::CodeFields all = detail::code_fields(bits, step);
  for (int i = 0; i < all.count; ++i) {
    const detail::CodeField f = all.at[static_cast<std::size_t>(i)];
    auto* line = reinterpret_cast<std::uint8_t*>(unit + f.line * line_bytes);
    for (Index j = 0; j < line_bytes; ++j)
      line[j] = static_cast<std::uint8_t>(line[j] | ((codes[j] & f.mask()) >> f.to << f.from));
  }
}

template <int Bits>
struct CodeLines {
  static_assert(Bits >= 1 && Bits <= 8);
  static constexpr int steps = static_cast<int>(unit_steps(Bits)), lines = static_cast<int>(unit_lines(Bits));
  static constexpr Index bytes = lines * line_bytes;

  /// The bit of a line's bytes from which code `step` lies there whole, as far as it does; else 0.
  static constexpr int position(int step) {
    const detail::CodeFields all = detail::code_fields(Bits, step);
    return all.count == 1 ? all.at[0].from : 0;
  }

  /// Code `Step` of a unit, times 2^Up, as 64 bytes. From its position up it takes no shift. Arch is a vocabulary of
  /// kernel/dot_vocabulary.hpp.
  template <class Arch, int Step, int Up = 0>
  static ANYBIT_INLINE typename Arch::Bytes read(const std::byte* unit) {
    static_assert(0 <= Up && Up + Bits <= 8);
    constexpr detail::CodeFields all = detail::code_fields(Bits, Step);
    const auto line = [unit](const detail::CodeField& f) __attribute__((always_inline)) {
      return Arch::load_bytes(reinterpret_cast<const std::uint8_t*>(unit + f.line * line_bytes));
    };
    auto code = Arch::template field<all.at[0].from - all.at[0].to - Up, (all.at[0].mask() << Up)>(line(all.at[0]));
    [&]<std::size_t... I>(std::index_sequence<I...>) __attribute__((always_inline)) {
      ((code = Arch::template add_field<all.at[I + 1].from - all.at[I + 1].to - Up, (all.at[I + 1].mask() << Up)>(
            code, line(all.at[I + 1]))),
       ...);
    }(std::make_index_sequence<static_cast<std::size_t>(all.count - 1)>());
    return code;
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
