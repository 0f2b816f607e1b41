#pragma once
// Numbers as text that reads back as the same number.

#include <array>
#include <charconv>
#include <string>

#include <anybit/core/config.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {
namespace detail {

/// The shortest decimal text that reads back as the same number.
template <class Number>
std::string number_text(Number n) {
  std::array<char, 32> out{};
  return {out.data(), std::to_chars(out.data(), out.data() + out.size(), n).ptr};
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::model
