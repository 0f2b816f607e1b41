#pragma once
// Text from files and command lines, made fit for a terminal, for JSON and for XML.

#include <string>
#include <string_view>

namespace tool {

/// UTF-8: every byte that belongs to no character becomes U+FFFD.
std::string utf8(std::string_view text);

/// utf8(), and control characters other than line breaks and tabs as \xNN: nothing in it moves a cursor or sets a colour.
std::string printable(std::string_view text);

}  // namespace tool
