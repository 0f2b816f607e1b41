#pragma once
// Regular expressions over names of modules, as quantization configs have them: in time linear in pattern times name whatever the
// pattern is, because both come from files. std::regex throws, and its recursion has no bound.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {
namespace detail {

/// Literals, `.`, classes, \d \w \s, groups, `|`, `*` `+` `?` (lazy ones too) `{m,n}`, `^` and `$`. No look-around and no
/// references.
class NamePattern {
 public:
  /// An error at what it does not know.
  static Result<NamePattern> compile(std::string_view pattern) {
    NamePattern out;
    Parser parser{pattern, 0, out.program_};
    ANYBIT_TRY_STATUS(parser.alternatives(0));
    if (parser.at != pattern.size()) return parser.fail("a parenthesis has no partner");
    out.program_.push_back({Op::match, 0, 0, {}});
    return out;
  }

  /// Whether it matches from the start of `name` on, as Python's re.match: the name may go on behind the match.
  template <class = void>
  bool matches_start(std::string_view name) const {
    std::vector<std::size_t> now, next;
    std::vector<char> seen(program_.size());
    bool matched = false;
    add(now, seen, 0, 0, name, matched);
    for (std::size_t i = 0; i < name.size() && !matched; ++i) {
      next.clear();
      std::fill(seen.begin(), seen.end(), char{0});
      for (const std::size_t state : now)
        if (program_[state].set[static_cast<unsigned char>(name[i])]) add(next, seen, state + 1, i + 1, name, matched);
      std::swap(now, next);
    }
    return matched;
  }

 private:
  enum class Op : unsigned char { set, split, jump, start, end, match };
  struct Step {
    Op op;
    std::size_t to, also;  ///< of jump and split
    std::bitset<256> set;
  };
  using Program = std::vector<Step>;
  static constexpr std::size_t longest = 4096;

  template <class = void>
  void add(std::vector<std::size_t>& list, std::vector<char>& seen, std::size_t first, std::size_t at, std::string_view name,
           bool& matched) const {
    std::vector<std::size_t> open{first};
    while (!open.empty()) {
      const std::size_t state = open.back();
      open.pop_back();
      if (seen[state]) continue;
      seen[state] = 1;
      const Step& s = program_[state];
      switch (s.op) {
        case Op::set: list.push_back(state); break;
        case Op::split: open.push_back(s.also), open.push_back(s.to); break;
        case Op::jump: open.push_back(s.to); break;
        case Op::start:
          if (at == 0) open.push_back(state + 1);
          break;
        case Op::end:
          if (at == name.size()) open.push_back(state + 1);
          break;
        case Op::match: matched = true; break;
      }
    }
  }

  struct Parser {
    std::string_view text;
    std::size_t at;
    Program& program;

    Error fail(std::string_view why) const {
      return {ErrorCode::unsupported,
              io::detail::text("pattern ", shown(text), " at byte ", at, ": ", why, ": rewrite the pattern")};
    }
    bool more() const { return at < text.size(); }
    bool accept(char c) {
      if (!more() || text[at] != c) return false;
      ++at;
      return true;
    }

