#pragma once
// Canonical normalization (NFC, NFD; Unicode Standard Annex 15), lower case and the removal of accents. Bytes that are not UTF-8
// stay as they are and combine with nothing.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/stable_sort.hpp>
#include <anybit/model/tokenizer/unicode.hpp>
#include <anybit/model/tokenizer/unicode_normalization_table.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// `c` in UTF-8 behind `to`.
inline void append_utf8(std::string& to, char32_t c) {
  if (c < 0x80) {
    to += static_cast<char>(c);
    return;
  }
  const int tails = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  constexpr unsigned char leads[] = {0, 0xC0, 0xE0, 0xF0};
  to += static_cast<char>(leads[tails] | c >> (6 * tails));
  for (int i = tails - 1; i >= 0; --i) to += static_cast<char>(0x80u | (c >> (6 * i) & 0x3Fu));
}

namespace detail {

/// The algorithm of Hangul syllables: a leading consonant, a vowel, and perhaps a trailing consonant.
struct Hangul {
  static constexpr char32_t syllables = 0xAC00, leading = 0x1100, vowels = 0x1161, trailing = 0x11A7;
  static constexpr char32_t leading_count = 19, vowel_count = 21, trailing_count = 28;
  static constexpr char32_t per_leading = vowel_count * trailing_count, count = leading_count * per_leading;
};

inline unsigned combining_class(char32_t c) {
  if (c < 0x300) return 0;
  const auto* const after = std::upper_bound(std::begin(combining_class_runs), std::end(combining_class_runs), c << 8 | 255u);
  return *std::prev(after) & 255u;
}

/// The entry of canonical_decompositions for `c`, or 0.
inline std::uint64_t decomposition_of(char32_t c) {
  constexpr std::uint64_t code_point = std::uint64_t{0x1FFFFF} << 42;
  const auto* const found =
      std::lower_bound(std::begin(canonical_decompositions), std::end(canonical_decompositions), std::uint64_t{c} << 42,
                       [&](std::uint64_t entry, std::uint64_t key) { return (entry & code_point) < key; });
  const bool there = found != std::end(canonical_decompositions) && (*found & code_point) == std::uint64_t{c} << 42;
  return there ? *found : 0;
}
constexpr char32_t first_part(std::uint64_t entry) { return static_cast<char32_t>(entry >> 21 & 0x1FFFFFu); }
constexpr char32_t second_part(std::uint64_t entry) { return static_cast<char32_t>(entry & 0x1FFFFFu); }

inline void append_decomposed(std::vector<char32_t>& to, char32_t c) {
  using H = Hangul;
  if (c >= H::syllables && c < H::syllables + H::count) {
    const char32_t s = c - H::syllables;
    to.push_back(H::leading + s / H::per_leading);
    to.push_back(H::vowels + s % H::per_leading / H::trailing_count);
    if (s % H::trailing_count != 0) to.push_back(H::trailing + s % H::trailing_count);
    return;
  }
  const std::uint64_t entry = c < 0xC0 ? 0 : decomposition_of(c);
  if (entry == 0) return to.push_back(c);
  append_decomposed(to, first_part(entry));  // entries name code points that decompose further, a few levels deep
  if (second_part(entry) != 0) append_decomposed(to, second_part(entry));
}

/// Tables for composing, made at the first use.
struct Composition {
  std::vector<std::pair<std::uint64_t, char32_t>> pairs;  ///< first << 21 | second, and their composition
  /// Code points below 0x30000 that NFC may change or join with the one before; the others of Unicode are none of these.
  std::bitset<0x30000> may_change;

  Composition() {
    for (const std::uint64_t entry : canonical_decompositions) {
      const auto c = static_cast<char32_t>(entry >> 42 & 0x1FFFFFu);
      if (entry >> 63 != 0) {
        pairs.emplace_back(entry & 0x3FFFFFFFFFFu, c);
        may_change.set(second_part(entry));
      } else {
        may_change.set(c);
      }
    }
    std::sort(pairs.begin(), pairs.end());
    for (std::size_t i = 0; i < std::size(combining_class_runs); ++i)
      if ((combining_class_runs[i] & 255u) != 0)
        for (char32_t c = combining_class_runs[i] >> 8; c < combining_class_runs[i + 1] >> 8; ++c) may_change.set(c);
    for (char32_t i = 0; i < Hangul::vowel_count; ++i) may_change.set(Hangul::vowels + i);
    for (char32_t i = 1; i < Hangul::trailing_count; ++i) may_change.set(Hangul::trailing + i);
  }
  static const Composition& get() {
    static const auto made = std::make_unique<const Composition>();
    return *made;
  }

