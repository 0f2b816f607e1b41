#pragma once
// The rules of whole families of tokenizers: SentencePiece's spelling of spaces and bytes, BERT's normalizing and cutting.

#include <anybit/core/macros_begin.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/tokenizer/spelling.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {
namespace detail {

/// The tokens of a SentencePiece vocabulary become what they stand for: U+2581 a space, "<0x0A>" a byte. Names of control tokens
/// stay. A text's own U+2581 becomes a space as well, as there.
inline Status apply_sentencepiece_spelling(Vocabulary& v) {
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.kinds[i] == TokenKind::control) continue;
    if (v.kinds[i] != TokenKind::byte) {
      if (v.kinds[i] == TokenKind::normal && v.tokens[i].find(' ') != std::string::npos) v.kinds[i] = TokenKind::unused;
      replace_all(v.tokens[i], escaped_space, " ");
      continue;
    }
    const int byte = byte_token(v.tokens[i]);
    if (byte < 0)
      return {ErrorCode::corrupt_data, io::detail::text("token ", i, " is ", io::detail::shown(v.tokens[i]),
                                                        ", a byte by its type but not by its name: convert the model again")};
    v.tokens[i].assign(1, static_cast<char>(byte));
  }
  v.normalizer.push_back({NormalizerStep::Kind::replace, std::string(escaped_space), " "});
  return Ok{};
}

/// A SentencePiece normalizer: its binary, if there is one, and its wish about spaces.
inline void add_sentencepiece_normalizer(Vocabulary& v, std::string charsmap, bool collapse_spaces) {
  if (!charsmap.empty()) v.normalizer.push_back({NormalizerStep::Kind::charsmap, std::move(charsmap)});
  if (collapse_spaces) v.normalizer.push_back({NormalizerStep::Kind::collapse_spaces});
}

/// ASCII's and Unicode's punctuation: BERT's, and that of Hugging Face's Punctuation.
inline constexpr std::string_view punctuation_pattern = R"([!-/:-@\[-`{-~\p{P}])";

inline void add_bert_normalizer(std::vector<NormalizerStep>& to, bool clean, bool ideographs, bool strip_accents,
                                bool lowercase) {
  using Kind = NormalizerStep::Kind;
  if (clean) to.push_back({Kind::clean});
  if (ideographs) to.push_back({Kind::space_ideographs});
  if (strip_accents) to.push_back({Kind::nfd}), to.push_back({Kind::strip_nonspacing_marks});
  if (lowercase) to.push_back({Kind::lowercase});
}
inline void add_bert_cuts(Vocabulary& v) {
  v.cuts.push_back({R"(\s+)", CutStep::Behavior::removed});
  v.cuts.push_back({std::string(punctuation_pattern)});
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
