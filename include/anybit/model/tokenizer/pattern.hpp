#pragma once
// The regular expressions with which tokenizers cut text into words, as their files publish them, over the library's own tables
// of Unicode. Tokenizers use a small part of the language, and this is it:
//   a  \r \n \t \\ \uXXXX          characters
//   \s \d \p{L} \p{Lu} and \S \D \P{..}, [a-z\p{L}], [^...]   sets of them
//   x? x* x+ x{m} x{m,n}, greedy or with a + behind (possessive)  x is a character or a set; a group takes only ?
//   (?:a|b) (?i:a|b) (?=a) (?!a) $ |
// Matching tries alternatives in their order and the longest repetition first, as the engines do for which these were written.
// Why not PCRE2: every engine that includes these headers would have to build and link it, for a language of which it would use
// this part, and its Unicode tables are of another version than the vocabulary's.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/tokenizer/unicode.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// A character of a text in four bytes. A byte that is not UTF-8 is one of the category Cn.
class PatternChar {
 public:
  explicit PatternChar(const DecodedChar& c)
      : bits_(static_cast<std::uint32_t>(c.code_point) << 8 |
              static_cast<std::uint32_t>(c.valid ? category(c.code_point) : Category::Cn) << 3 |
              static_cast<std::uint32_t>(c.bytes)) {}
  /// Of an ASCII character.
  explicit constexpr PatternChar(unsigned char c)
      : bits_(static_cast<std::uint32_t>(c) << 8 | static_cast<std::uint32_t>(category(c)) << 3 | 1u) {}
  char32_t code_point() const { return bits_ >> 8; }
  Category category_of() const { return static_cast<Category>(bits_ >> 3 & 31u); }
  std::size_t bytes() const { return bits_ & 7u; }

 private:
  std::uint32_t bits_;
};

namespace detail {

inline constexpr auto ascii_chars = []<std::size_t... C>(std::index_sequence<C...>) {
  return std::array<PatternChar, sizeof...(C)>{PatternChar(static_cast<unsigned char>(C))...};
}(std::make_index_sequence<128>());

}  // namespace detail

/// The characters of `text` behind those in `out`.
inline void append_pattern_chars(std::string_view text, std::vector<PatternChar>& out) {
  out.reserve(out.size() + text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    out.push_back(byte < 128 ? detail::ascii_chars[byte] : PatternChar(decode_utf8(text.substr(at))));
    at += out.back().bytes();
  }
}
inline std::vector<PatternChar> pattern_chars(std::string_view text) {
  std::vector<PatternChar> out;
  append_pattern_chars(text, out);
  return out;
}

/// Steps that matching may still take. Like every engine that goes back, this one can be made to take very long by a pattern that
/// is made for it; at 0 it finds nothing more. Patterns of published tokenizers take some ten steps per character.
struct PatternEffort {
  std::uint64_t left;
  static PatternEffort for_text(std::size_t characters) { return {std::uint64_t{256} * characters + (std::uint64_t{1} << 20)}; }
  bool spent() const { return left == 0; }
};

inline Error pattern_takes_too_long(std::size_t bytes) {
  return {ErrorCode::unsupported, io::detail::text("a pattern of this tokenizer takes too long on a text of ", bytes,
                                                   " bytes: use a model with another tokenizer")};
}

class Pattern {
 public:
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  /// Any text may be compiled, from whatever file; see PatternEffort.
  static Result<Pattern> compile(std::string_view text) {
    constexpr std::size_t longest = std::size_t{1} << 16;
    if (text.size() > longest)
      return {ErrorCode::unsupported, io::detail::text("pattern ", io::detail::shown(text), ": has ", text.size(),
                                                       " bytes, more than ", longest, ": use a model with a shorter one")};
    Pattern out;
    Parser parser{text, out};
    auto done = parser.alternatives(out.root_, false, 0);
    if (done && parser.at != text.size()) done = parser.fail("a ')' without its '('");
    if (!done) return in_context(done.error(), "pattern " + io::detail::shown(text));
    out.index_first_characters();
    return out;
  }

  /// The end of the match that starts at `at`, which may be empty; `none` if there is none. The text ends at `end`.
  std::size_t match(const PatternChar* text, std::size_t at, std::size_t end, PatternEffort& effort) const {
    std::uint64_t possible = at < end ? starts_.of(text[at]) : ~std::uint64_t{0};
    if (root_.size() < 64) possible &= (std::uint64_t{1} << root_.size()) - 1;
    for (; possible != 0; possible &= possible - 1) {
      const auto i = static_cast<std::size_t>(std::countr_zero(possible));
      if (const std::size_t found = run({text, end, &effort}, root_[i], 0, at, nullptr); found != none) return found;
    }
    return none;
  }

