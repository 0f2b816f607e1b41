#pragma once
// Vocabularies from files: GGUF metadata and llama2.c's tokenizer.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <anybit/io/gguf.hpp>
#include <anybit/io/mapped_file.hpp>
#include <anybit/io/reader.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// GPT-2's printable stand-ins for bytes: the printable Latin-1 characters stand for themselves, the other 68 bytes for
/// U+0100 onwards in their order.
constexpr std::array<char32_t, 256> byte_alphabet() {
  std::array<char32_t, 256> out{};
  char32_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    out[b] = printable ? b : next++;
  }
  return out;
}

/// The bytes that `spelled` stands for; nothing if a character is outside the alphabet.
inline std::optional<std::string> from_byte_alphabet(std::string_view spelled) {
  constexpr auto bytes_of = [] {
    std::array<int, 0x144> inverse{};
    for (int& b : inverse) b = -1;
    for (unsigned b = 0; b < 256; ++b) inverse[byte_alphabet()[b]] = static_cast<int>(b);
    return inverse;
  }();
  std::string out;
  for (std::size_t at = 0; at < spelled.size();) {
    const DecodedChar c = decode_utf8(spelled.substr(at));
    if (!c.valid || c.code_point >= bytes_of.size() || bytes_of[c.code_point] < 0) return std::nullopt;
    out += static_cast<char>(bytes_of[c.code_point]);
    at += c.bytes;
  }
  return out;
}

/// The value of "<0xFF>", or -1.
inline int byte_token(std::string_view t) {
  if (t.size() != 6 || !t.starts_with("<0x") || t[5] != '>') return -1;
  int value = 0;
  for (const char c : t.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

inline void replace_all(std::string& s, std::string_view from, std::string_view to) {
  for (std::size_t at = s.find(from); at != std::string::npos; at = s.find(from, at + to.size())) s.replace(at, from.size(), to);
}

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

/// llama2.c's tokenizer.bin: i32 longest token, then for each token f32 score, i32 length, its bytes. Token 0 is unknown, 1 and
/// 2 are bos and eos. The file does not say how many tokens it holds, so it is read to its end.
inline Result<Tokenizer> tokenizer_from_llama2c(std::span<const std::byte> bytes, std::string_view name) {
  Vocabulary v;
  v.kind = TokenizerKind::score_bpe;
  v.add_bos = v.add_space_prefix = true;
  io::ByteReader reader(bytes);
  const auto read = [&]() -> Status {
    ANYBIT_TRY(const std::int32_t longest, reader.number<std::int32_t>("the longest token's length"));
    while (reader.remaining() != 0) {
      const std::size_t i = v.tokens.size();
      ANYBIT_TRY(const float score, reader.number<float>("the score of a token"));
      ANYBIT_TRY(const std::int32_t length, reader.number<std::int32_t>("the length of a token"));
      if (length < 0 || length > longest)
        return {ErrorCode::corrupt_data, io::detail::text("token ", i, " has ", length, " bytes, not 0 to ", longest,
                                                          ": this is no llama2.c tokenizer or it is damaged")};
      ANYBIT_TRY(const std::span<const std::byte> text, reader.take(static_cast<std::uint64_t>(length), "a token"));
      v.tokens.emplace_back(reinterpret_cast<const char*>(text.data()), text.size());
      v.scores.push_back(score);
      const int byte = detail::byte_token(v.tokens.back());
      if (byte >= 0) v.tokens.back().assign(1, static_cast<char>(byte));
      v.kinds.push_back(byte >= 0 ? TokenKind::byte : TokenKind::normal);
    }
    if (v.tokens.size() < 3)
      return {
          ErrorCode::corrupt_data,
          io::detail::text("only ", v.tokens.size(), " tokens, fewer than unknown, bos and eos: this is no llama2.c tokenizer")};
    return Ok{};
  };
  if (auto done = read(); !done) return in_context(done.error(), name);
  v.unknown = 0, v.bos = 1, v.eos = 2;
  v.kinds[0] = TokenKind::unknown;
  v.kinds[1] = v.kinds[2] = TokenKind::control;
  v.tokens[1] = "<s>";  // stored with line breaks around it
  v.tokens[2] = "</s>";
  auto tokenizer = Tokenizer::make(std::move(v));
  if (!tokenizer) return in_context(tokenizer.error(), name);
  return tokenizer;
}
inline Result<Tokenizer> tokenizer_from_llama2c(const std::string& path) {
  ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(path));
  return tokenizer_from_llama2c(file.bytes(), path);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
