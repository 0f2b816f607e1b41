#pragma once
// Text to token ids and back, for the two families of tokenizers that llama-architecture models come with.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <bitset>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/stable_sort.hpp>
#include <anybit/core/types.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/tokenizer/bpe.hpp>
#include <anybit/model/tokenizer/pre_tokenizer.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The meaning of a control token's name ("</s>", "<|im_end|>") inside a text. Text that others wrote is text: only a prompt
/// that the program itself makes, a chat template's for example, asks for control tokens by name.
enum class Specials { as_text, parsed };

/// Immutable; copies share their tables and may be used from any thread.
class Tokenizer {
 public:
  /// Checks that ids are in range, sizes agree, and every merge makes a token.
  static Result<Tokenizer> make(Vocabulary v) {
    auto tables = std::make_shared<Tables>();
    tables->v = std::move(v);
    ANYBIT_TRY_STATUS(tables->check());
    if (tables->v.kind == TokenizerKind::byte_bpe) ANYBIT_TRY_STATUS(tables->make_splitter());
    tables->index_tokens();
    ANYBIT_TRY_STATUS(tables->index_merges());
    return Tokenizer(std::move(tables));
  }

  const Vocabulary& vocabulary() const { return t_->v; }
  Index size() const { return static_cast<Index>(t_->v.tokens.size()); }

  /// Bytes that are not UTF-8 are encoded as they are where the vocabulary has tokens for single bytes. A byte without any
  /// token is an error that names its place. No token is put in front of the text; see Vocabulary::add_bos.
  /// Added words (TokenKind::user_defined) are found in the text before everything else, the longest first. decode() gives the
  /// text back, byte for byte.
  Result<std::vector<TokenId>> encode(std::string_view text, Specials specials = Specials::as_text) const {
    std::vector<TokenId> out;
    Scratch scratch;
    for (std::size_t at = 0; at < text.size();) {
      const Found control = specials == Specials::parsed ? t_->control.find(text, at, t_->v) : Found{text.size(), -1};
      if (control.begin != at) ANYBIT_TRY_STATUS(encode_part(text.substr(at, control.begin - at), at, scratch, out));
      if (control.id < 0) break;
      out.push_back(control.id);
      at = control.begin + t_->text_of(control.id).size();
    }
    return out;
  }

