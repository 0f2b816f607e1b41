#pragma once
// SentencePiece's tokenizer.model: a protocol buffers message of pieces and of the settings of training and normalizing.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/detail/utf8.hpp>
#include <anybit/model/tokenizer/protobuf.hpp>
#include <anybit/model/tokenizer/rules.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// Calls `field(const ProtobufField&) -> Status` for each field of a message.
template <class Field>
Status for_each_field(std::string_view message, Field&& field) {
  for (ProtobufReader reader(message); !reader.done();) {
    ANYBIT_TRY(const ProtobufField f, reader.next());
    ANYBIT_TRY_STATUS(field(f));
  }
  return Ok{};
}

/// The message ModelProto, with its numbers of fields.
class SentencePieceModel {
 public:
  Status read(std::string_view model) {
    ANYBIT_TRY_STATUS(for_each_field(model, [&](const ProtobufField& f) -> Status {
      if (f.tag == 1 && f.is_bytes) return read_piece(f.bytes);
      if (f.tag == 2 && f.is_bytes) return read_trainer(f.bytes);
      if (f.tag == 3 && f.is_bytes) return read_normalizer(f.bytes);
      return Ok{};
    }));
    return finish();
  }

  Vocabulary v;

 private:
  enum ModelType : std::uint64_t { unigram = 1, bpe = 2 };

  Status read_piece(std::string_view message) {
    std::string piece;
    float score = 0;
    std::uint64_t type = 1;
    ANYBIT_TRY_STATUS(for_each_field(message, [&](const ProtobufField& f) -> Status {
      if (f.tag == 1 && f.is_bytes) piece = std::string(f.bytes);
      if (f.tag == 2 && !f.is_bytes) score = f.as_float();
      if (f.tag == 3 && !f.is_bytes) type = f.number;
      return Ok{};
    }));
    const std::size_t i = v.tokens.size();
    if (type < 1 || type > 6) return bad(io::detail::text("piece ", i, " has the type ", type, ", not 1 to 6"));
    if (!io::detail::is_utf8(piece)) return bad(io::detail::text("piece ", i, ", ", io::detail::shown(piece), ", is not UTF-8"));
    v.tokens.push_back(std::move(piece));
    v.scores.push_back(score);
    v.kinds.push_back(static_cast<TokenKind>(type));
    return Ok{};
  }

  Status read_trainer(std::string_view message) {
    return for_each_field(message, [&](const ProtobufField& f) -> Status {
      if (f.is_bytes) return Ok{};
      const auto id = static_cast<std::int64_t>(f.number);  // negative: there is none
      switch (f.tag) {
        case 3: type_ = f.number; break;
        case 24: space_behind_ = f.number != 0; break;
        case 41: bos_ = id; break;
        case 42: eos_ = id; break;
        default: break;
      }
      return Ok{};
    });
  }

  Status read_normalizer(std::string_view message) {
    return for_each_field(message, [&](const ProtobufField& f) -> Status {
      if (f.tag == 2 && f.is_bytes) charsmap_ = std::string(f.bytes);
      if (f.tag == 3 && !f.is_bytes) v.add_space_prefix = f.number != 0;
      if (f.tag == 4 && !f.is_bytes) collapse_ = f.number != 0;
      if (f.tag == 5 && !f.is_bytes) escape_ = f.number != 0;
      return Ok{};
    });
  }

  Status finish() {
    if (v.tokens.empty()) return bad("it has no pieces");
    if (type_ != unigram && type_ != bpe)
      return {ErrorCode::unsupported, io::detail::text("its model_type is ", type_, "; anybit knows 1 (unigram) and 2 (BPE)")};
    if (space_behind_ || !escape_)
      return {ErrorCode::unsupported, "spaces are put behind words, or are not escaped: anybit knows them escaped in front only"};
    v.kind = type_ == bpe ? TokenizerKind::score_bpe : TokenizerKind::unigram;
    v.fuse_unknown = v.kind == TokenizerKind::unigram;
    add_sentencepiece_normalizer(v, std::move(charsmap_), collapse_);
    ANYBIT_TRY_STATUS(apply_sentencepiece_spelling(v));
    for (std::size_t i = 0; i < v.kinds.size() && !v.unknown; ++i)
      if (v.kinds[i] == TokenKind::unknown) v.unknown = static_cast<TokenId>(i);
    ANYBIT_TRY(v.bos, special(bos_, 1));
    ANYBIT_TRY(v.eos, special(eos_, 2));
    v.add_bos = v.bos && v.kind == TokenizerKind::score_bpe;
    return Ok{};
  }

  /// The piece that a setting names, none where it is negative. Without the setting `usual`, where that is a control piece.
  Result<std::optional<TokenId>> special(std::optional<std::int64_t> id, std::size_t usual) const {
    const auto size = static_cast<std::int64_t>(v.tokens.size());
    if (!id) {
      const bool there = usual < v.kinds.size() && v.kinds[usual] == TokenKind::control;
      return there ? std::optional<TokenId>(static_cast<TokenId>(usual)) : std::nullopt;
    }
    if (*id >= size) return bad(io::detail::text("bos or eos is ", *id, " of ", size, " pieces"));
    return *id < 0 ? std::nullopt : std::optional<TokenId>(static_cast<TokenId>(*id));
  }

  static Error bad(std::string what) { return {ErrorCode::corrupt_data, std::move(what)}; }

  std::string charsmap_;
  std::uint64_t type_ = unigram;
  std::optional<std::int64_t> bos_, eos_;
  bool space_behind_ = false, collapse_ = true, escape_ = true;
};

}  // namespace detail

/// The vocabulary in a tokenizer.model of BPE or unigram kind. `name` is for errors.
inline Result<Vocabulary> vocabulary_from_sentencepiece(std::span<const std::byte> bytes, std::string_view name) {
  detail::SentencePieceModel model;
  model.v.add_space_prefix = true;
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (auto read = model.read(text); !read)
    return {read.error().code, io::detail::text(name, ": ", read.error().message,
                                                ": this is no SentencePiece model that anybit knows, or it is damaged")};
  return std::move(model.v);
}

inline Result<Tokenizer> tokenizer_from_sentencepiece(std::span<const std::byte> bytes, std::string_view name) {
  ANYBIT_TRY(Vocabulary v, vocabulary_from_sentencepiece(bytes, name));
  auto tokenizer = Tokenizer::make(std::move(v));
  if (!tokenizer) return in_context(tokenizer.error(), name);
  return tokenizer;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
