#pragma once
// Vocabularies without a list of merges: the bytes of each token and its rank, as tiktoken has them. Two neighbours merge where
// their joint bytes are a token, the one of the lowest rank first.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/tokenizer/text_index.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {
namespace detail {

/// The bytes that base64 with padding stands for; nothing if it is none.
inline std::optional<std::string> from_base64(std::string_view text) {
  constexpr auto values = [] {
    std::array<std::uint8_t, 256> out{};
    for (auto& v : out) v = 64;
    constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (std::size_t i = 0; i < alphabet.size(); ++i) out[static_cast<unsigned char>(alphabet[i])] = static_cast<std::uint8_t>(i);
    return out;
  }();
  if (text.size() % 4 != 0) return std::nullopt;
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  text.remove_suffix(padding);
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const std::uint8_t v = values[static_cast<unsigned char>(c)];
    if (v == 64) return std::nullopt;
    bits = bits << 6 | v;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>(bits >> count & 255u);
    }
  }
  return out;
}

/// Longer tokens are refused: the merges of a token are found by looking at all ways to cut it in two.
inline constexpr std::size_t longest_ranked_token = 1024;

/// Puts the token of rank `rank` at the id `rank` + `shift`. `v.tokens` has its size; a token of no bytes has no rank yet.
inline Status add_ranked_token(Vocabulary& v, std::uint64_t rank, std::uint64_t shift, std::string bytes) {
  const auto bad = [&](const auto&... why) {
    return Error{ErrorCode::corrupt_data,
                 io::detail::text("the token of rank ", rank, " ", why..., ": this is no list of ranks, or it is damaged")};
  };
  if (bytes.empty()) return bad("has no bytes");
  if (bytes.size() > longest_ranked_token) return bad("has ", bytes.size(), " bytes, more than ", longest_ranked_token);
  if (rank >= v.tokens.size() - shift) return bad("is beyond the ", v.tokens.size() - shift, " tokens that there are");
  std::string& token = v.tokens[static_cast<std::size_t>(rank + shift)];
  if (!token.empty()) return bad("comes twice");
  token = std::move(bytes);
  return Ok{};
}

/// All merges that make tokens of the kind `normal`, in the order of their ids.
inline Status make_merges(Vocabulary& v) {
  TextIndex ids(v.tokens);
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.kinds[i] != TokenKind::normal) continue;
    const TokenId first = ids.add(static_cast<TokenId>(i));
    if (first != static_cast<TokenId>(i))
      return {ErrorCode::corrupt_data, io::detail::text("the tokens ", first, " and ", i, " are the same bytes, ",
                                                        io::detail::shown(v.tokens[i]), ": the file is damaged, fetch it again")};
  }
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    const std::string_view token = v.tokens[i];
    for (std::size_t cut = 1; cut < token.size() && v.kinds[i] == TokenKind::normal; ++cut)
      if (const TokenId left = ids.find(token.substr(0, cut)); left >= 0)
        if (const TokenId right = ids.find(token.substr(cut)); right >= 0) v.merges.push_back({left, right});
  }
  v.tied_merges = true;
  return Ok{};
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