  /// The bytes of `ids`, which are the text for the ids of a text. Control tokens appear by name; the space that encode() puts
  /// before a text, and behind each control token, is taken off again.
  Result<std::string> decode(std::span<const TokenId> ids) const {
    std::string out;
    bool at_start = true;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= size())
        return {ErrorCode::invalid_argument,
                io::detail::text("token ", i, " has the id ", ids[i], ", but the vocabulary ends at ", size() - 1,
                                 ": the ids belong to another tokenizer")};
      std::string_view piece = token(ids[i]);
      const bool control = t_->v.kinds[static_cast<std::size_t>(ids[i])] == TokenKind::control;
      if (at_start && !control && t_->v.add_space_prefix && piece.starts_with(' ')) piece.remove_prefix(1);
      at_start = control;
      out += piece;
    }
    return out;
  }

  /// The bytes that one token stands for.
  std::string_view token(TokenId id) const {
    ANYBIT_CHECK(id >= 0 && id < size(), "Tokenizer::token: id out of range");
    return t_->v.tokens[static_cast<std::size_t>(id)];
  }

 private:
  struct Found {
    std::size_t begin;
    TokenId id;  ///< -1: none up to the end
  };
  /// Tokens that are found in a text by their names.
  struct Names {
    std::vector<TokenId> ids;  ///< the longest name first
    std::bitset<256> first;    ///< bytes that names begin with

    void add(TokenId id, const std::string& name) {
      ids.push_back(id);
      first.set(static_cast<unsigned char>(name[0]));
    }
    void sort(const Vocabulary& v) {
      const auto size = [&](TokenId id) { return v.tokens[static_cast<std::size_t>(id)].size(); };
      anybit::stable_sort(ids.begin(), ids.end(), [&](TokenId a, TokenId b) { return size(a) > size(b); });
    }
    /// The first one at or after `at`, the longest where several start.
    Found find(std::string_view text, std::size_t at, const Vocabulary& v) const {
      if (!ids.empty())
        for (; at < text.size(); ++at) {
          if (!first[static_cast<unsigned char>(text[at])]) continue;
          for (const TokenId id : ids)
            if (text.substr(at).starts_with(v.tokens[static_cast<std::size_t>(id)])) return {at, id};
        }
      return {text.size(), -1};
    }
  };
  struct Tables {
    Vocabulary v;
    std::array<TokenId, 256> byte_ids{};                    ///< -1: no token is this byte alone
    std::unordered_map<std::string_view, TokenId> by_text;  ///< tokens that merging may make
    std::unordered_map<std::uint64_t, Merge> merges;        ///< by pair_key
    Names control, added;                                   ///< of the kinds control and user_defined
    WordSplitter splitter;                                  ///< byte_bpe
    bool whole_words = false;                               ///< PreTokenizer::whole_words

    static Error bad(std::string what) {
      return {ErrorCode::corrupt_data, "tokenizer: " + std::move(what) + ": convert the model again"};
    }

    Status check() const {
      const auto n = v.tokens.size();
      if (n == 0 || n > 0x7FFFFFFFu) return bad(io::detail::text("a vocabulary of ", n, " tokens"));
      if (v.kinds.size() != n) return bad(io::detail::text(v.kinds.size(), " token types for ", n, " tokens"));
      if (v.kind == TokenizerKind::score_bpe && v.scores.size() != n)
        return bad(io::detail::text(v.scores.size(), " scores for ", n, " tokens"));
      for (std::size_t i = 0; i < v.scores.size(); ++i)
        if (is_nan(v.scores[i])) return bad(io::detail::text("the score of token ", i, " is NaN"));
      for (const auto& id : {v.bos, v.eos, v.unknown})
        if (id && (*id < 0 || static_cast<std::size_t>(*id) >= n))
          return bad(io::detail::text("the special token ", *id, " is outside the vocabulary of ", n));
      return Ok{};
    }

    Status make_splitter() {
      const PreTokenizer* const rule = find_pre_tokenizer(v.pre);
      if (!rule) {
        std::string known;
        for (const PreTokenizer& p : pre_tokenizers) known += (known.empty() ? "" : " ") + std::string(p.names);
        return {ErrorCode::unsupported,
                io::detail::text("the pre-tokenizer is ", io::detail::shown(v.pre), ": use a model with one of: ", known)};
      }
      ANYBIT_TRY(splitter, WordSplitter::make(*rule));
      whole_words = rule->whole_words;
      return Ok{};
    }

    void index_tokens() {
      byte_ids.fill(-1);
      for (std::size_t i = 0; i < v.tokens.size(); ++i) {
        const std::string& t = v.tokens[i];
        const auto id = static_cast<TokenId>(i);
        if (t.empty()) continue;
        if (v.kinds[i] == TokenKind::control) control.add(id, t);
        if (v.kinds[i] == TokenKind::user_defined) added.add(id, t);
        if (v.kinds[i] == TokenKind::normal) by_text.emplace(t, id);
        const TokenKind single = v.kind == TokenizerKind::byte_bpe ? TokenKind::normal : TokenKind::byte;
        if (t.size() == 1 && v.kinds[i] == single) byte_ids[static_cast<unsigned char>(t[0])] = id;
      }
      control.sort(v);
      added.sort(v);
    }

    Status index_merges() {
      merges.reserve(v.merges.size());
      for (std::size_t i = 0; i < v.merges.size(); ++i) {
        const auto [left, right] = v.merges[i];
        const auto n = static_cast<TokenId>(v.tokens.size());
        if (left < 0 || right < 0 || left >= n || right >= n)
          return bad(io::detail::text("merge ", i, " names the tokens ", left, " and ", right, " of a vocabulary of ", n));
        const std::string whole = text_of(left) + text_of(right);
        const auto found = by_text.find(whole);
        if (found == by_text.end())
          return bad(io::detail::text("merge ", i, " makes ", io::detail::shown(whole), ", which is no token"));
        merges.emplace(pair_key(left, right), Merge{true, static_cast<double>(i), found->second});
      }
      return Ok{};
    }

    const std::string& text_of(TokenId id) const { return v.tokens[static_cast<std::size_t>(id)]; }
  };

  struct Scratch {
    std::vector<Piece> pieces;
    PieceMerger merger;
    std::string prefixed;
  };

  explicit Tokenizer(std::shared_ptr<const Tables> t) : t_(std::move(t)) {}

  static std::uint64_t pair_key(TokenId left, TokenId right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }

  /// A part of a text between control tokens, which starts at `offset` of the text.
  Status encode_part(std::string_view part, std::size_t offset, Scratch& s, std::vector<TokenId>& out) const {
    const bool bytes = t_->v.kind == TokenizerKind::byte_bpe;
    const std::size_t prefix = !bytes && t_->v.add_space_prefix ? 1 : 0;
    if (prefix != 0) part = s.prefixed.assign(1, ' ').append(part);
    for (std::size_t at = 0; at < part.size();) {
      const Found word = t_->added.find(part, at, t_->v);
      const std::string_view text = part.substr(at, word.begin - at);
      std::size_t missing = text.size();
      bytes ? encode_bytes(text, s, out, missing) : encode_characters(text, s, out, missing);
      if (missing != text.size()) return no_token(text.substr(missing), offset + at + missing - prefix);
      if (word.id < 0) break;
      out.push_back(word.id);
      at = word.begin + t_->text_of(word.id).size();
    }
    return Ok{};
  }

  /// `rest` starts at the byte, which is at `offset` of the caller's text.
  static Error no_token(std::string_view rest, std::size_t offset) {
    const bool valid = decode_utf8(rest).valid || (rest[0] & 0xC0) == 0x80;  // or inside a character
    return {ErrorCode::invalid_argument,
            io::detail::text("byte ", io::detail::shown(rest.substr(0, 1)), " at offset ", offset, " of the text is in no token",
                             valid ? "" : " and not UTF-8", ": remove the character or use another tokenizer")};
  }

  /// `missing` becomes the first byte that no token has, if there is one.
  void encode_bytes(std::string_view text, Scratch& s, std::vector<TokenId>& out, std::size_t& missing) const {
    const auto rule = [&](const Piece& left, const Piece& right) {
      const auto found = t_->merges.find(pair_key(left.id, right.id));
      return found == t_->merges.end() ? Merge{} : found->second;
    };
    t_->splitter.split(text, [&](std::string_view word) {
      if (t_->whole_words) {
        if (const auto known = t_->by_text.find(word); known != t_->by_text.end()) return out.push_back(known->second);
      }
      s.pieces.clear();
      const auto first = static_cast<std::size_t>(word.data() - text.data());
      for (std::size_t i = 0; i < word.size(); ++i) {
        const TokenId id = t_->byte_ids[static_cast<unsigned char>(word[i])];
        if (id < 0) missing = std::min(missing, first + i);
        s.pieces.push_back({first + i, first + i + 1, id});
      }
      if (missing != text.size()) return;
      s.merger.merge(s.pieces, rule);
      for (const Piece& p : s.pieces) out.push_back(p.id);
    });
  }

  void encode_characters(std::string_view text, Scratch& s, std::vector<TokenId>& out, std::size_t& missing) const {
    const auto id_of = [&](std::size_t from, std::size_t to) {
      const auto found = t_->by_text.find(text.substr(from, to - from));
      return found == t_->by_text.end() ? TokenId{-1} : found->second;
    };
    s.pieces.clear();
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t after = at + decode_utf8(text.substr(at)).bytes;
      s.pieces.push_back({at, after, id_of(at, after)});
      at = after;
    }
    s.merger.merge(s.pieces, [&](const Piece& left, const Piece& right) {
      const TokenId id = id_of(left.begin, right.end);
      return id < 0 ? Merge{} : Merge{true, -static_cast<double>(t_->v.scores[static_cast<std::size_t>(id)]), id};
    });
    for (const Piece& p : s.pieces) {
      if (p.id >= 0) {
        out.push_back(p.id);
        continue;
      }
      for (std::size_t i = p.begin; i < p.end; ++i) {
        const TokenId id = t_->byte_ids[static_cast<unsigned char>(text[i])];
        if (id < 0) missing = std::min(missing, i);
        out.push_back(id);
      }
    }
  }

  std::shared_ptr<const Tables> t_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
