#pragma once
// The vocabulary in the metadata of a GGUF file.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/gguf.hpp>
#include <anybit/model/tokenizer/rules.hpp>
#include <anybit/model/tokenizer/spelling.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

inline Result<std::vector<TokenKind>> token_kinds(const io::GgufFile& file, std::size_t tokens) {
  if (!file.has("tokenizer.ggml.token_type")) return std::vector<TokenKind>(tokens, TokenKind::normal);
  ANYBIT_TRY(const std::vector<std::int32_t> types, file.get_ints("tokenizer.ggml.token_type"));
  std::vector<TokenKind> out;
  for (std::size_t i = 0; i < types.size(); ++i) {
    if (types[i] < 1 || types[i] > 6)
      return {ErrorCode::corrupt_data, io::detail::text(file.name(), ": tokenizer.ggml.token_type: token ", i, " has type ",
                                                        types[i], ", not 1 to 6: convert the model again")};
    out.push_back(static_cast<TokenKind>(types[i]));
  }
  return out;
}

inline Status read_special_ids(const io::GgufFile& file, Vocabulary& v) {
  const auto id = [&](std::string_view key, std::optional<TokenId>& to) -> Status {
    if (!file.has(key)) return Ok{};
    ANYBIT_TRY(const std::uint64_t value, file.get_u64(key));
    if (value >= v.tokens.size())
      return {ErrorCode::corrupt_data, io::detail::text(file.name(), ": ", key, " is ", value, ", outside the vocabulary of ",
                                                        v.tokens.size(), ": convert the model again")};
    to = static_cast<TokenId>(value);
    return Ok{};
  };
  ANYBIT_TRY_STATUS(id("tokenizer.ggml.bos_token_id", v.bos));
  ANYBIT_TRY_STATUS(id("tokenizer.ggml.eos_token_id", v.eos));
  ANYBIT_TRY_STATUS(id("tokenizer.ggml.unknown_token_id", v.unknown));
  const PreTokenizer* const pre = v.kind == TokenizerKind::byte_bpe ? find_pre_tokenizer(v.pre) : nullptr;
  const bool spaces = v.kind == TokenizerKind::score_bpe || v.kind == TokenizerKind::unigram;
  v.add_space_prefix = spaces;
  v.add_bos = v.kind == TokenizerKind::score_bpe || (pre && pre->adds_bos);
  if (file.has("tokenizer.ggml.add_bos_token")) {
    ANYBIT_TRY(v.add_bos, file.get_bool("tokenizer.ggml.add_bos_token"));
  }
  if ((spaces || v.kind == TokenizerKind::merge_bpe) && file.has("tokenizer.ggml.add_space_prefix")) {
    ANYBIT_TRY(v.add_space_prefix, file.get_bool("tokenizer.ggml.add_space_prefix"));
  }
  v.add_bos = v.add_bos && v.bos.has_value();
  return Ok{};
}

/// The name of the pre-tokenizer. Files of GPT-NeoX from before there were names have none.
inline Result<std::string> read_pre_tokenizer(const io::GgufFile& file) {
  if (file.has("tokenizer.ggml.pre")) return file.get_string("tokenizer.ggml.pre");
  if (file.has("general.architecture")) {
    ANYBIT_TRY(const std::string architecture, file.get_string("general.architecture"));
    if (architecture == "gptneox") return std::string("gpt-neox");
  }
  return {ErrorCode::corrupt_data, io::detail::text(file.name(),
                                                    ": no key 'tokenizer.ggml.pre', which says how a text is cut "
                                                    "into words: convert the model again with a current tool")};
}

/// `to_token(std::string_view) -> std::optional<std::string>` undoes the spelling of a token.
template <class ToToken>
Status read_merges(const io::GgufFile& file, Vocabulary& v, ToToken&& to_token) {
  TextIndex ids(v.tokens);
  for (std::size_t i = 0; i < v.tokens.size(); ++i)
    if (v.kinds[i] == TokenKind::normal) ids.add(static_cast<TokenId>(i));
  ANYBIT_TRY(const std::vector<std::string> merges, file.get_strings("tokenizer.ggml.merges"));
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const std::string_view pair = merges[i];
    const auto bad = [&](std::string_view why) {
      return Error{ErrorCode::corrupt_data, io::detail::text(file.name(), ": tokenizer.ggml.merges: ", io::detail::shown(pair),
                                                             " (number ", i, ") ", why, ": convert the model again")};
    };
    const auto space = pair.find(' ');  // in a token it is spelled otherwise
    if (space == std::string_view::npos) return bad("is no pair");
    const auto find = [&](std::string_view spelled) {
      const std::optional<std::string> token = to_token(spelled);
      return token ? ids.find(*token) : TokenId{-1};
    };
    const TokenId left = find(pair.substr(0, space)), right = find(pair.substr(space + 1));
    if (left < 0 || right < 0) return bad("joins what is no token");
    v.merges.push_back({left, right});
  }
  return Ok{};
}

