#pragma once
// tiktoken's files of ranks: a line per token, its bytes in base64, a space, its rank. They do not say how a text is cut; for
// published ones the number of tokens tells.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/tokenizer/ranks.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

struct PublishedRanks {
  std::size_t tokens;
  std::string_view pre;  ///< a name in pre_tokenizers
};
inline constexpr PublishedRanks published_ranks[] = {
    {50256, "gpt-2"},       // r50k_base: GPT-2, GPT-3
    {50280, "gpt-2"},       // p50k_base: Codex
    {100256, "dbrx"},       // cl100k_base: GPT-4
    {128000, "llama-bpe"},  // Llama 3
    {151643, "qwen2"},      // Qwen to Qwen3
    {199998, "gpt-4o"},     // o200k_base: GPT-4o
    {200000, "llama4"},     // Llama 4
    {248044, "qwen35"},     // Qwen3.5, 3.6
};

}  // namespace detail

/// True if `text` starts with a line of such a file.
inline bool looks_like_tiktoken(std::string_view text) {
  text = text.substr(0, text.find('\n'));
  const std::size_t space = text.find(' ');
  return space != 0 && space != std::string_view::npos && detail::from_base64(text.substr(0, space)).has_value() &&
         space + 1 < text.size() && text[space + 1] >= '0' && text[space + 1] <= '9';
}

/// `pre` says how a text is cut, a name in pre_tokenizers; empty: by the number of tokens, where it is a published one.
inline Result<Tokenizer> tokenizer_from_tiktoken(std::span<const std::byte> bytes, std::string_view name,
                                                 std::string_view pre = {}) {
  std::string_view rest(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  Vocabulary v;
  const auto lines = static_cast<std::size_t>(std::count(rest.begin(), rest.end(), '\n'));
  constexpr std::size_t gaps = 1024;  // ranks that special tokens have in place of a line
  v.tokens.resize(lines + 1 + gaps);
  std::size_t count = 0, last = 0;
  for (std::size_t line = 1; !rest.empty(); ++line) {
    const std::string_view text = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(text.size() + 1, rest.size()));
    if (text.empty()) continue;
    const std::size_t space = std::min(text.find(' '), text.size());
    auto token = detail::from_base64(text.substr(0, space));
    std::uint64_t rank = 0;
    const char* const end = text.data() + text.size();
    const char* const digits = std::min(text.data() + space + 1, end);
    const auto parsed = std::from_chars(digits, end, rank);
    if (!token || parsed.ec != std::errc{} || parsed.ptr != end)
      return {ErrorCode::corrupt_data,
              io::detail::text(name, ": line ", line, " is ", io::detail::shown(text),
                               ", not base64, a space and a rank: this is no tiktoken file or it is damaged")};
    if (auto added = detail::add_ranked_token(v, rank, 0, *std::move(token)); !added)
      return in_context(added.error(), io::detail::text(name, ": line ", line));
    last = std::max(last, static_cast<std::size_t>(rank));
    ++count;
  }
  v.tokens.resize(count == 0 ? 0 : last + 1);
  for (const std::string& t : v.tokens) v.kinds.push_back(t.empty() ? TokenKind::unused : TokenKind::normal);
  if (pre.empty())
    for (const detail::PublishedRanks& p : detail::published_ranks)
      if (p.tokens == count) pre = p.pre;
  if (pre.empty())
    return {ErrorCode::unsupported,
            io::detail::text(name, ": a tiktoken file of ", count,
                             " tokens, which is none that anybit knows: name the pre-tokenizer that belongs to "
                             "it, or take the model's tokenizer.json")};
  v.pre = std::string(pre);
  v.whole_words = true;
  if (auto made = detail::make_merges(v); !made) return in_context(made.error(), name);
  auto tokenizer = Tokenizer::make(std::move(v));
  if (!tokenizer) return in_context(tokenizer.error(), name);
  return tokenizer;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
