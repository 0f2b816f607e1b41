#pragma once
// Cuts text into the words inside which byte-level BPE merges.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/model/tokenizer/pattern.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// One way to cut a text, under all names that GGUF's `tokenizer.ggml.pre` has for it. Patterns are applied one after the other
/// to the pieces that are there so far; a match becomes a piece, and so does the text between two matches.
struct PreTokenizer {
  std::string_view names;  ///< a space between two
  std::array<std::string_view, 6> patterns;
  bool whole_words = false;  ///< a word that is a token is that token, whatever its merges would give
  bool adds_bos = false;     ///< where a file does not say whether
};

namespace detail {

inline constexpr std::string_view gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view cjk_pattern = R"([\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+)";

}  // namespace detail

/// The patterns are those of the models' own tokenizer.json. Unicode normalization, which some of these add, is left out as
/// llama.cpp leaves it out: every text comes back as it was.
inline constexpr PreTokenizer pre_tokenizers[] = {
    {"gpt-2 phi-2 mpt olmo jais gigachat mellum modern-bert roberta-bpe jina-es jina-de jina-v1-en jina-v2-es jina-v2-de "
     "jina-v2-code a.x-4.0 exaone4 trillion granite-docling",
     {detail::gpt2_pattern}},
    {"smollm starcoder refact command-r codeshell exaone minerva-7b", {R"(\p{N})", detail::gpt2_pattern}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2 midm-2.0", {detail::llama3_pattern}, true, true},
    {"glm4", {detail::llama3_pattern}, true},
    {"dbrx smaug-bpe chatglm-bpe", {detail::llama3_pattern}},
    {"qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan grok-2 solar-open",
     {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
    {"qwen35",
     {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
    {"falcon", {R"([\p{P}$+<=>^~|`]+)", detail::gpt2_pattern, R"([0-9][0-9][0-9])"}},
    {"deepseek-coder", {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", detail::cjk_pattern, R"(\p{N})"}},
    {"deepseek-llm",
     {R"([\r\n])", R"(\s?[\p{Lu}\p{Ll}\p{Lt}]+)", R"(\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+)",
      R"(\s+$)", detail::cjk_pattern, R"(\p{N})"}},
    {"deepseek-v3 hunyuan-dense joyai-llm",
     {R"(\p{N}{1,3})", R"([\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+)",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
    {"tekken",
     {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
     true,
     true},
    {"gpt-4o llama4 kanana2",
     {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
};

/// By any of its names; null if there is none.
inline const PreTokenizer* find_pre_tokenizer(std::string_view name) {
  for (const PreTokenizer& p : pre_tokenizers)
    for (std::string_view rest = p.names; !rest.empty();) {
      const std::size_t space = std::min(rest.find(' '), rest.size());
      if (rest.substr(0, space) == name) return &p;
      rest.remove_prefix(std::min(space + 1, rest.size()));
    }
  return nullptr;
}

/// A PreTokenizer made ready.
class WordSplitter {
 public:
  static Result<WordSplitter> make(const PreTokenizer& rule) {
    WordSplitter out;
    for (const std::string_view text : rule.patterns) {
      if (text.empty()) break;
      ANYBIT_TRY(Pattern p, Pattern::compile(text));
      out.patterns_.push_back(std::move(p));
    }
    return out;
  }

  /// Calls `word(std::string_view)` for the words of `text` in order; together they are the text. Bytes that are not UTF-8 count
  /// as characters without any property.
  template <class Word>
  void split(std::string_view text, Word&& word) const {
    std::vector<PatternChar> chars;
    chars.reserve(text.size());
    for (std::size_t at = 0; at < text.size(); at += chars.back().bytes()) chars.emplace_back(decode_utf8(text.substr(at)));
    std::size_t offset = 0;
    const auto whole = [&](std::size_t begin, std::size_t end) {
      std::size_t bytes = 0;
      for (std::size_t i = begin; i < end; ++i) bytes += chars[i].bytes();
      word(text.substr(offset, bytes));
      offset += bytes;
    };
    split(chars.data(), 0, chars.size(), 0, whole);
  }

 private:
  /// The pieces that patterns from number `i` on make of the characters [begin, end).
  template <class Piece>
  void split(const PatternChar* text, std::size_t begin, std::size_t end, std::size_t i, Piece& piece) const {
    if (begin == end) return;
    if (i == patterns_.size()) return piece(begin, end);
    const Pattern& p = patterns_[i];
    std::size_t rest = begin;
    for (std::size_t at = begin; at < end;) {
      const std::size_t found = p.match(text, at, end);
      if (found == Pattern::none || found == at) {
        at = p.next_start(text, at, end);
        continue;
      }
      split(text, rest, at, i + 1, piece);
      split(text, at, found, i + 1, piece);
      rest = at = found;
    }
    split(text, rest, end, i + 1, piece);
  }

  std::vector<Pattern> patterns_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
