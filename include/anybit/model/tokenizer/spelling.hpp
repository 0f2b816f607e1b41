#pragma once
// How vocabularies spell bytes and spaces: GPT-2's alphabet for bytes, "<0xFF>", and U+2581.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include <anybit/model/tokenizer/unicode.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {
namespace detail {

/// GPT-2's printable stand-ins for bytes: the printable Latin-1 characters stand for themselves, the other 68 bytes for
/// U+0100 onwards in their order.
constexpr std::array<char32_t, 256> byte_alphabet() {
  std::array<char32_t, 256> out{};
  char32_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    out[b] = printable ? b : next++;
  }
  return out;
}

/// The bytes that `spelled` stands for; nothing if a character is outside the alphabet.
inline std::optional<std::string> from_byte_alphabet(std::string_view spelled) {
  constexpr auto bytes_of = [] {
    std::array<int, 0x144> inverse{};
    for (int& b : inverse) b = -1;
    for (unsigned b = 0; b < 256; ++b) inverse[byte_alphabet()[b]] = static_cast<int>(b);
    return inverse;
  }();
  std::string out;
  for (std::size_t at = 0; at < spelled.size();) {
    const DecodedChar c = decode_utf8(spelled.substr(at));
    if (!c.valid || c.code_point >= bytes_of.size() || bytes_of[c.code_point] < 0) return std::nullopt;
    out += static_cast<char>(bytes_of[c.code_point]);
    at += c.bytes;
  }
  return out;
}

/// The value of "<0xFF>", or -1.
inline int byte_token(std::string_view t) {
  if (t.size() != 6 || !t.starts_with("<0x") || t[5] != '>') return -1;
  int value = 0;
  for (const char c : t.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/// Every `from`, which is not empty, becomes `to`, from the left.
inline void replace_all(std::string& s, std::string_view from, std::string_view to) {
  std::size_t at = s.find(from);
  if (at == std::string::npos) return;
  std::string out;
  std::size_t done = 0;
  for (; at != std::string::npos; at = s.find(from, done)) {
    out.append(s, done, at - done).append(to);
    done = at + from.size();
  }
  s = out.append(s, done);
}

inline constexpr std::string_view escaped_space = "\xE2\x96\x81";  // U+2581

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
