#pragma once
// A vocabulary as metadata of a GGUF file: the inverse of from_gguf.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/gguf_writer.hpp>
#include <anybit/model/tokenizer/from_gguf.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// The inverse of from_byte_alphabet().
inline std::string to_byte_alphabet(std::string_view bytes) {
  constexpr auto alphabet = byte_alphabet();
  std::string out;
  for (const char c : bytes) {
    const char32_t code = alphabet[static_cast<unsigned char>(c)];
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else {
      out += static_cast<char>(0xC0 | code >> 6);
      out += static_cast<char>(0x80 | (code & 63));
    }
  }
  return out;
}

/// A token as GGUF spells it.
inline std::string gguf_spelling(const Vocabulary& v, std::size_t i) {
  std::string token = v.tokens[i];
  const TokenKind kind = v.kinds[i];
  if (v.kind == TokenizerKind::byte_bpe) return kind == TokenKind::normal ? to_byte_alphabet(token) : token;
  if (kind == TokenKind::byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(static_cast<unsigned char>(token[0])));
    return name;
  }
  if (kind != TokenKind::control) replace_all(token, " ", escaped_space);
  return token;
}

/// Scores that make the same merges in the same order as ranks of pairs: the first rank at which a token is made, negated.
inline std::vector<float> scores_of_merges(const Vocabulary& v) {
  std::vector<float> scores(v.tokens.size(), 0);
  TextIndex ids(v.tokens);
  for (std::size_t i = 0; i < v.tokens.size(); ++i) ids.add(static_cast<TokenId>(i));
  std::vector<char> made(v.tokens.size());
  for (std::size_t rank = 0; rank < v.merges.size(); ++rank) {
    const std::string joined =
        v.tokens[static_cast<std::size_t>(v.merges[rank].left)] + v.tokens[static_cast<std::size_t>(v.merges[rank].right)];
    const TokenId id = ids.find(joined);
    if (id < 0 || made[static_cast<std::size_t>(id)]) continue;
    made[static_cast<std::size_t>(id)] = 1;
    scores[static_cast<std::size_t>(id)] = -static_cast<float>(rank + 1);
  }
  return scores;
}

inline void write_vocabulary(io::GgufWriter& w, const Vocabulary& v) {
  const auto merges = [&] {
    std::vector<std::string> out;
    for (const MergePair m : v.merges)
      out.push_back(gguf_spelling(v, static_cast<std::size_t>(m.left)) + " " +
                    gguf_spelling(v, static_cast<std::size_t>(m.right)));
    w.add_metadata("tokenizer.ggml.merges", out);
  };
  switch (v.kind) {
    case TokenizerKind::byte_bpe:
      w.add_metadata("tokenizer.ggml.model", "gpt2");
      w.add_metadata("tokenizer.ggml.pre", v.pre == "gpt-neox" ? std::string_view("mpt") : v.pre);
      merges();
      break;
    case TokenizerKind::score_bpe:
      w.add_metadata("tokenizer.ggml.model", "llama");
      w.add_metadata("tokenizer.ggml.pre", "default");
      w.add_metadata("tokenizer.ggml.scores", v.scores);
      break;
    case TokenizerKind::merge_bpe:
      if (!v.cuts.empty()) {
        w.add_metadata("tokenizer.ggml.model", "gemma4");
        merges();
        break;
      }
      w.add_metadata("tokenizer.ggml.model", "llama");
      w.add_metadata("tokenizer.ggml.pre", "default");
      w.add_metadata("tokenizer.ggml.scores", scores_of_merges(v));
      break;
    case TokenizerKind::unigram: {
      w.add_metadata("tokenizer.ggml.model", "t5");
      w.add_metadata("tokenizer.ggml.pre", "default");
      w.add_metadata("tokenizer.ggml.scores", v.scores);
      bool collapse = false;
      for (const NormalizerStep& step : v.normalizer) {
        collapse = collapse || step.kind == NormalizerStep::Kind::collapse_spaces;
        if (step.kind == NormalizerStep::Kind::charsmap)
          w.add_metadata("tokenizer.ggml.precompiled_charsmap", std::vector<std::uint8_t>(step.from.begin(), step.from.end()));
      }
      w.add_metadata("tokenizer.ggml.remove_extra_whitespaces", collapse);
      break;
    }
    case TokenizerKind::word_piece: w.add_metadata("tokenizer.ggml.model", "bert"); break;
  }
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    tokens.push_back(gguf_spelling(v, i));
    types.push_back(static_cast<std::int32_t>(v.kinds[i]));
  }
  w.add_metadata("tokenizer.ggml.tokens", tokens);
  w.add_metadata("tokenizer.ggml.token_type", types);
  const auto id = [&](const char* key, const std::optional<TokenId>& value) {
    if (value) w.add_metadata(key, static_cast<std::uint32_t>(*value));
  };
  id("tokenizer.ggml.bos_token_id", v.bos), id("tokenizer.ggml.eos_token_id", v.eos),
      id("tokenizer.ggml.unknown_token_id", v.unknown);
  w.add_metadata("tokenizer.ggml.add_bos_token", v.add_bos);
  if (v.kind != TokenizerKind::byte_bpe && v.kind != TokenizerKind::word_piece)
    w.add_metadata("tokenizer.ggml.add_space_prefix", v.add_space_prefix);
}

