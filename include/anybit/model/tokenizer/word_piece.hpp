#pragma once
// WordPiece, BERT's model (Devlin et al. 2019): a word is the longest token that it begins with, followed by the longest
// continuation of what is left, and so on; a word that cannot be finished so is unknown as a whole.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/tokenizer/token_trie.hpp>
#include <anybit/model/tokenizer/unicode.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

class WordPiece {
 public:
  /// A name that begins a word has a space in front.
  void add(std::string_view name, TokenId id) { trie_.add(name, id); }

  /// The tokens of `word` behind those in `out`; false, and none, if it is unknown. `spaced` is memory to work in.
  bool encode(std::string_view word, std::int32_t longest, std::string& spaced, std::vector<TokenId>& out) const {
    std::int32_t characters = 0;
    for (std::size_t at = 0; at < word.size(); at += decode_utf8(word.substr(at)).bytes)
      if (++characters > longest) return false;
    spaced.assign(1, ' ').append(word);
    const std::size_t before = out.size();
    for (std::size_t at = 0; at < spaced.size();) {
      std::size_t bytes = 0;
      TokenId id = -1;
      trie_.prefixes(spaced, at, [&](std::size_t n, TokenId found) {
        if (at + n > 1) bytes = n, id = found;  // a space alone is no beginning of a word
      });
      if (id < 0) {
        out.resize(before);
        return false;
      }
      out.push_back(id);
      at += bytes;
    }
    return true;
  }

 private:
  TokenTrie trie_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