inline Status read_byte_bpe(const io::GgufFile& file, Vocabulary& v) {
  v.kind = TokenizerKind::byte_bpe;
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.kinds[i] != TokenKind::normal) continue;
    auto bytes = from_byte_alphabet(v.tokens[i]);
    if (bytes)
      v.tokens[i] = *std::move(bytes);
    else
      v.kinds[i] = TokenKind::unused;  // no merge makes it: it is what it spells, and no text has it
  }
  ANYBIT_TRY(v.pre, read_pre_tokenizer(file));
  return read_merges(file, v, from_byte_alphabet);
}

/// SentencePiece: "llama" by scores, "gemma4" by merges inside lines.
inline Status read_sentencepiece_bpe(const io::GgufFile& file, Vocabulary& v, bool merges) {
  v.kind = merges ? TokenizerKind::merge_bpe : TokenizerKind::score_bpe;
  if (auto spelled = apply_sentencepiece_spelling(v); !spelled) return in_context(spelled.error(), file.name());
  if (!merges) {
    ANYBIT_TRY(v.scores, file.get_floats("tokenizer.ggml.scores"));
    return Ok{};
  }
  v.cuts.push_back({R"([^\n]+|\n+)"});
  return read_merges(file, v, [](std::string_view spelled) -> std::optional<std::string> {
    std::string token(spelled);
    replace_all(token, escaped_space, " ");
    return token;
  });
}

inline Status read_unigram(const io::GgufFile& file, Vocabulary& v) {
  v.kind = TokenizerKind::unigram;
  v.fuse_unknown = true;
  std::string charsmap;
  if (constexpr std::string_view key = "tokenizer.ggml.precompiled_charsmap"; file.has(key)) {
    ANYBIT_TRY(const std::vector<std::int32_t> bytes, file.get_ints(key));
    for (const std::int32_t b : bytes) charsmap += static_cast<char>(b);
  }
  bool collapse = false;
  if (constexpr std::string_view key = "tokenizer.ggml.remove_extra_whitespaces"; file.has(key)) {
    ANYBIT_TRY(collapse, file.get_bool(key));
  }
  add_sentencepiece_normalizer(v, std::move(charsmap), collapse);
  if (auto spelled = apply_sentencepiece_spelling(v); !spelled) return in_context(spelled.error(), file.name());
  ANYBIT_TRY(v.scores, file.get_floats("tokenizer.ggml.scores"));
  return Ok{};
}

/// Converters keep lower-case vocabularies only, and spell the beginning of a word U+2581.
inline Status read_word_piece(Vocabulary& v) {
  v.kind = TokenizerKind::word_piece;
  add_bert_normalizer(v.normalizer, true, true, true, true);
  add_bert_cuts(v);
  for (std::size_t i = 0; i < v.tokens.size(); ++i)
    if (v.kinds[i] == TokenKind::normal) replace_all(v.tokens[i], escaped_space, " ");
  return Ok{};
}

}  // namespace detail

/// The vocabulary in a GGUF file's metadata. `tokenizer.ggml.model` is "gpt2" (byte-level BPE), "llama" (SentencePiece's BPE),
/// "gemma4" (the same with merges), "t5" (unigram) or "bert" (WordPiece).
inline Result<Tokenizer> tokenizer_from_gguf(const io::GgufFile& file) {
  Vocabulary v;
  ANYBIT_TRY(const std::string model, file.get_string("tokenizer.ggml.model"));
  ANYBIT_TRY(v.tokens, file.get_strings("tokenizer.ggml.tokens"));
  ANYBIT_TRY(v.kinds, detail::token_kinds(file, v.tokens.size()));
  if (v.kinds.size() != v.tokens.size())
    return {ErrorCode::corrupt_data, io::detail::text(file.name(), ": tokenizer.ggml.token_type has ", v.kinds.size(),
                                                      " entries for ", v.tokens.size(), " tokens: convert the model again")};
  const auto read_model = [&]() -> Status {
    if (model == "gpt2") return detail::read_byte_bpe(file, v);
    if (model == "llama" || model == "gemma4") return detail::read_sentencepiece_bpe(file, v, model == "gemma4");
    if (model == "t5") return detail::read_unigram(file, v);
    if (model == "bert") return detail::read_word_piece(v);
    return {ErrorCode::unsupported,
            io::detail::text(file.name(), ": tokenizer.ggml.model is ", io::detail::shown(model),
                             "; anybit knows 'gpt2', 'llama', 'gemma4', 't5' and 'bert': use a model with one of these")};
  };
  ANYBIT_TRY_STATUS(read_model());
  ANYBIT_TRY_STATUS(detail::read_special_ids(file, v));
  auto tokenizer = Tokenizer::make(std::move(v));
  if (!tokenizer) return in_context(tokenizer.error(), file.name());
  return tokenizer;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
