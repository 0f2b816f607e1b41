#pragma once
// Cuts a text into the words inside which a tokenizer's model works.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/model/tokenizer/pattern.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Cuts made ready: each is applied to the pieces that those before it left.
class WordSplitter {
 public:
  static Result<WordSplitter> make(const std::vector<CutStep>& cuts) {
    WordSplitter out;
    for (const CutStep& c : cuts) {
      ANYBIT_TRY(Pattern p, Pattern::compile(c.pattern));
      out.cuts_.push_back({std::move(p), c.behavior, c.inverted});
    }
    return out;
  }

  bool empty() const { return cuts_.empty(); }

  /// Calls `word(std::string_view)` for the words of `text` in order; together they are the text, but for what a cut removes.
  /// Bytes that are not UTF-8 count as characters without any property. `chars` is memory to work in. False: a pattern takes too
  /// long.
  template <class Word>
  bool split(std::string_view text, std::vector<PatternChar>& chars, Word&& word) const {
    if (cuts_.empty()) {
      if (!text.empty()) word(text);
      return true;
    }
    chars.clear();
    append_pattern_chars(text, chars);
    std::size_t offset = 0, done = 0;
    const auto piece = [&](std::size_t begin, std::size_t end) {
      for (; done < begin; ++done) offset += chars[done].bytes();
      std::size_t bytes = 0;
      for (; done < end; ++done) bytes += chars[done].bytes();
      word(text.substr(offset, bytes));
      offset += bytes;
    };
    PatternEffort effort = PatternEffort::for_text(chars.size());
    split(chars.data(), 0, chars.size(), 0, effort, piece);
    return !effort.spent();
  }
  template <class Word>
  bool split(std::string_view text, Word&& word) const {
    std::vector<PatternChar> chars;
    return split(text, chars, word);
  }

 private:
  using Behavior = CutStep::Behavior;
  struct Cut {
    Pattern pattern;
    Behavior behavior;
    bool inverted;
  };
  struct Segment {
    std::size_t begin, end;
    bool match;
  };

  /// The pieces that cuts from number `i` on make of the characters [begin, end).
  template <class Piece>
  void split(const PatternChar* text, std::size_t begin, std::size_t end, std::size_t i, PatternEffort& effort,
             Piece& piece) const {
    if (begin == end) return;
    if (i == cuts_.size()) return piece(begin, end);
    if (cuts_[i].behavior != Behavior::isolated) return split_by_behavior(text, begin, end, i, effort, piece);
    segments(cuts_[i].pattern, text, begin, end, effort,
             [&](std::size_t from, std::size_t to, bool) { split(text, from, to, i + 1, effort, piece); });
  }

  /// Calls `segment(begin, end, match)` for all matches and all texts between them.
  template <class EachSegment>
  static void segments(const Pattern& p, const PatternChar* text, std::size_t begin, std::size_t end, PatternEffort& effort,
                       EachSegment&& segment) {
    std::size_t rest = begin;
    for (std::size_t at = begin; at < end && !effort.spent();) {
      const std::size_t found = p.match(text, at, end, effort);
      if (found == Pattern::none || found == at) {
        at = p.next_start(text, at, end);
        continue;
      }
      if (rest != at) segment(rest, at, false);
      segment(at, found, true);
      rest = at = found;
    }
    if (rest != end) segment(rest, end, false);
  }

  template <class Piece>
  void split_by_behavior(const PatternChar* text, std::size_t begin, std::size_t end, std::size_t i, PatternEffort& effort,
                         Piece& piece) const {
    const Cut& cut = cuts_[i];
    std::vector<Segment> all, joined;
    segments(cut.pattern, text, begin, end, effort,
             [&](std::size_t from, std::size_t to, bool match) { all.push_back({from, to, match != cut.inverted}); });
    if (cut.behavior == Behavior::merged_with_next) {
      for (std::size_t k = all.size(); k-- > 0;)
        if (!joined.empty() && all[k].match && !all[k + 1].match)
          joined.back().begin = all[k].begin;
        else
          joined.push_back(all[k]);
      for (std::size_t k = joined.size(); k-- > 0;) split(text, joined[k].begin, joined[k].end, i + 1, effort, piece);
      return;
    }
    for (std::size_t k = 0; k < all.size(); ++k) {
      const bool first = joined.empty();
      if (cut.behavior == Behavior::removed && all[k].match) continue;
      if (!first && ((cut.behavior == Behavior::merged_with_previous && all[k].match && !all[k - 1].match) ||
                     (cut.behavior == Behavior::contiguous && all[k].match == all[k - 1].match)))
        joined.back().end = all[k].end;
      else
        joined.push_back(all[k]);
    }
    for (const Segment& s : joined) split(text, s.begin, s.end, i + 1, effort, piece);
  }

  std::vector<Cut> cuts_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