  /// Where the next match can start if none starts at `at`: behind a run that the pattern as a whole begins with, because all
  /// ends of that run were tried.
  std::size_t next_start(const PatternChar* text, std::size_t at, std::size_t end) const {
    std::size_t next = at + 1;
    if (root_.size() != 1 || root_[0].empty()) return next;
    const Step& first = root_[0][0];
    if (first.kind == Kind::set && first.max == unlimited && sets_[first.index].contains(text[at]))
      while (next < end && sets_[first.index].contains(text[next])) ++next;
    return next;
  }

 private:
  static constexpr std::uint32_t unlimited = 0xFFFFFFFF;

  struct Set {
    struct Range {
      char32_t first, last;
    };
    CategorySet in = 0;
    std::vector<Range> ranges;
    bool negated = false;
    std::array<std::uint64_t, 2> ascii{};  ///< bit c of 128: whether it has the character c

    bool contains(PatternChar c) const {
      bool found = model::contains(in, c.category_of());
      if (ranges.empty()) return found != negated;
      if (c.code_point() < 128) return (ascii[c.code_point() >> 6] >> (c.code_point() & 63u) & 1u) != 0;
      return search(c, found);
    }
    /// `ascii` becomes what the other members say.
    void index_ascii() {
      for (const PatternChar c : detail::ascii_chars)
        if (search(c, model::contains(in, c.category_of())))
          ascii[c.code_point() >> 6] |= std::uint64_t{1} << (c.code_point() & 63u);
    }

   private:
    bool search(PatternChar c, bool found) const {
      for (const Range& r : ranges) found = found || (c.code_point() >= r.first && c.code_point() <= r.last);
      return found != negated;
    }
  };
  enum class Kind : std::uint8_t { set, group, ahead, not_ahead, end };
  struct Step {
    Kind kind = Kind::set;
    bool possessive = false;
    std::uint32_t min = 1, max = 1;
    std::size_t index = 0;  ///< into sets_ or groups_
  };
  using Sequence = std::vector<Step>;
  using Alternatives = std::vector<Sequence>;

  /// Which alternatives can match at a character; bit i stands for number i. A category may have too many.
  struct Starts {
    std::array<std::uint64_t, 128> ascii{};
    std::array<std::uint64_t, 32> others{};  ///< by category

    std::uint64_t of(PatternChar c) const {
      return c.code_point() < 128 ? ascii[c.code_point()] : others[static_cast<std::size_t>(c.category_of())];
    }
  };

  void index_first_characters() {
    for (Set& s : sets_) s.index_ascii();
    for (std::size_t i = 0; i < root_.size() && i < 64; ++i) add_start(root_[i], std::uint64_t{1} << i);
  }
  /// Whether the sequence can match nothing, in which case every character has the bit.
  bool add_start(const Sequence& s, std::uint64_t bit) {
    for (const Step& now : s) {
      bool optional = now.min == 0;
      if (now.kind == Kind::set) {
        const Set& set = sets_[now.index];
        for (const PatternChar c : detail::ascii_chars)
          if (set.contains(c)) starts_.ascii[c.code_point()] |= bit;
        for (std::size_t c = 0; c < starts_.others.size(); ++c)
          if (!set.ranges.empty() || model::contains(set.in, static_cast<Category>(c)) != set.negated) starts_.others[c] |= bit;
      } else if (now.kind == Kind::group) {
        for (const Sequence& a : groups_[now.index]) optional = add_start(a, bit) || optional;
      } else {
        optional = true;  // consumes nothing
      }
      if (!optional) return false;
    }
    for (std::uint64_t& c : starts_.ascii) c |= bit;
    for (std::uint64_t& c : starts_.others) c |= bit;
    return true;
  }

  struct Text {
    const PatternChar* chars;
    std::size_t end;
    PatternEffort* effort;
  };
  /// The pattern that must match behind a group.
  struct Rest {
    const Sequence* sequence;
    std::size_t step;
    const Rest* next;
  };

