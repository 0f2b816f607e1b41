#pragma once
// A strict pull reader of JSON: the caller says which value must come next, so a safetensors header of a million tensors is
// never held as a tree (io/json.hpp makes one of a config.json). A JSON library would be a dependency of every engine that
// includes these headers, and would accept what safetensors forbids: keys that come twice, signs and fractions of sizes.

#include <anybit/core/macros_begin.hpp>

#include <charconv>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/detail/utf8.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {
namespace detail {

/// A pull reader: the caller says what must come next. The text outlives the reader and is UTF-8.
class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  /// `{ "key": value, ... }`: calls `member(std::string key)`, which reads the value and returns a Status. A key that
  /// comes twice is an error.
  template <class Member>
  Status object(Member&& member) {
    std::set<std::string> keys;
    ANYBIT_TRY_STATUS(expect('{'));
    if (accept('}')) return Ok{};
    do {
      ANYBIT_TRY(std::string key, string());
      if (!keys.insert(key).second) return fail("key " + shown(key) + " comes twice");
      ANYBIT_TRY_STATUS(expect(':'));
      ANYBIT_TRY_STATUS(member(std::move(key)));
    } while (accept(','));
    return expect('}');
  }

  /// `[ value, ... ]`: calls `element()` before each value.
  template <class Element>
  Status array(Element&& element) {
    ANYBIT_TRY_STATUS(expect('['));
    if (accept(']')) return Ok{};
    do ANYBIT_TRY_STATUS(element());
    while (accept(','));
    return expect(']');
  }

  Result<std::string> string() {
    ANYBIT_TRY_STATUS(expect('"'));
    std::string out;
    for (;;) {
      if (at_ == text_.size()) return fail("a string does not end");
      const char c = text_[at_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) return fail("a string holds a control character; escape it");
      if (c != '\\') {
        out += c;
        continue;
      }
      ANYBIT_TRY_STATUS(escape(out));
    }
  }

