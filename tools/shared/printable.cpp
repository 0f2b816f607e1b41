#include "printable.hpp"

#include <cstdio>

#include <anybit/io/detail/utf8.hpp>

namespace tool {

std::string utf8(std::string_view text) { return anybit::io::detail::to_utf8(text); }

std::string printable(std::string_view text) {
  namespace detail = anybit::io::detail;
  std::string out;
  while (!text.empty()) {
    const auto c = detail::decode_utf8(text);
    if ((c.code_point >= 0x20 && c.code_point < 0x7F) || c.code_point > 0x9F || c.code_point == '\n' || c.code_point == '\t') {
      out += c.valid ? text.substr(0, c.bytes) : detail::replacement_character;
    } else {
      char escaped[12];  // "\x", at most eight digits, the closing zero
      std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned>(c.code_point));
      out += escaped;
    }
    text.remove_prefix(c.bytes);
  }
  return out;
}

}  // namespace tool