  /// The end of the match of `s` from `step` on and of all of `rest`, from `at` on. The depth of the recursion is that of the
  /// pattern, whatever the text.
  std::size_t run(Text t, const Sequence& s, std::size_t step, std::size_t at, const Rest* rest) const {
    if (step == s.size()) return rest ? run(t, *rest->sequence, rest->step, at, rest->next) : at;
    const Step& now = s[step];
    switch (now.kind) {
      case Kind::end: return at == t.end ? run(t, s, step + 1, at, rest) : none;
      case Kind::ahead:
      case Kind::not_ahead: {
        bool found = false;
        for (const Sequence& a : groups_[now.index]) found = found || run(t, a, 0, at, nullptr) != none;
        return found == (now.kind == Kind::ahead) ? run(t, s, step + 1, at, rest) : none;
      }
      case Kind::group: {
        const Rest behind{&s, step + 1, rest};
        for (const Sequence& a : groups_[now.index])
          if (const std::size_t found = run(t, a, 0, at, &behind); found != none) return found;
        return now.min == 0 ? run(t, s, step + 1, at, rest) : none;
      }
      case Kind::set: break;
    }
    const Set& set = sets_[now.index];
    std::uint32_t count = 0;
    while (count < now.max && at + count < t.end && set.contains(t.chars[at + count])) ++count;
    t.effort->left -= std::min<std::uint64_t>(t.effort->left, std::uint64_t{count} + 1);
    if (t.effort->spent()) return none;
    if (step + 1 == s.size() && !rest) return count < now.min ? none : at + count;
    for (; count >= now.min; --count) {
      if (const std::size_t found = run(t, s, step + 1, at + count, rest); found != none) return found;
      if (now.possessive || count == 0) break;
    }
    return none;
  }

  struct Parser {
    std::string_view text;
    Pattern& out;
    std::size_t at = 0;
    int steps = 0;

    bool has(char c) const { return at < text.size() && text[at] == c; }
    bool take(std::string_view s) {
      if (!text.substr(at).starts_with(s)) return false;
      at += s.size();
      return true;
    }
    Error fail(std::string_view why) const {
      return {ErrorCode::unsupported,
              io::detail::text(why, " at byte ", at, ": anybit knows only a part of regular expressions")};
    }

    Status alternatives(Alternatives& to, bool any_case, int depth) {
      if (depth > 8) return fail("groups are nested too deep");
      do {
        if (depth == 0 && to.size() == 64) return fail("more than 64 alternatives");
        Sequence s;
        while (at < text.size() && text[at] != '|' && text[at] != ')') {
          if (++steps > 1024) return fail("more than 1024 characters and sets");  // which bounds the depth of run()
          ANYBIT_TRY_STATUS(step(s, any_case, depth));
        }
        to.push_back(std::move(s));
      } while (take("|"));
      return Ok{};
    }

    Status step(Sequence& to, bool any_case, int depth) {
      Step s;
      if (take("$")) {
        s.kind = Kind::end;
      } else if (has('(')) {
        ANYBIT_TRY_STATUS(group(s, any_case, depth));
      } else {
        Set set;
        ANYBIT_TRY_STATUS(has('[') ? bracket(set, any_case) : single(set, any_case));
        s.index = out.sets_.size();
        out.sets_.push_back(std::move(set));
      }
      ANYBIT_TRY_STATUS(quantifier(s));
      to.push_back(s);
      return Ok{};
    }

    Status group(Step& s, bool any_case, int depth) {
      s.kind = Kind::group;
      if (take("(?i:"))
        any_case = true;
      else if (take("(?="))
        s.kind = Kind::ahead;
      else if (take("(?!"))
        s.kind = Kind::not_ahead;
      else if (!take("(?:") && !take("("))
        return fail("a group");
      if (has('?')) return fail("a group of an unknown kind");
      Alternatives inside;
      ANYBIT_TRY_STATUS(alternatives(inside, any_case, depth + 1));
      if (!take(")")) return fail("a ')' must stand here");
      s.index = out.groups_.size();
      out.groups_.push_back(std::move(inside));
      return Ok{};
    }

