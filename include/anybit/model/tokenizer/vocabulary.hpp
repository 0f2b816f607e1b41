#pragma once
// The data of a tokenizer, from any kind of file.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <anybit/core/config.hpp>

namespace anybit::model {
inline namespace ANYBIT_ABI {

using TokenId = std::int32_t;

/// The numbers are those of GGUF's `tokenizer.ggml.token_type`.
enum class TokenKind : std::uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

enum class TokenizerKind : std::uint8_t {
  byte_bpe,    ///< GPT-2: bytes of a word are merged by the rank of pairs
  score_bpe,   ///< SentencePiece: characters are merged where the joint token has the highest score
  merge_bpe,   ///< characters are merged by the rank of pairs: tokenizer.json of SentencePiece models, Gemma 4
  unigram,     ///< SentencePiece: of all ways to cut a word into tokens the one with the highest sum of scores
  word_piece,  ///< BERT: the longest token that a word begins with, then of its rest, and so on
};

struct MergePair {
  TokenId left = 0, right = 0;
};

/// A change of the text before it is cut.
struct NormalizerStep {
  enum class Kind : std::uint8_t {
    nfc,
    nfd,
    lowercase,
    strip_marks,             ///< characters of the categories M go
    strip_nonspacing_marks,  ///< only those of the category Mn
    replace,                 ///< every `from` becomes `to`
    replace_pattern,         ///< every match of the regular expression `from` becomes `to`
    prepend,                 ///< `to` in front, unless the text is empty
    charsmap,                ///< SentencePiece's binary `from` (charsmap.hpp)
    collapse_spaces,         ///< runs of spaces become one, and those at both ends go
    strip_left,              ///< white space in front goes
    strip_right,             ///< white space at the end goes
    clean,                   ///< BERT: control characters go, white space becomes a space
    space_ideographs,        ///< BERT: a space on both sides of each CJK ideograph
  };
  Kind kind = Kind::nfc;
  std::string from{}, to{};
  friend bool operator==(const NormalizerStep&, const NormalizerStep&) = default;
};

/// A cut of the pieces that there are so far, at the matches of a regular expression (pattern.hpp).
struct CutStep {
  /// The fate of a match: a piece of its own, dropped, joined with a neighbour, or with matches next to it. The text between two
  /// matches is a piece.
  enum class Behavior : std::uint8_t { isolated, removed, merged_with_previous, merged_with_next, contiguous };
  std::string pattern;
  Behavior behavior = Behavior::isolated;
  bool inverted = false;  ///< matches and the text between them change places
  friend bool operator==(const CutStep&, const CutStep&) = default;
};

/// How a token is found by its name, where that is more than the name's bytes.
struct NameRule {
  TokenId id = 0;
  bool swallows_left = false, swallows_right = false;  ///< white space beside it goes
  bool whole_word = false;                             ///< not inside a word
  bool normalized = false;                             ///< found in the normalized text, its own name normalized as well
};

/// Where a text gets a space in front.
enum class SpacePrefix : std::uint8_t {
  start,               ///< at its start
  start_and_controls,  ///< and behind each control token, as llama.cpp has it
  every_part,          ///< behind user-defined tokens as well
};

struct Vocabulary {
  TokenizerKind kind = TokenizerKind::byte_bpe;
  /// How a text is normalized and cut into words: a name in model::pre_tokenizers, or empty where `normalizer` and `cuts` say it.
  /// Kinds other than byte_bpe use the two lists alone.
  std::string pre = "gpt-2";
  std::vector<NormalizerStep> normalizer{};
  std::vector<CutStep> cuts{};
  /// The bytes that a token stands for: plain spaces, no byte alphabet, no U+2581. word_piece: a token that begins a word has a
  /// space in front, a token that continues one stands as it is.
  std::vector<std::string> tokens{};
  std::vector<TokenKind> kinds{};   ///< one per token
  std::vector<MergePair> merges{};  ///< byte_bpe, merge_bpe: best first
  std::vector<float> scores{};      ///< score_bpe, unigram: one per token, the highest first
  std::vector<NameRule> name_rules{};
  std::optional<TokenId> bos{}, eos{}, unknown{};
  bool add_bos = false;           ///< the model expects bos before a text; encode() leaves that to the caller
  bool add_space_prefix = false;  ///< a space is put before the text; where else, `prefix` says
  SpacePrefix prefix = SpacePrefix::start_and_controls;
  bool prefix_unless_space = false;  ///< but not where there is a space
  bool whole_words = false;          ///< a word that is a token is that token, whatever its merges would give
  bool tied_merges = false;          ///< merges that follow one another and make the same token are equally good (tiktoken)
  bool fuse_unknown = false;         ///< characters in a row that no token has make one `unknown`
  std::int32_t longest_word = 100;   ///< word_piece: of more characters than this becomes `unknown`
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::model
