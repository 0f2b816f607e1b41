#pragma once
// The members `normalizer` and `pre_tokenizer` of a tokenizer.json as rules of a vocabulary.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/json.hpp>
#include <anybit/model/tokenizer/pattern.hpp>
#include <anybit/model/tokenizer/pre_tokenizer.hpp>
#include <anybit/model/tokenizer/ranks.hpp>
#include <anybit/model/tokenizer/rules.hpp>
#include <anybit/model/tokenizer/spelling.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {
namespace detail {

/// Both members, read one after the other. The strings of a rule are as the file has them until finish(), because only the whole
/// tells whether U+2581 stands for a space.
class HuggingFaceRules {
 public:
  Status read_normalizer(const io::JsonValue& value, const std::string& path = "normalizer") {
    if (value.null()) return Ok{};
    const io::JsonObject step(value, {}, path);
    ANYBIT_TRY(const std::string type, type_of(step));
    using Kind = NormalizerStep::Kind;
    const auto add = [&](Kind kind, std::string from = {}, std::string to = {}) -> Status {
      normalizer_.push_back({kind, std::move(from), std::move(to)});
      return Ok{};
    };
    if (type == "Sequence")
      return for_each(step, "normalizers", [&](const io::JsonValue& v, const std::string& at) { return read_normalizer(v, at); });
    if (type == "NFC") return add(Kind::nfc);
    if (type == "NFD") return add(Kind::nfd);
    if (type == "Lowercase") return add(Kind::lowercase);
    if (type == "StripAccents") return add(Kind::strip_marks);
    if (type == "Strip") {
      ANYBIT_TRY(const bool left, flag(step, "strip_left", true));
      ANYBIT_TRY(const bool right, flag(step, "strip_right", true));
      if (left) ANYBIT_TRY_STATUS(add(Kind::strip_left));
      if (right) ANYBIT_TRY_STATUS(add(Kind::strip_right));
      return Ok{};
    }
    if (type == "Prepend") {
      ANYBIT_TRY(std::string text, step.text("prepend"));
      if (text == escaped_space) {  // the step adds the space, the flags let decode() take it off
        escapes_ = space_prefix_ = unless_space_ = true;
        prefix_ = SpacePrefix::every_part;
      }
      return add(Kind::prepend, {}, std::move(text));
    }
    if (type == "Replace") {
      ANYBIT_TRY(const TextOrPattern what, pattern_of(step));
      ANYBIT_TRY(std::string content, step.text("content"));
      if (content.find(escaped_space) != std::string::npos) escapes_ = true;
      if (what.text && *what.text == " " && content == escaped_space) {  // both are a space here
        escaped_by_normalizer_ = true;
        return Ok{};
      }
      return what.text ? add(Kind::replace, *what.text, std::move(content))
                       : add(Kind::replace_pattern, what.pattern, std::move(content));
    }
    if (type == "Precompiled") {
      ANYBIT_TRY(const std::string base64, step.text("precompiled_charsmap"));
      auto binary = from_base64(base64);
      if (!binary) return step.wrong("precompiled_charsmap", "base64");
      return binary->empty() ? Status(Ok{}) : add(Kind::charsmap, *std::move(binary));
    }
    if (type == "BertNormalizer") {
      ANYBIT_TRY(const bool clean, flag(step, "clean_text", true));
      ANYBIT_TRY(const bool ideographs, flag(step, "handle_chinese_chars", true));
      ANYBIT_TRY(const bool lowercase, flag(step, "lowercase", true));
      ANYBIT_TRY(const bool strip, flag(step, "strip_accents", lowercase));  // null: as lowercase
      add_bert_normalizer(normalizer_, clean, ideographs, strip, lowercase);
      return Ok{};
    }
    return unknown(step, type,
                   "NFC, NFD, Lowercase, StripAccents, Strip, Prepend, Replace, Precompiled, BertNormalizer, Sequence");
  }

