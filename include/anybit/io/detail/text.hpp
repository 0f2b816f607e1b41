#pragma once
// Error messages from parts, and untrusted names made harmless for a terminal.

#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>

#include <anybit/core/config.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {
namespace detail {

inline void append_text(std::string& to, std::string_view piece) { to += piece; }
template <class Number>
  requires(std::integral<Number> || std::floating_point<Number>)
void append_text(std::string& to, Number n) {
  to += std::to_string(n);
}

/// Strings and numbers, one after the other.
template <class... Pieces>
std::string text(const Pieces&... pieces) {
  std::string all;
  (append_text(all, pieces), ...);
  return all;
}

/// A message shows this many bytes of a name that a file supplied.
inline constexpr std::size_t shown_bytes = 80;

/// The start of a name that a file supplied. Bytes other than printable ASCII are written as \xNN, so that the message stays on
/// one line and cannot control a terminal.
inline std::string escaped(std::string_view untrusted) {
  constexpr std::string_view hex = "0123456789abcdef";
  std::string out;
  for (const char c : untrusted.substr(0, shown_bytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7F) {
      out += c;
    } else {
      out += "\\x";
      out += hex[byte >> 4];
      out += hex[byte & 15];
    }
  }
  return out;
}
/// What follows escaped() in a message: "..." if the name is longer.
inline std::string_view mark_of_cut(std::string_view untrusted) { return untrusted.size() > shown_bytes ? "..." : ""; }

/// A name that a file supplied, escaped and in quotes.
inline std::string shown(std::string_view untrusted) { return text("'", escaped(untrusted), "'", mark_of_cut(untrusted)); }

/// The folder that a path names its file in, with the separator at the end; empty if it names none. (<filesystem> would cost
/// everyone who includes a reader much compile time.)
inline std::string folder_of(std::string_view path) {
#if defined(_WIN32)
  const std::size_t end = path.find_last_of("/\\");
#else
  const std::size_t end = path.rfind('/');
#endif
  return std::string(path.substr(0, end == std::string_view::npos ? 0 : end + 1));
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::io