    Status alternatives(int depth) {
      if (depth > 32) return fail("groups are nested too deep");
      const std::size_t first = program.size();
      ANYBIT_TRY_STATUS(sequence(depth));
      std::vector<std::size_t> ends;
      std::size_t begin = first;
      while (accept('|')) {
        // begin: split (this alternative, the next); this alternative ends with a jump behind all.
        insert(begin, {Op::split, begin + 1, 0, {}});
        ends.push_back(program.size());
        program.push_back({Op::jump, 0, 0, {}});
        program[begin].also = program.size();
        begin = program.size();
        ANYBIT_TRY_STATUS(sequence(depth));
      }
      for (const std::size_t e : ends) program[e].to = program.size();
      return Ok{};
    }
    Status sequence(int depth) {
      while (more() && text[at] != '|' && text[at] != ')') {
        const std::size_t first = program.size();
        ANYBIT_TRY_STATUS(atom(depth));
        ANYBIT_TRY_STATUS(repeat(first));
        if (program.size() > longest) return fail("the pattern is too long");
      }
      return Ok{};
    }
    Status atom(int depth) {
      Step s{Op::set, 0, 0, {}};
      const char c = text[at++];
      switch (c) {
        case '(':
          if (accept('?') && !accept(':')) return fail("only (?: is known behind a parenthesis");
          ANYBIT_TRY_STATUS(alternatives(depth + 1));
          if (!accept(')')) return fail("a parenthesis has no partner");
          return Ok{};
        case '.': s.set.set(), s.set.reset('\n'); break;
        case '^': s.op = Op::start; break;
        case '$': s.op = Op::end; break;
        case '[': {
          ANYBIT_TRY(s.set, char_class());
          break;
        }
        case '\\': {
          ANYBIT_TRY(s.set, escape());
          break;
        }
        case '*':
        case '+':
        case '?':
        case '{': return fail("a repetition has nothing to repeat");
        default: s.set.set(static_cast<unsigned char>(c));
      }
      program.push_back(s);
      return Ok{};
    }
    Result<std::bitset<256>> escape() {
      if (!more()) return fail("a backslash ends the pattern");
      std::bitset<256> set;
      const char c = text[at++];
      const bool word = c == 'w' || c == 'W', digit = c == 'd' || c == 'D', space = c == 's' || c == 'S';
      for (unsigned i = 0; i < 256 && (word || digit || space); ++i) {
        const bool is_digit = i >= '0' && i <= '9', letter = (i | 32) >= 'a' && (i | 32) <= 'z' && i < 128;
        set[i] = word ? is_digit || letter || i == '_' : digit ? is_digit : i == ' ' || (i >= 9 && i <= 13);
      }
      if (word || digit || space) return c == 'W' || c == 'D' || c == 'S' ? ~set : set;
      if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return fail("an escape is unknown");
      set.set(static_cast<unsigned char>(c));
      return set;
    }
    Result<std::bitset<256>> char_class() {
      std::bitset<256> set;
      const bool negated = accept('^');
      for (bool first = true; first || !accept(']'); first = false) {
        if (!more()) return fail("a bracket has no partner");
        const char c = text[at++];
        if (c == '\\') {
          ANYBIT_TRY(const std::bitset<256> escaped, escape());
          set |= escaped;
          continue;
        }
        unsigned char last = static_cast<unsigned char>(c);
        if (at + 1 < text.size() && text[at] == '-' && text[at + 1] != ']' && text[at + 1] != '\\') {
          last = static_cast<unsigned char>(text[at + 1]);
          at += 2;
          if (last < static_cast<unsigned char>(c)) return fail("a range ends before it begins");
        }
        for (unsigned i = static_cast<unsigned char>(c); i <= last; ++i) set.set(i);
      }
      return negated ? ~set : set;
    }
    Status repeat(std::size_t first) {
      std::size_t least = 1, most = 1;  // most 0: without end
      if (accept('*'))
        least = 0, most = 0;
      else if (accept('+'))
        most = 0;
      else if (accept('?'))
        least = 0;
      else if (accept('{')) {
        const bool has_least = number(least);
        if (!has_least) return fail("a number must stand here");
        most = least;
        bool endless = false;
        if (accept(',')) endless = !number(most);
        if (!accept('}') || (!endless && (most == 0 || most < least))) return fail("a repetition is malformed");
        if (endless) most = 0;
      } else {
        return Ok{};
      }
      accept('?');  // lazy: the same set of matches
      if (more() && (text[at] == '*' || text[at] == '+')) return fail("a repetition of a repetition");
      const Program once(program.begin() + static_cast<std::ptrdiff_t>(first), program.end());
      program.resize(first);
      if (once.size() * (least + most + 1) > longest) return fail("the pattern is too long");
      const auto copy = [&] {
        const std::size_t shift = program.size() - first;
        for (Step s : once) {
          s.to += shift, s.also += shift;
          program.push_back(s);
        }
      };
      for (std::size_t i = 0; i < least; ++i) copy();
      if (most == 0) {
        const std::size_t loop = program.size();
        program.push_back({Op::split, loop + 1, 0, {}});
        copy();
        program.push_back({Op::jump, loop, 0, {}});
        program[loop].also = program.size();
      }
      for (std::size_t i = least; i < most; ++i) {
        const std::size_t optional = program.size();
        program.push_back({Op::split, optional + 1, 0, {}});
        copy();
        program[optional].also = program.size();
      }
      return Ok{};
    }
    bool number(std::size_t& value) {
      if (!more() || text[at] < '0' || text[at] > '9') return false;
      for (value = 0; more() && text[at] >= '0' && text[at] <= '9' && value < 10000; ++at)
        value = value * 10 + static_cast<std::size_t>(text[at] - '0');
      return true;
    }
    /// Puts a step in front of the one at `where`.
    void insert(std::size_t where, Step s) {
      for (std::size_t i = 0; i < program.size(); ++i) {
        Step& p = program[i];
        const std::size_t from = i < where ? where + 1 : where;  // what came before goes on at the new step
        if (p.op == Op::jump || p.op == Op::split) p.to += p.to >= from;
        if (p.op == Op::split) p.also += p.also >= from;
      }
      program.insert(program.begin() + static_cast<std::ptrdiff_t>(where), s);
    }
  };

  Program program_;
};

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