  Status read_pre_tokenizer(const io::JsonValue& value, const std::string& path = "pre_tokenizer") {
    if (value.null()) return Ok{};
    const io::JsonObject step(value, {}, path);
    ANYBIT_TRY(const std::string type, type_of(step));
    const auto add = [&](std::string pattern, CutStep::Behavior behavior = CutStep::Behavior::isolated,
                         bool inverted = false) -> Status {
      cuts_.push_back({canonical_pattern(pattern), behavior, inverted});
      return Ok{};
    };
    using Behavior = CutStep::Behavior;
    if (type == "Sequence")
      return for_each(step, "pretokenizers",
                      [&](const io::JsonValue& v, const std::string& at) { return read_pre_tokenizer(v, at); });
    if (type == "ByteLevel") {
      byte_level_ = true;
      ANYBIT_TRY(const bool space, flag(step, "add_prefix_space", true));
      if (space) ANYBIT_TRY_STATUS(prefix_words(step, SpacePrefix::every_part));
      ANYBIT_TRY(const bool cut, flag(step, "use_regex", true));
      return cut ? add(std::string(gpt2_pattern)) : Status(Ok{});
    }
    if (type == "Metaspace") return read_metaspace(step);
    if (type == "Split") {
      ANYBIT_TRY(const TextOrPattern what, pattern_of(step));
      ANYBIT_TRY(const Behavior behavior, behavior_of(step));
      ANYBIT_TRY(const bool inverted, flag(step, "invert", false));
      if (escaped_by_normalizer_) {
        // No space is left in what this cuts. The library's texts have them, in place of U+2581.
        if (what.text && what.text->find(' ') != std::string::npos) return Ok{};
        for (const std::string_view set : {" ", "\\s", "\\S", "\\p{Z", "\\P{", "\\p{S"})
          if (!what.text && what.pattern.find(set) != std::string::npos)
            return step.wrong("pattern", "free of \\s, \\p{Z}, \\p{S} and spaces where the normalizer has replaced all spaces");
      }
      ANYBIT_TRY(const std::string pattern, without_nested_quantifiers(step, what.pattern));
      return add(pattern, behavior, inverted);
    }
    if (type == "Punctuation") {
      ANYBIT_TRY(const Behavior behavior, behavior_of(step));
      return add(std::string(punctuation_pattern), behavior);
    }
    if (type == "Digits") {
      ANYBIT_TRY(const bool single, flag(step, "individual_digits", false));
      return add(single ? R"(\p{N})" : R"(\p{N}+)");
    }
    if (type == "BertPreTokenizer") {
      ANYBIT_TRY_STATUS(add(std::string(white_space_pattern), Behavior::removed));
      return add(std::string(punctuation_pattern));
    }
    if (type == "WhitespaceSplit") return add(std::string(white_space_pattern), Behavior::removed);
    if (type == "Whitespace") return add(io::detail::text("[", word_set, "]+|[^\\s", word_set, "]+"), Behavior::removed, true);
    if (type == "CharDelimiterSplit") {
      ANYBIT_TRY(const std::string delimiter, step.text("delimiter"));
      return add(literal_pattern(delimiter), Behavior::removed);
    }
    return unknown(step, type,
                   "ByteLevel, Metaspace, Split, Punctuation, Digits, BertPreTokenizer, Whitespace, WhitespaceSplit, "
                   "CharDelimiterSplit, Sequence");
  }

  bool byte_level() const { return byte_level_; }
  bool escapes_spaces() const { return escapes_; }

  /// Puts the rules into `v`, whose kind and `whole_words` are known.
  void finish(Vocabulary& v) {
    v.add_space_prefix = space_prefix_;
    v.prefix = prefix_;
    v.prefix_unless_space = unless_space_;
    if (v.kind == TokenizerKind::byte_bpe) return set_rules(v, std::move(normalizer_), std::move(cuts_));
    if (escapes_) {
      for (NormalizerStep& s : normalizer_) {
        replace_all(s.to, escaped_space, " ");
        if (s.kind == NormalizerStep::Kind::replace) replace_all(s.from, escaped_space, " ");
      }
      for (CutStep& c : cuts_) replace_all(c.pattern, "\\u2581", " ");
      normalizer_.push_back({NormalizerStep::Kind::replace, std::string(escaped_space), " "});
    }
    v.normalizer = std::move(normalizer_);
    v.cuts = std::move(cuts_);
  }

