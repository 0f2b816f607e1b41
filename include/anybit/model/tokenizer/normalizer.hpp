#pragma once
// Changes texts as a vocabulary wants them before they are cut into words.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/model/tokenizer/charsmap.hpp>
#include <anybit/model/tokenizer/pattern.hpp>
#include <anybit/model/tokenizer/spelling.hpp>
#include <anybit/model/tokenizer/unicode_normalization.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

inline bool is_white_space(char32_t c) { return contains(white_space_set, category(c)); }

inline bool is_ideograph(char32_t c) {
  constexpr std::pair<char32_t, char32_t> blocks[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                                                      {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F},
                                                      {0x2B820, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  return std::any_of(std::begin(blocks), std::end(blocks), [&](const auto& b) { return c >= b.first && c <= b.second; });
}

/// BERT's _clean_text.
inline std::string cleaned(std::string_view text) {
  constexpr CategorySet dropped = categories(Category::Cc, Category::Cf, Category::Co);
  return map_characters(text, [](std::string& to, char32_t c) {
    if (c == U'\t' || c == U'\n' || c == U'\r') return static_cast<void>(to += ' ');
    if (c == 0xFFFD || (c >= 0x0B && c <= 0x0C) || c == 0x85 || contains(dropped, category(c))) return;
    is_white_space(c) ? static_cast<void>(to += ' ') : append_utf8(to, c);
  });
}

inline std::string with_spaced_ideographs(std::string_view text) {
  return map_characters(text, [](std::string& to, char32_t c) {
    const bool alone = is_ideograph(c);
    if (alone) to += ' ';
    append_utf8(to, c);
    if (alone) to += ' ';
  });
}

inline std::string with_single_spaces(std::string_view text) {
  std::string out;
  for (const char c : text)
    if (c != ' ' || (!out.empty() && out.back() != ' ')) out += c;
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

/// Bytes of white space that `text` begins with.
inline std::size_t leading_space(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const DecodedChar c = decode_utf8(text.substr(at));
    if (!c.valid || !is_white_space(c.code_point)) break;
    at += c.bytes;
  }
  return at;
}
/// Bytes of white space that `text` ends with.
inline std::size_t trailing_space(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t begin = end - 1;
    while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0u) == 0x80u) --begin;
    const DecodedChar c = decode_utf8(text.substr(begin, end - begin));
    if (!c.valid || c.bytes != end - begin || !is_white_space(c.code_point)) break;
    end = begin;
  }
  return text.size() - end;
}

}  // namespace detail

class Normalizer {
 public:
  /// Takes the steps with their binaries.
  static Result<Normalizer> make(std::vector<NormalizerStep> steps) {
    Normalizer out;
    for (NormalizerStep& s : steps) {
      Step ready{std::move(s), {}};
      if (ready.step.kind == NormalizerStep::Kind::replace && ready.step.from.empty())
        return {ErrorCode::corrupt_data, "normalizer: a replacement of nothing: correct the file"};
      if (ready.step.kind == NormalizerStep::Kind::replace_pattern) {
        ANYBIT_TRY(ready.pattern, Pattern::compile(ready.step.from));
      }
      if (ready.step.kind == NormalizerStep::Kind::charsmap) ANYBIT_TRY_STATUS(Charsmap::make(ready.step.from));
      out.steps_.push_back(std::move(ready));
    }
    return out;
  }

  bool empty() const { return steps_.empty(); }

  /// An error where a pattern takes too long.
  Result<std::string> apply(std::string_view text) const {
    std::string out(text);
    for (const Step& s : steps_) {
      if (s.step.kind == NormalizerStep::Kind::replace_pattern) {
        ANYBIT_TRY(out, replaced(s, out));
      } else {
        out = apply(s, std::move(out));
      }
    }
    return out;
  }

 private:
  struct Step {
    NormalizerStep step;
    Pattern pattern;  ///< replace_pattern
  };

  static std::string apply(const Step& s, std::string text) {
    using Kind = NormalizerStep::Kind;
    switch (s.step.kind) {
      case Kind::nfc: return to_nfc(text);
      case Kind::nfd: return to_nfd(text);
      case Kind::lowercase: return to_lowercase(text);
      case Kind::strip_marks: return without(category_set("M"), text);
      case Kind::strip_nonspacing_marks: return without(category_set("Mn"), text);
      case Kind::replace: detail::replace_all(text, s.step.from, s.step.to); return text;
      case Kind::replace_pattern: break;  // may fail: see replaced()
      case Kind::prepend: return text.empty() ? text : s.step.to + text;
      case Kind::charsmap: return Charsmap::make(s.step.from)->apply(text);
      case Kind::collapse_spaces: return detail::with_single_spaces(text);
      case Kind::strip_left: return text.substr(detail::leading_space(text));
      case Kind::strip_right: text.resize(text.size() - detail::trailing_space(text)); return text;
      case Kind::clean: return detail::cleaned(text);
      case Kind::space_ideographs: return detail::with_spaced_ideographs(text);
    }
    return text;
  }

  static Result<std::string> replaced(const Step& s, std::string_view text) {
    const std::vector<PatternChar> chars = pattern_chars(text);
    PatternEffort effort = PatternEffort::for_text(chars.size());
    std::string out;
    std::size_t offset = 0;
    for (std::size_t at = 0; at < chars.size();) {
      const std::size_t found = s.pattern.match(chars.data(), at, chars.size(), effort);
      if (effort.spent()) return pattern_takes_too_long(text.size());
      const bool match = found != Pattern::none && found != at;
      const std::size_t end = match ? found : at + 1;
      std::size_t bytes = 0;
      for (std::size_t i = at; i < end; ++i) bytes += chars[i].bytes();
      out += match ? std::string_view(s.step.to) : text.substr(offset, bytes);
      offset += bytes;
      at = end;
    }
    return out;
  }

  std::vector<Step> steps_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
