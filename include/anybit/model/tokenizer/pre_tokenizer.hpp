#pragma once
// Cuts text into the words inside which byte-level BPE merges.

#include <string_view>

#include <anybit/model/tokenizer/unicode.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

inline CharClass class_at(std::string_view s, std::size_t at, std::size_t& bytes) {
  const DecodedChar c = decode_utf8(s.substr(at));
  bytes = c.bytes;
  return c.valid ? char_class(c.code_point) : CharClass::other;
}

/// End of the run of `wanted` that starts at `at`.
inline std::size_t run_end(std::string_view s, std::size_t at, CharClass wanted) {
  std::size_t bytes = 0;
  while (at < s.size() && class_at(s, at, bytes) == wanted) at += bytes;
  return at;
}

/// Bytes of the first match of the GPT-2 pattern in non-empty `s`; it always matches at the start:
///   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
inline std::size_t gpt2_word(std::string_view s) {
  if (s[0] == '\'')
    for (const std::string_view contraction : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
      if (s.starts_with(contraction)) return contraction.size();

  std::size_t bytes = 0;
  const std::size_t start = s[0] == ' ' && s.size() > 1 ? 1 : 0;
  if (const CharClass c = class_at(s, start, bytes); c != CharClass::space) return run_end(s, start, c);

  // White space up to the end of the text is one word; before another character its last one is left for that.
  std::size_t end = 0, last = 0;
  while (end < s.size() && class_at(s, end, bytes) == CharClass::space) {
    last = end;
    end += bytes;
  }
  return end == s.size() || last == 0 ? end : last;
}

template <class Word>
void gpt2_words(std::string_view s, Word& word) {
  while (!s.empty()) {
    const std::size_t bytes = gpt2_word(s);
    word(s.substr(0, bytes));
    s.remove_prefix(bytes);
  }
}

}  // namespace detail

/// Calls `word(std::string_view)` for the words of `text` in order; together they are the text. Bytes that are not UTF-8
/// count as characters that are neither letter, number nor space.
template <class Word>
void split_words(std::string_view text, PreTokenizer pre, Word&& word) {
  if (pre == PreTokenizer::gpt2) return detail::gpt2_words(text, word);
  std::size_t begin = 0, bytes = 0;
  for (std::size_t at = 0; at < text.size(); at += bytes) {
    if (detail::class_at(text, at, bytes) != CharClass::number) continue;
    detail::gpt2_words(text.substr(begin, at - begin), word);
    word(text.substr(at, bytes));
    begin = at + bytes;
  }
  detail::gpt2_words(text.substr(begin), word);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