/// Texts on which tokenizers differ: spaces, digits, capitals, marks, scripts, line ends, what is no character.
inline constexpr std::string_view telling_texts[] = {
    "Hello, world! It's 3:45 pm; they've 12345 items (50% off).",
    " leading and  double   spaces,\ttabs\n\nand lines\r\n  indented\n",
    "caf\xC3\xA9 na\xC3\xAFve e\xCC\x81 \xC3\x85ngstr\xC3\xB6m STRASSE stra\xC3\x9F"
    "e",
    "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE3\x81\xAE\xE6\x96\x87 \xD1\x80\xD1\x83\xD1\x81\xD1\x81\xD0\xBA\xD0\xB8\xD0\xB9 "
    "\xD8\xA7\xD9\x84\xD8\xB9\xD8\xB1\xD8\xA8\xD9\x8A\xD8\xA9 \xE0\xA4\xB9\xE0\xA4\xBF",
    "\xF0\x9F\x99\x82\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB \xE2\x82\xAC 100\xE2\x82\xAC \xC2\xBD \xE2\x85\xA7 \xC2\xB2",
    "def f(x):\n    return {\"a\": [x**2, x // 3]}  # comment_with_underscores && CamelCase",
    "don't DON'T we'll I'M \xE2\x80\x99s ... --- !!! ??? \xE2\x96\x81",
    "a",
    " ",
    "\n",
    "  a",
    "aaaaaaaaaaaaaaaaaaaaaaaaa 00000000"};

}  // namespace detail

/// Adds all keys of the tokenizer. An error where a reader of the file would cut a text into other tokens.
inline Status write_tokenizer(io::GgufWriter& to, const Tokenizer& t) {
  const Vocabulary& v = t.vocabulary();
  const auto cannot = [](std::string_view problem) {
    return Error{
        ErrorCode::unsupported,
        io::detail::text("the tokenizer ", problem, ": convert the tokenizer with the model's own tool, or use another model")};
  };
  if (v.kind == TokenizerKind::byte_bpe && v.pre.empty())
    return cannot("cuts texts into words by rules that have no name in GGUF (tokenizer.ggml.pre)");
  for (std::size_t i = 0; i < v.tokens.size(); ++i)
    if (v.kinds[i] == TokenKind::byte && v.tokens[i].size() != 1) return cannot("has a token for a byte that is not one byte");
  io::GgufWriter alone;
  detail::write_vocabulary(alone, v);
  const std::string bytes = alone.bytes();
  ANYBIT_TRY(const io::GgufFile file, io::GgufFile::parse(std::as_bytes(std::span(bytes)), "tokenizer"));
  auto back = tokenizer_from_gguf(file);
  if (!back) return in_context(back.error(), "the tokenizer as GGUF");
  for (const std::string_view text : detail::telling_texts) {
    const auto ours = t.encode(text, Specials::as_text), theirs = back->encode(text, Specials::as_text);
    if (ours.ok() != theirs.ok() || (ours && *ours != *theirs))
      return cannot(io::detail::text("would cut the text ", io::detail::shown(text), " into other tokens when read from GGUF"));
  }
  detail::write_vocabulary(to, v);
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