 private:
  static constexpr std::string_view white_space_pattern = R"(\s+)";
  /// The members of \w: letters, marks, decimal and letter-like numbers, connectors, joiners, and circled letters.
  static constexpr std::string_view word_set = R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\u200c\u200d\u24b6-\u24e9)";

  struct TextOrPattern {
    std::optional<std::string> text;  ///< of a pattern that is literal
    std::string pattern;
  };

  static Result<std::string> type_of(const io::JsonObject& step) { return step.text("type"); }
  static Result<bool> flag(const io::JsonObject& step, std::string_view key, bool otherwise) {
    return step.has(key) ? step.boolean(key) : Result<bool>(otherwise);
  }
  static Error unknown(const io::JsonObject& step, std::string_view type, std::string_view known) {
    return {ErrorCode::unsupported, io::detail::text(step.path("type"), " is ", io::detail::shown(type), "; anybit knows ", known,
                                                     ": use a model with these")};
  }
  template <class Each>
  static Status for_each(const io::JsonObject& step, std::string_view key, Each&& each) {
    const io::JsonValue* const found = step.find(key);
    const auto* const array = found ? found->as<io::JsonValue::Array>() : nullptr;
    if (!array) return step.wrong(key, "an array");
    for (std::size_t i = 0; i < array->size(); ++i)
      ANYBIT_TRY_STATUS(each((*array)[i], io::detail::text(step.path(key), "[", i, "]")));
    return Ok{};
  }

  static std::string literal_pattern(std::string_view text) {
    std::string out;
    for (const char c : text) {
      const bool special = std::string_view(R"(\^$.|?*+()[]{}-)").find(c) != std::string_view::npos;
      if (special) out += '\\';
      out += c;
    }
    return out;
  }

  /// The same pattern as pre_tokenizers spell it: line breaks and characters beyond ASCII as escapes.
  static std::string canonical_pattern(std::string_view pattern) {
    constexpr std::string_view hex = "0123456789abcdef";
    std::string out;
    for (std::size_t at = 0; at < pattern.size();) {
      const DecodedChar c = decode_utf8(pattern.substr(at));
      if (pattern[at] == '\n' || pattern[at] == '\r' || pattern[at] == '\t')
        out += pattern[at] == '\n' ? "\\n" : pattern[at] == '\r' ? "\\r" : "\\t";
      else if (c.valid && c.code_point >= 0x80 && c.code_point < 0x10000)
        out += {'\\',
                'u',
                hex[c.code_point >> 12 & 15],
                hex[c.code_point >> 8 & 15],
                hex[c.code_point >> 4 & 15],
                hex[c.code_point & 15]};
      else
        out += pattern.substr(at, c.bytes);
      at += c.bytes;
    }
    return out;
  }

  /// In oniguruma, for which these are written, x{1,3}+ is not possessive but (x{1,3})+, which is x+.
  static Result<std::string> without_nested_quantifiers(const io::JsonObject& step, std::string_view pattern) {
    std::string out;
    for (std::size_t at = 0; at < pattern.size(); ++at) {
      out += pattern[at];
      if (pattern[at] == '\\' && at + 1 < pattern.size()) {
        const bool property = pattern[at + 1] == 'p' || pattern[at + 1] == 'P';
        const std::size_t end = property ? pattern.find('}', at) : at + 1;
        if (end != std::string_view::npos) out += pattern.substr(at + 1, end - at), at = end;
        continue;
      }
      if (pattern[at] != '{') continue;
      const std::size_t end = pattern.find('}', at);
      if (end == std::string_view::npos || end + 1 >= pattern.size() || pattern[end + 1] != '+') continue;
      if (!pattern.substr(at).starts_with("{1,")) return step.wrong("pattern", "free of a quantifier {m,n}+ but {1,n}+");
      out.back() = '+';
      at = end + 1;
    }
    return out;
  }

