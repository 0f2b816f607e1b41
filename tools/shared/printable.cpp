#include "printable.hpp"

#include <cstdio>

#include <anybit/model/tokenizer/unicode.hpp>

namespace tool {

namespace {

/// each(bytes of one character, its code point), with U+FFFD for what is none.
template <class Each>
void for_each_character(std::string_view text, Each each) {
  while (!text.empty()) {
    const auto c = anybit::model::decode_utf8(text);
    if (c.valid)
      each(text.substr(0, c.bytes), c.code_point);
    else
      each("\xEF\xBF\xBD", U'\uFFFD');
    text.remove_prefix(c.bytes);
  }
}

}  // namespace

std::string utf8(std::string_view text) {
  std::string out;
  for_each_character(text, [&](std::string_view bytes, char32_t) { out += bytes; });
  return out;
}

std::string printable(std::string_view text) {
  std::string out;
  for_each_character(text, [&](std::string_view bytes, char32_t c) {
    if ((c >= 0x20 && c < 0x7F) || c > 0x9F || c == '\n' || c == '\t') {
      out += bytes;
      return;
    }
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned>(c));
    out += escaped;
  });
  return out;
}

}  // namespace tool
