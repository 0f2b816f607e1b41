#pragma once
// UTF-8 in files: reading one character at a time, a check, and a repair.

#include <cstddef>
#include <string>
#include <string_view>

#include <anybit/core/config.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {
namespace detail {

struct DecodedChar {
  char32_t code_point = 0;
  std::size_t bytes = 1;
  bool valid = true;
};

/// The character at the start of non-empty `s`. A byte that starts no well-formed UTF-8 sequence (overlong forms,
/// surrogates, values above U+10FFFF and cut sequences included) is one invalid character of one byte, U+FFFD.
constexpr DecodedChar decode_utf8(std::string_view s) {
  constexpr DecodedChar invalid{0xFFFD, 1, false};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  const std::size_t bytes = lead < 0xC2 || lead >= 0xF5 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (bytes == 0 || s.size() < bytes) return invalid;
  char32_t c = lead & (0x7Fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xC0u) != 0x80u) return invalid;
    c = c << 6 | (byte(i) & 0x3Fu);
  }
  constexpr char32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (c < smallest[bytes] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return invalid;
  return {c, bytes, true};
}

inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";  // U+FFFD

/// True if every character of `s` is well-formed.
inline bool is_utf8(std::string_view s) {
  while (!s.empty()) {
    const DecodedChar c = decode_utf8(s);
    if (!c.valid) return false;
    s.remove_prefix(c.bytes);
  }
  return true;
}

/// `s` with U+FFFD in the place of every byte that is not UTF-8: names go into files whose format demands UTF-8.
inline std::string to_utf8(std::string_view s) {
  std::string out;
  while (!s.empty()) {
    const DecodedChar c = decode_utf8(s);
    out += c.valid ? s.substr(0, c.bytes) : replacement_character;
    s.remove_prefix(c.bytes);
  }
  return out;
}

/// A name out of a file, to be printed and drawn: to_utf8() with control characters as \xNN, so that no terminal obeys it.
inline std::string readable_name(std::string_view s) {
  constexpr std::string_view hex = "0123456789abcdef";
  std::string out;
  while (!s.empty()) {
    const DecodedChar c = decode_utf8(s);
    if (c.code_point < 0x20 || (c.code_point >= 0x7F && c.code_point < 0xA0)) {
      out += {'\\', 'x', hex[c.code_point >> 4], hex[c.code_point & 15]};
    } else {
      out += c.valid ? s.substr(0, c.bytes) : replacement_character;
    }
    s.remove_prefix(c.bytes);
  }
  return out;
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::io
