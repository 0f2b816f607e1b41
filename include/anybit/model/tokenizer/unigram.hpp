#pragma once
// SentencePiece's unigram model: a word is cut into the tokens whose scores (log probabilities) have the highest sum
// (Kudo 2018, "Subword regularization", section 3.1), by the Viterbi algorithm.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include <anybit/model/tokenizer/token_trie.hpp>
#include <anybit/model/tokenizer/unicode.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

class Unigram {
 public:
  struct Scratch {
    struct Best {
      double score;
      std::size_t begin;
      TokenId id;
    };
    std::vector<Best> best;
    std::vector<Best> path;
  };

  void add(std::string_view name, TokenId id, double score) {
    trie_.add(name, id);
    lowest_ = std::min(lowest_, score);
  }

  /// Calls `token(begin, end, id)` for the tokens of `word` in order. A character that no token of one character is may also be
  /// unknown, at a score of 10 below the lowest; then id is -1.
  template <class Token>
  void encode(std::string_view word, const std::vector<float>& scores, Scratch& s, Token&& token) const {
    const double unknown = lowest_ - 10;
    s.best.assign(word.size() + 1, {-std::numeric_limits<double>::infinity(), 0, -1});
    s.best[0].score = 0;
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t character = decode_utf8(word.substr(at)).bytes;
      const double here = s.best[at].score;
      const auto offer = [&](std::size_t end, double score, TokenId id) {
        if (here + score > s.best[end].score) s.best[end] = {here + score, at, id};
      };
      bool single = false;
      trie_.prefixes(word, at, [&](std::size_t bytes, TokenId id) {
        offer(at + bytes, static_cast<double>(scores[static_cast<std::size_t>(id)]), id);
        single = single || bytes == character;
      });
      if (!single) offer(at + character, unknown, -1);
      at += character;
    }
    s.path.clear();
    for (std::size_t end = word.size(); end != 0; end = s.best[end].begin) s.path.push_back({0, end, s.best[end].id});
    std::size_t begin = 0;
    for (std::size_t i = s.path.size(); i-- > 0; begin = s.path[i].begin) token(begin, s.path[i].begin, s.path[i].id);
  }

 private:
  TokenTrie trie_;
  double lowest_ = 0;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
