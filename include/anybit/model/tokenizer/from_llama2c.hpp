#pragma once
// The vocabulary of llama2.c's tokenizer.bin.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <anybit/io/mapped_file.hpp>
#include <anybit/io/reader.hpp>
#include <anybit/model/tokenizer/spelling.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

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
