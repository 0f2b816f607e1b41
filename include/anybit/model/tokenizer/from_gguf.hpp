#pragma once
// The vocabulary in the metadata of a GGUF file.

#include <anybit/core/macros_begin.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <anybit/io/gguf.hpp>
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
  v.add_space_prefix = v.kind == TokenizerKind::score_bpe;
  v.add_bos = v.add_space_prefix || (pre && pre->adds_bos);
  if (file.has("tokenizer.ggml.add_bos_token")) {
    ANYBIT_TRY(v.add_bos, file.get_bool("tokenizer.ggml.add_bos_token"));
  }
  if (v.kind == TokenizerKind::score_bpe && file.has("tokenizer.ggml.add_space_prefix")) {
    ANYBIT_TRY(v.add_space_prefix, file.get_bool("tokenizer.ggml.add_space_prefix"));
  }
  v.add_bos = v.add_bos && v.bos.has_value();
  return Ok{};
}

inline Status read_merges(const io::GgufFile& file, Vocabulary& v) {
  if (!file.has("tokenizer.ggml.pre"))
    return {ErrorCode::corrupt_data, io::detail::text(file.name(),
                                                      ": no key 'tokenizer.ggml.pre', which says how a text is cut "
                                                      "into words: convert the model again with a current tool")};
  ANYBIT_TRY(v.pre, file.get_string("tokenizer.ggml.pre"));
  std::unordered_map<std::string_view, TokenId> ids;
  for (std::size_t i = 0; i < v.tokens.size(); ++i)
    if (v.kinds[i] == TokenKind::normal) ids.emplace(v.tokens[i], static_cast<TokenId>(i));
  ANYBIT_TRY(const std::vector<std::string> merges, file.get_strings("tokenizer.ggml.merges"));
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const std::string_view pair = merges[i];
    const auto space = pair.find(' ');  // the byte alphabet has no space of its own
    if (space == std::string_view::npos)
      return {ErrorCode::corrupt_data, io::detail::text(file.name(), ": tokenizer.ggml.merges: ", io::detail::shown(pair),
                                                        " (number ", i, ") is no pair: convert the model again")};
    const auto find = [&](std::string_view spelled) {
      const auto bytes = from_byte_alphabet(spelled);
      return bytes ? ids.find(*bytes) : ids.end();
    };
    const auto left = find(pair.substr(0, space)), right = find(pair.substr(space + 1));
    if (left == ids.end() || right == ids.end())
      return {ErrorCode::corrupt_data, io::detail::text(file.name(), ": tokenizer.ggml.merges: ", io::detail::shown(pair),
                                                        " (number ", i, ") joins what is no token: convert the model again")};
    v.merges.push_back({left->second, right->second});
  }
  return Ok{};
}

inline Status read_scores(const io::GgufFile& file, Vocabulary& v) {
  ANYBIT_TRY(v.scores, file.get_floats("tokenizer.ggml.scores"));
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.kinds[i] != TokenKind::byte) {
      replace_all(v.tokens[i], "\xE2\x96\x81", " ");  // U+2581 stands for a space
      continue;
    }
    const int byte = byte_token(v.tokens[i]);
    if (byte < 0)
      return {ErrorCode::corrupt_data,
              io::detail::text(file.name(), ": tokenizer.ggml.tokens: token ", i, " is ", io::detail::shown(v.tokens[i]),
                               ", a byte by its type but not by its name: convert the model again")};
    v.tokens[i].assign(1, static_cast<char>(byte));
  }
  return Ok{};
}

}  // namespace detail

/// The vocabulary in a GGUF file's metadata: `tokenizer.ggml.model` "gpt2" (byte-level BPE) or "llama" (SentencePiece).
inline Result<Tokenizer> tokenizer_from_gguf(const io::GgufFile& file) {
  Vocabulary v;
  ANYBIT_TRY(const std::string model, file.get_string("tokenizer.ggml.model"));
  if (model != "gpt2" && model != "llama")
    return {ErrorCode::unsupported, io::detail::text(file.name(), ": tokenizer.ggml.model is ", io::detail::shown(model),
                                                     "; anybit knows 'gpt2' and 'llama': use a model with one of these")};
  v.kind = model == "gpt2" ? TokenizerKind::byte_bpe : TokenizerKind::score_bpe;
  ANYBIT_TRY(v.tokens, file.get_strings("tokenizer.ggml.tokens"));
  ANYBIT_TRY(v.kinds, detail::token_kinds(file, v.tokens.size()));
  if (v.kinds.size() != v.tokens.size())
    return {ErrorCode::corrupt_data, io::detail::text(file.name(), ": tokenizer.ggml.token_type has ", v.kinds.size(),
                                                      " entries for ", v.tokens.size(), " tokens: convert the model again")};
  if (v.kind == TokenizerKind::byte_bpe) {
    for (std::size_t i = 0; i < v.tokens.size(); ++i) {
      if (v.kinds[i] != TokenKind::normal) continue;
      auto bytes = detail::from_byte_alphabet(v.tokens[i]);
      if (bytes)
        v.tokens[i] = *std::move(bytes);
      else
        v.kinds[i] = TokenKind::unused;  // no merge makes it: it is what it spells, and no text has it
    }
    ANYBIT_TRY_STATUS(detail::read_merges(file, v));
  } else {
    ANYBIT_TRY_STATUS(detail::read_scores(file, v));
  }
  ANYBIT_TRY_STATUS(detail::read_special_ids(file, v));
  auto tokenizer = Tokenizer::make(std::move(v));
  if (!tokenizer) return in_context(tokenizer.error(), file.name());
  return tokenizer;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
