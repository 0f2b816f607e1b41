#pragma once
// Properties of code points that the patterns of tokenizers ask for.

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <string_view>

#include <anybit/core/config.hpp>
#include <anybit/io/detail/utf8.hpp>
#include <anybit/model/tokenizer/unicode_table.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

using io::detail::decode_utf8, io::detail::DecodedChar;

/// General categories of Unicode. Control characters that are white space (tab, line breaks, U+0085) are a category of their own
/// here, so that every property below is a set of categories.
enum class Category : std::uint8_t {
  // clang-format off
  Lu, Ll, Lt, Lm, Lo, Mn, Mc, Me, Nd, Nl, No, Pc, Pd, Ps, Pe, Pi, Pf, Po, Sm, Sc, Sk, So, Zs, Zl, Zp, Cc, Cf, Cs, Co, Cn,
  // clang-format on
  control_space,
};

namespace detail {

constexpr bool control_space(char32_t c) { return (c >= 0x09 && c <= 0x0D) || c == 0x85; }

constexpr Category look_up_category(char32_t c) {
  if (control_space(c)) return Category::control_space;
  const auto* const after = std::upper_bound(std::begin(category_runs), std::end(category_runs), c << 5 | 31u);
  const std::uint32_t run = *std::prev(after), kind = run & 31u;
  if (kind < 30) return static_cast<Category>(kind);
  return ((c - (run >> 5)) & 1u) == kind - 30 ? Category::Lu : Category::Ll;
}

inline constexpr auto ascii_categories = [] {
  std::array<Category, 128> out{};
  for (char32_t c = 0; c < 128; ++c) out[c] = look_up_category(c);
  return out;
}();

}  // namespace detail

/// Cn, like every code point that Unicode has not assigned, above U+10FFFF.
constexpr Category category(char32_t c) {
  if (c < 128) return detail::ascii_categories[c];
  return c > 0x10FFFF ? Category::Cn : detail::look_up_category(c);
}

/// Bit i stands for category i.
using CategorySet = std::uint32_t;

template <class... Categories>
constexpr CategorySet categories(Categories... c) {
  return (CategorySet{0} | ... | (CategorySet{1} << static_cast<int>(c)));
}
constexpr bool contains(CategorySet set, Category c) { return (set >> static_cast<int>(c) & 1u) != 0; }

/// The set that a regular expression calls \p{name}: "L", "Lu", ...; 0 for an unknown name.
constexpr CategorySet category_set(std::string_view name) {
  constexpr std::string_view names = "LuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCoCn";
  if (name.empty() || name.size() > 2) return 0;
  CategorySet out = 0;
  for (std::size_t i = 0; i < names.size(); i += 2)
    if (names[i] == name[0] && (name.size() == 1 || names[i + 1] == name[1])) out |= CategorySet{1} << (i / 2);
  return contains(out, Category::Cc) ? out | categories(Category::control_space) : out;
}

/// The property White_Space.
inline constexpr CategorySet white_space_set = category_set("Z") | categories(Category::control_space);

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
