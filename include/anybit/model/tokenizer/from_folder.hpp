#pragma once
// The tokenizer of a Hugging Face folder: tokenizer.json, or else tokenizer.model, with what tokenizer_config.json adds.

#include <anybit/core/macros_begin.hpp>

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/json.hpp>
#include <anybit/io/mapped_file.hpp>
#include <anybit/model/tokenizer/from_huggingface.hpp>
#include <anybit/model/tokenizer/from_sentencepiece.hpp>
#include <anybit/model/tokenizer/from_tekken.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// Tokens that a tokenizer.model has not and the member `added_tokens_decoder` has: { "32000": { "content": .. } }.
inline Status add_configured_tokens(const io::JsonObject& config, Vocabulary& v) {
  if (!config.has("added_tokens_decoder")) return Ok{};
  ANYBIT_TRY(const io::JsonObject tokens, config.object("added_tokens_decoder"));
  const std::size_t size = v.tokens.size();  // an id far behind them is damage
  for (const std::string_view key : tokens.keys()) {
    std::uint32_t id = 0;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc{} || parsed.ptr != key.data() + key.size() || id >= size + 65536)
      return tokens.wrong(key, "a token under its id");
    ANYBIT_TRY(const io::JsonObject token, tokens.object(key));
    ANYBIT_TRY(const std::string content, token.text("content"));
    const auto flag = [&](std::string_view name) { return token.has(name) ? token.boolean(name) : Result<bool>(false); };
    ANYBIT_TRY(const bool special, flag("special"));
    NameRule rule{static_cast<TokenId>(id)};
    ANYBIT_TRY(rule.swallows_left, flag("lstrip"));
    ANYBIT_TRY(rule.swallows_right, flag("rstrip"));
    ANYBIT_TRY(rule.whole_word, flag("single_word"));
    if (rule.swallows_left || rule.swallows_right || rule.whole_word) v.name_rules.push_back(rule);
    if (id < v.tokens.size()) continue;  // the vocabulary knows it
    v.tokens.resize(id + 1), v.kinds.resize(id + 1, TokenKind::unused), v.scores.resize(id + 1);
    v.tokens[id] = content;
    v.kinds[id] = special ? TokenKind::control : TokenKind::user_defined;
  }
  return Ok{};
}

/// The id of the token that `config` names: "</s>" or { "content": "</s>" }.
inline std::optional<TokenId> configured_token(const io::JsonObject& config, std::string_view key, const Vocabulary& v) {
  const io::JsonValue* found = config.find(key);
  if (found && found->find("content")) found = found->find("content");
  const std::string* const name = found ? found->as<std::string>() : nullptr;
  for (std::size_t i = 0; name && i < v.tokens.size(); ++i)
    if (v.kinds[i] != TokenKind::byte && v.tokens[i] == *name) return static_cast<TokenId>(i);
  return std::nullopt;
}

}  // namespace detail

/// `folder` without a separator at its end. Whether bos is put before a text: by the post-processor of tokenizer.json, or by
/// `add_bos_token` where there is only a tokenizer.model. A tekken.json is taken last.
inline Result<Tokenizer> tokenizer_from_folder(const std::string& folder) {
  const auto path = [&](std::string_view name) { return folder + "/" + std::string(name); };
  const auto has = [&](std::string_view name) {
    std::error_code ignored;
    return std::filesystem::exists(path(name), ignored);
  };
  Vocabulary v;
  std::string from;
  if (has("tokenizer.json")) {
    from = path("tokenizer.json");
    ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(from));
    ANYBIT_TRY(v, vocabulary_from_huggingface(file.bytes(), from));
  } else if (has("tokenizer.model")) {
    from = path("tokenizer.model");
    ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(from));
    ANYBIT_TRY(v, vocabulary_from_sentencepiece(file.bytes(), from));
  } else if (has("tekken.json")) {
    ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(path("tekken.json")));
    return tokenizer_from_tekken(file.bytes(), path("tekken.json"));
  } else {
    return {ErrorCode::io, io::detail::text(folder,
                                            ": the folder has no tokenizer.json, tokenizer.model or tekken.json: fetch the "
                                            "one that belongs to the model")};
  }
  if (has("tokenizer_config.json")) {
    const std::string name = path("tokenizer_config.json");
    ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(name));
    const auto parsed = io::parse_json({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
    if (!parsed) return in_context(parsed.error(), name);
    const io::JsonObject config(*parsed, name);
    const bool sentencepiece = !has("tokenizer.json");
    if (sentencepiece) ANYBIT_TRY_STATUS(detail::add_configured_tokens(config, v));
    if (!v.bos || sentencepiece)
      if (const auto bos = detail::configured_token(config, "bos_token", v)) v.bos = bos;
    if (const auto eos = detail::configured_token(config, "eos_token", v)) v.eos = eos;
    if (sentencepiece && config.has("add_bos_token")) {
      ANYBIT_TRY(const bool add, config.boolean("add_bos_token"));
      v.add_bos = add && v.bos.has_value();
    }
  }
  auto tokenizer = Tokenizer::make(std::move(v));
  if (!tokenizer) return in_context(tokenizer.error(), from);
  return tokenizer;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