  Result<std::uint64_t> unsigned_integer() {
    skip_space();
    if (at_ == text_.size() || !digit(text_[at_])) return fail("a non-negative integer must stand here");
    if (text_[at_] == '0' && at_ + 1 < text_.size() && digit(text_[at_ + 1])) return fail("a number starts with 0");
    std::uint64_t value = 0;
    for (; at_ < text_.size() && digit(text_[at_]); ++at_) {
      const auto d = static_cast<std::uint64_t>(text_[at_] - '0');
      if (value > (std::numeric_limits<std::uint64_t>::max() - d) / 10) return fail("an integer exceeds 64 bits");
      value = value * 10 + d;
    }
    if (at_ < text_.size() && (text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E'))
      return fail("a non-negative integer must stand here, not a fraction");
    return value;
  }

  /// Any number as the nearest double; an error where that is infinite.
  Result<double> number() {
    skip_space();
    const std::size_t begin = at_;
    const auto digits = [&] {
      const std::size_t first = at_;
      while (at_ < text_.size() && digit(text_[at_])) ++at_;
      return at_ - first;
    };
    const auto bad = [&](std::string_view why) {
      at_ = begin;
      return fail(why);
    };
    if (at_ < text_.size() && text_[at_] == '-') ++at_;
    const bool zero = at_ < text_.size() && text_[at_] == '0';
    const std::size_t whole = digits();
    if (whole == 0) return bad("a number must stand here");
    if (zero && whole > 1) return bad("a number starts with 0");
    if (at_ < text_.size() && text_[at_] == '.') {
      ++at_;
      if (digits() == 0) return bad("a number ends with its point");
    }
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      ++at_;
      if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
      if (digits() == 0) return bad("an exponent has no digits");
    }
    double value = 0;
    const auto parsed = std::from_chars(text_.data() + begin, text_.data() + at_, value);
    // A number too close to 0 for a double is 0; from_chars leaves `value` alone then, and where it is too large.
    if (parsed.ec == std::errc::result_out_of_range && text_.substr(begin, at_ - begin).find("e-") == std::string_view::npos &&
        text_.substr(begin, at_ - begin).find("E-") == std::string_view::npos)
      return bad("a number exceeds the range of a double");
    return value;
  }

  /// `true` or `false`.
  Result<bool> boolean() {
    if (word("true")) return true;
    if (word("false")) return false;
    return fail("true or false must stand here");
  }

  /// True if `null` stands here, which is passed over then.
  bool null() { return word("null"); }

  /// The first character of the next value, which stays there; NUL at the end of the text.
  char next() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  /// Passes over any value, nested at most `depth` deep.
  template <class = void>
  Status skip_value(int depth = 32) {
    if (depth == 0) return fail("values are nested too deep");
    skip_space();
    if (at_ == text_.size()) return fail("a value is missing");
    switch (text_[at_]) {
      case '{': return object([&](const std::string&) { return skip_value(depth - 1); });
      case '[': return array([&] { return skip_value(depth - 1); });
      case '"': {
        ANYBIT_TRY_STATUS(string());
        return Ok{};
      }
      case 't':
      case 'f': {
        ANYBIT_TRY_STATUS(boolean());
        return Ok{};
      }
      case 'n': return null() ? Status(Ok{}) : Status(fail("a value must stand here"));
      default: break;
    }
    if (text_[at_] != '-' && !digit(text_[at_])) return fail("a value must stand here");
    ANYBIT_TRY_STATUS(number());
    return Ok{};
  }

  /// Only white space may follow.
  Status end() {
    skip_space();
    if (at_ != text_.size()) return fail("text follows the end of the object");
    return Ok{};
  }

  Error fail(std::string_view why) const { return {ErrorCode::corrupt_data, text("JSON at byte ", at_, ": ", why)}; }

 private:
  static bool digit(char c) { return c >= '0' && c <= '9'; }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
  }
  bool word(std::string_view w) {
    skip_space();
    if (!text_.substr(at_).starts_with(w)) return false;
    at_ += w.size();
    return true;
  }
  bool accept(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  Status expect(char c) {
    if (accept(c)) return Ok{};
    return fail(std::string("'") + c + "' must stand here");
  }

  Result<std::uint32_t> hex4() {
    if (text_.size() - at_ < 4) return fail("\\u needs four hexadecimal digits");
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = text_[at_++];
      const int d = digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (d < 0) return fail("\\u needs four hexadecimal digits");
      value = value * 16 + static_cast<std::uint32_t>(d);
    }
    return value;
  }

  Status escape(std::string& out) {
    if (at_ == text_.size()) return fail("a string does not end");
    switch (text_[at_++]) {
      case '"': out += '"'; return Ok{};
      case '\\': out += '\\'; return Ok{};
      case '/': out += '/'; return Ok{};
      case 'b': out += '\b'; return Ok{};
      case 'f': out += '\f'; return Ok{};
      case 'n': out += '\n'; return Ok{};
      case 'r': out += '\r'; return Ok{};
      case 't': out += '\t'; return Ok{};
      case 'u': break;
      default: return fail("unknown escape in a string");
    }
    ANYBIT_TRY(std::uint32_t point, hex4());
    if (point >= 0xDC00 && point < 0xE000) return fail("a low surrogate stands alone");
    if (point >= 0xD800 && point < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") return fail("a high surrogate stands alone");
      at_ += 2;
      ANYBIT_TRY(const std::uint32_t low, hex4());
      if (low < 0xDC00 || low >= 0xE000) return fail("a high surrogate stands alone");
      point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(out, point);
    return Ok{};
  }

  static void append_utf8(std::string& out, std::uint32_t p) {
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((p >> shift) & 0x3F)); };
    if (p < 0x80) {
      out += static_cast<char>(p);
    } else if (p < 0x800) {
      out += static_cast<char>(0xC0 | (p >> 6));
      tail(0);
    } else if (p < 0x10000) {
      out += static_cast<char>(0xE0 | (p >> 12));
      tail(6), tail(0);
    } else {
      out += static_cast<char>(0xF0 | (p >> 18));
      tail(12), tail(6), tail(0);
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

/// `s` as a JSON string with its quotes.
inline std::string json_quoted(std::string_view s) {
  constexpr std::string_view hex = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : s) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      out += "\\u00";
      out += hex[byte >> 4];
      out += hex[byte & 15];
    } else {
      out += c;
    }
  }
  return out += '"';
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