  /// 0 where they do not compose.
  char32_t compose(char32_t first, char32_t second) const {
    using H = Hangul;
    if (first >= H::leading && first < H::leading + H::leading_count && second >= H::vowels &&
        second < H::vowels + H::vowel_count)
      return H::syllables + (first - H::leading) * H::per_leading + (second - H::vowels) * H::trailing_count;
    if (first >= H::syllables && first < H::syllables + H::count && (first - H::syllables) % H::trailing_count == 0 &&
        second > H::trailing && second < H::trailing + H::trailing_count)
      return first + (second - H::trailing);
    const std::uint64_t key = std::uint64_t{first} << 21 | second;
    const auto found = std::lower_bound(pairs.begin(), pairs.end(), std::pair{key, char32_t{0}});
    return found != pairs.end() && found->first == key ? found->second : 0;
  }

  /// Whether NFC leaves `text` alone for certain.
  bool surely_composed(std::string_view text) const {
    for (std::size_t at = 0; at < text.size();) {
      if (static_cast<unsigned char>(text[at]) < 0xCC) {  // below U+0300
        ++at;
        continue;
      }
      const DecodedChar c = decode_utf8(text.substr(at));
      if (c.valid && c.code_point < may_change.size() && may_change[c.code_point]) return false;
      at += c.bytes;
    }
    return true;
  }
};

/// A code point no text has, for a byte that is not UTF-8.
inline constexpr char32_t raw_byte = 0x200000;

/// Decomposed, with combining marks in their order.
inline std::vector<char32_t> decomposed(std::string_view text) {
  std::vector<char32_t> out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_utf8(text.substr(at));
    c.valid ? append_decomposed(out, c.code_point) : out.push_back(raw_byte | static_cast<unsigned char>(text[at]));
    at += c.bytes;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (combining_class(out[i]) == 0) continue;
    std::size_t end = i + 1;
    while (end < out.size() && combining_class(out[end]) != 0) ++end;
    const auto at = [&](std::size_t k) { return out.begin() + static_cast<std::ptrdiff_t>(k); };
    anybit::stable_sort(at(i), at(end), [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
    i = end - 1;
  }
  return out;
}

inline std::string encode_utf8(const std::vector<char32_t>& code_points) {
  std::string out;
  out.reserve(code_points.size());
  for (const char32_t c : code_points)
    c >= raw_byte ? static_cast<void>(out += static_cast<char>(c & 255u)) : append_utf8(out, c);
  return out;
}

/// In place; `text` is decomposed.
inline void compose(std::vector<char32_t>& text) {
  const Composition& table = Composition::get();
  std::size_t starter = text.size(), to = 0;  // starter: the last character of class 0 that is written already
  unsigned before = 0;                        // class of the last one that stayed behind the starter
  for (const char32_t c : std::vector<char32_t>(text)) {
    const unsigned own = combining_class(c);
    const bool adjacent = starter != text.size() && starter + 1 == to;
    if (starter != text.size() && (adjacent || (before != 0 && before < own))) {
      if (const char32_t joint = table.compose(text[starter], c); joint != 0) {
        text[starter] = joint;
        continue;
      }
    }
    if (own == 0) starter = to;
    before = own;
    text[to++] = c;
  }
  text.resize(to);
}

}  // namespace detail

inline std::string to_nfd(std::string_view text) { return detail::encode_utf8(detail::decomposed(text)); }

inline std::string to_nfc(std::string_view text) {
  if (detail::Composition::get().surely_composed(text)) return std::string(text);
  std::vector<char32_t> code_points = detail::decomposed(text);
  detail::compose(code_points);
  return detail::encode_utf8(code_points);
}

/// The small letter of one code point, without regard to its neighbours. (U+0130 has two; see to_lowercase().)
inline char32_t lowercase(char32_t c) {
  if (c < 0x80) return c >= U'A' && c <= U'Z' ? c + 32 : c;
  const auto* const run = std::lower_bound(std::begin(detail::lowercase_runs), std::end(detail::lowercase_runs), c,
                                           [](const detail::LowercaseRun& r, char32_t key) { return r.last < key; });
  if (run == std::end(detail::lowercase_runs) || c < run->first || (c - run->first) % static_cast<char32_t>(run->stride) != 0)
    return c;
  return static_cast<char32_t>(static_cast<std::int32_t>(c) + run->delta);
}

namespace detail {

/// `change(std::string& to, char32_t c)` for each character; bytes that are not UTF-8 are copied.
template <class Change>
std::string map_characters(std::string_view text, Change&& change) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_utf8(text.substr(at));
    c.valid ? static_cast<void>(change(out, c.code_point)) : static_cast<void>(out += text[at]);
    at += c.bytes;
  }
  return out;
}

}  // namespace detail

inline std::string to_lowercase(std::string_view text) {
  return detail::map_characters(text, [](std::string& to, char32_t c) {
    if (c == 0x130) return static_cast<void>(to += "i\xCC\x87");  // an i and a dot above
    append_utf8(to, lowercase(c));
  });
}

/// Without characters of these categories. Of accents only those go that stand apart, see to_nfd().
inline std::string without(CategorySet categories, std::string_view text) {
  return detail::map_characters(text, [&](std::string& to, char32_t c) {
    if (!contains(categories, category(c))) append_utf8(to, c);
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
