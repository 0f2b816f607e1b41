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
  byte_bpe,   ///< GPT-2: bytes of a word are merged by the rank of pairs
  score_bpe,  ///< SentencePiece: characters are merged where the joint token has the highest score
};

struct MergePair {
  TokenId left = 0, right = 0;
};

struct Vocabulary {
  TokenizerKind kind = TokenizerKind::byte_bpe;
  std::string pre = "gpt-2";        ///< byte_bpe: how a text is cut into words, a name in model::pre_tokenizers
  std::vector<std::string> tokens;  ///< the bytes that a token stands for: plain spaces, no byte alphabet, no U+2581
  std::vector<TokenKind> kinds;     ///< one per token
  std::vector<MergePair> merges;    ///< byte_bpe: best first
  std::vector<float> scores;        ///< score_bpe: one per token, the highest merges first
  std::optional<TokenId> bos, eos, unknown;
  bool add_bos = false;           ///< the model expects bos before a text; encode() leaves that to the caller
  bool add_space_prefix = false;  ///< score_bpe: a space is put before the text
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::model