  static Result<TextOrPattern> pattern_of(const io::JsonObject& step) {
    ANYBIT_TRY(const io::JsonObject pattern, step.object("pattern"));
    if (pattern.has("Regex")) {
      ANYBIT_TRY(std::string regex, pattern.text("Regex"));
      return TextOrPattern{std::nullopt, std::move(regex)};
    }
    ANYBIT_TRY(const std::string text, pattern.text("String"));
    if (text.empty()) return pattern.wrong("String", "a string of some characters");
    return TextOrPattern{text, literal_pattern(text)};
  }

  static Result<CutStep::Behavior> behavior_of(const io::JsonObject& step) {
    using Behavior = CutStep::Behavior;
    constexpr std::pair<std::string_view, Behavior> known[] = {{"Isolated", Behavior::isolated},
                                                               {"Removed", Behavior::removed},
                                                               {"MergedWithPrevious", Behavior::merged_with_previous},
                                                               {"MergedWithNext", Behavior::merged_with_next},
                                                               {"Contiguous", Behavior::contiguous}};
    if (!step.has("behavior")) return Behavior::isolated;
    ANYBIT_TRY(const std::string name, step.text("behavior"));
    for (const auto& [known_name, behavior] : known)
      if (name == known_name) return behavior;
    return step.wrong("behavior", "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
  }

  Status prefix_words(const io::JsonObject& step, SpacePrefix where) {
    if (!cuts_.empty())
      return {ErrorCode::unsupported,
              io::detail::text(step.path("type"), ": a space in front of each piece behind other cuts: use a model without")};
    space_prefix_ = unless_space_ = true;
    prefix_ = where;
    return Ok{};
  }

  Status read_metaspace(const io::JsonObject& step) {
    escapes_ = true;
    if (step.has("replacement")) {
      ANYBIT_TRY(const std::string replacement, step.text("replacement"));
      if (replacement != escaped_space) return step.wrong("replacement", "U+2581");
    }
    std::string scheme = "always";
    if (step.has("prepend_scheme")) {
      ANYBIT_TRY(scheme, step.text("prepend_scheme"));
    } else {
      ANYBIT_TRY(const bool space, flag(step, "add_prefix_space", true));
      if (!space) scheme = "never";
    }
    if (scheme != "always" && scheme != "first" && scheme != "never")
      return step.wrong("prepend_scheme", "always, first or never");
    ANYBIT_TRY(const bool split, flag(step, "split", true));
    // Words without their white space, each with a space in front, are the text with single spaces cut in front of them.
    if (cuts_ == std::vector<CutStep>{{std::string(white_space_pattern), CutStep::Behavior::removed}} && scheme == "always") {
      cuts_.clear();
      normalizer_.push_back({NormalizerStep::Kind::replace_pattern, std::string(white_space_pattern), " "});
      normalizer_.push_back({NormalizerStep::Kind::strip_left});
      normalizer_.push_back({NormalizerStep::Kind::strip_right});
    }
    if (scheme != "never")
      ANYBIT_TRY_STATUS(prefix_words(step, scheme == "first" ? SpacePrefix::start : SpacePrefix::every_part));
    if (split) cuts_.push_back({" ", CutStep::Behavior::merged_with_next});
    return Ok{};
  }

  std::vector<NormalizerStep> normalizer_;
  std::vector<CutStep> cuts_;
  bool byte_level_ = false, escapes_ = false, escaped_by_normalizer_ = false, space_prefix_ = false, unless_space_ = false;
  SpacePrefix prefix_ = SpacePrefix::every_part;
};

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