    Status quantifier(Step& s) {
      const std::size_t before = at;
      if (take("?")) {
        s.min = 0;
      } else if (take("*")) {
        s.min = 0, s.max = unlimited;
      } else if (take("+")) {
        s.max = unlimited;
      } else if (take("{")) {
        ANYBIT_TRY(s.min, number());
        s.max = s.min;
        if (take(",")) {
          s.max = unlimited;
          if (!has('}')) {
            ANYBIT_TRY(s.max, number());
          }
        }
        if (!take("}") || s.max < s.min) return fail("a quantifier that does not read {m} or {m,n}");
      } else {
        return Ok{};
      }
      if (take("+")) s.possessive = true;
      if (has('?')) return fail("a repetition that takes as little as it can");
      if (s.kind != Kind::set && (s.kind != Kind::group || s.max != 1 || s.possessive)) {
        at = before;
        return fail("a repeated group or condition");
      }
      return Ok{};
    }

    Result<std::uint32_t> number() {
      std::uint32_t n = 0;
      const std::size_t begin = at;
      for (; at < text.size() && text[at] >= '0' && text[at] <= '9' && at - begin < 4; ++at)
        n = n * 10 + static_cast<std::uint32_t>(text[at] - '0');
      if (at == begin) return fail("a number must stand here");
      return n;
    }

    /// One character or class outside brackets.
    Status single(Set& set, bool any_case) {
      if (has('*') || has('+') || has('?') || has('{') || has('^') || has('.')) return fail("an operator without its operand");
      return member(set, any_case);
    }
    /// [...] with its brackets.
    Status bracket(Set& set, bool any_case) {
      at += 1;
      set.negated = take("^");
      do {
        if (at == text.size()) return fail("a ']' must stand here");
        ANYBIT_TRY_STATUS(member(set, any_case));
      } while (!take("]"));
      return Ok{};
    }

    /// A class, a character or a range of characters.
    Status member(Set& set, bool any_case) {
      if (text.substr(at).starts_with("\\")) {
        const std::size_t begin = at;
        CategorySet in = 0;
        if (take("\\s") || take("\\S"))
          in = white_space_set;
        else if (take("\\d") || take("\\D"))
          in = category_set("Nd");
        else if (take("\\p{") || take("\\P{")) {
          const std::size_t close = text.find('}', at);
          in = close == std::string_view::npos ? 0 : category_set(text.substr(at, close - at));
          if (in == 0) return fail("an unknown property");
          at = close + 1;
        }
        if (in != 0) {
          const char letter = text[begin + 1];
          set.in |= letter >= 'A' && letter <= 'Z' ? ~in : in;
          return Ok{};
        }
      }
      ANYBIT_TRY(const char32_t first, character());
      char32_t last = first;
      if (has('-') && at + 1 < text.size() && text[at + 1] != ']') {
        at += 1;
        ANYBIT_TRY(last, character());
        if (last < first) return fail("a range whose end lies before its beginning");
      }
      set.ranges.push_back({first, last});
      if (!any_case) return Ok{};
      const char32_t low = first | 0x20;
      if (last != first) return fail("a range without regard to case");
      if (low >= U'a' && low <= U'z') set.ranges.push_back({first ^ 0x20, first ^ 0x20});
      if (low == U's') set.ranges.push_back({0x17F, 0x17F});    // the long s, whose capital is S
      if (low == U'k') set.ranges.push_back({0x212A, 0x212A});  // the sign of the kelvin
      return Ok{};
    }

    Result<char32_t> character() {
      if (take("\\r")) return U'\r';
      if (take("\\n")) return U'\n';
      if (take("\\t")) return U'\t';
      if (take("\\u")) {
        char32_t c = 0;
        for (int i = 0; i < 4; ++i, ++at) {
          const char d = at < text.size() ? text[at] : ' ';
          const bool digit = d >= '0' && d <= '9', letter = (d | 0x20) >= 'a' && (d | 0x20) <= 'f';
          if (!digit && !letter) return fail("\\u needs four hexadecimal digits");
          c = c * 16 + static_cast<char32_t>(digit ? d - '0' : (d | 0x20) - 'a' + 10);
        }
        return c;
      }
      const bool escaped = take("\\");
      if (at == text.size()) return fail("a character must stand here");
      const DecodedChar c = decode_utf8(text.substr(at));
      const char32_t low = c.code_point | 0x20;
      if (!c.valid || (escaped && ((low >= U'a' && low <= U'z') || (c.code_point >= U'0' && c.code_point <= U'9'))))
        return fail(escaped ? "an unknown escape" : "a byte that is not UTF-8");
      at += c.bytes;
      return c.code_point;
    }
  };

  Alternatives root_;
  std::vector<Set> sets_;
  std::vector<Alternatives> groups_;
  Starts starts_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
