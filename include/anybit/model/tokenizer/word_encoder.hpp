#pragma once
// The model of a tokenizer: one word to its tokens. It knows nothing of normalizing, cutting or added tokens.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/tokenizer/bpe.hpp>
#include <anybit/model/tokenizer/flat_map.hpp>
#include <anybit/model/tokenizer/text_index.hpp>
#include <anybit/model/tokenizer/unicode.hpp>
#include <anybit/model/tokenizer/unigram.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>
#include <anybit/model/tokenizer/word_piece.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

class WordEncoder {
 public:
  struct Scratch {
    std::vector<TokenId> symbols;
    std::vector<Piece> pieces;
    PieceMerger piece_merger;
    PairMerger pair_merger;
    Unigram::Scratch unigram;
    std::string text;
  };

  /// Checks merges. The vocabulary, whose other members are checked, must outlive this object and stay in its place.
  static Result<WordEncoder> make(const Vocabulary& v) {
    WordEncoder out(v);
    out.index_tokens();
    ANYBIT_TRY_STATUS(out.index_merges());
    out.look_for_inner_spaces();
    return out;
  }

  /// Puts the tokens of `word` behind those in `out`. Returns false if a byte of it is in no token; `missing` is its offset then.
  bool encode(std::string_view word, Scratch& s, std::vector<TokenId>& out, std::size_t& missing) const {
    switch (v_->kind) {
      case TokenizerKind::byte_bpe: return encode_bytes(word, s, out, missing);
      case TokenizerKind::merge_bpe: return encode_characters(word, s, out, missing);
      case TokenizerKind::score_bpe: return encode_by_score(word, s, out, missing);
      case TokenizerKind::unigram: return encode_unigram(word, s, out, missing);
      case TokenizerKind::word_piece:
        if (word_piece_.encode(word, v_->longest_word, s.text, out)) return true;
        return append_unknown(out, missing, 0);
    }
    return false;
  }

  /// Calls `part(std::string_view)` for parts of `word` whose tokens are those of the word: it is cut in front of spaces where no
  /// token goes on behind the cut. So words of SentencePiece's models, which are whole texts, become short.
  template <class Part>
  void cut_before_spaces(std::string_view word, Part&& part) const {
    if (!cuts_before_spaces_) return part(word);
    std::size_t begin = 0;
    for (std::size_t at = word.find(' '); at != std::string_view::npos; at = word.find(' ', at + 1)) {
      if (at == begin || keeps_space_[static_cast<unsigned char>(word[at - 1])]) continue;
      part(word.substr(begin, at - begin));
      begin = at;
    }
    if (begin != word.size()) part(word.substr(begin));
  }

  /// Whether single bytes have tokens, so that nothing is unknown.
  bool has_byte_tokens() const { return has_bytes_; }

 private:
  explicit WordEncoder(const Vocabulary& v) : v_(&v), by_text_(v.tokens), added_by_text_(v.tokens) {}

  static Error bad(std::string what) {
    return {ErrorCode::corrupt_data, "tokenizer: " + std::move(what) + ": convert the model again"};
  }

  void index_tokens() {
    byte_ids_.fill(-1);
    const bool bytes = v_->kind == TokenizerKind::byte_bpe;
    for (std::size_t i = 0; i < v_->tokens.size(); ++i) {
      const std::string& t = v_->tokens[i];
      const auto id = static_cast<TokenId>(i);
      if (t.empty()) continue;
      if (v_->kinds[i] == TokenKind::normal) {
        if (v_->kind == TokenizerKind::unigram) unigram_.add(t, id, static_cast<double>(v_->scores[i]));
        if (v_->kind == TokenizerKind::word_piece) word_piece_.add(t, id);
        by_text_.add(id);
      }
      if (v_->kinds[i] == TokenKind::user_defined) added_by_text_.add(id);
      if (t.size() == 1 && v_->kinds[i] == (bytes ? TokenKind::normal : TokenKind::byte)) {
        byte_ids_[static_cast<unsigned char>(t[0])] = id;
        has_bytes_ = true;
      }
    }
  }

  Status index_merges() {
    if (v_->merges.size() >= PairMerger::none) return bad("too many merges");
    merges_ = PairMerger::Table(v_->merges.size());
    const auto n = static_cast<TokenId>(v_->tokens.size());
    std::uint32_t rank = 0;
    TokenId before = -1;
    for (std::size_t i = 0; i < v_->merges.size(); ++i) {
      const auto [left, right] = v_->merges[i];
      if (left < 0 || right < 0 || left >= n || right >= n)
        return bad(io::detail::text("merge ", i, " names the tokens ", left, " and ", right, " of a vocabulary of ", n));
      const std::string whole = text_of(left) + text_of(right);
      const TokenId made = find_result(whole);
      if (made < 0) return bad(io::detail::text("merge ", i, " makes ", io::detail::shown(whole), ", which is no token"));
      if (!v_->tied_merges || made != before) rank = static_cast<std::uint32_t>(i);
      before = made;
      merges_.insert(PairMerger::key(left, right), {rank, before});
    }
    return Ok{};
  }

  /// The token that a merge makes, or -1. It may be an added one: then texts have it by its name, and merges go on from it.
  TokenId find_result(const std::string& text) const {
    const TokenId found = by_text_.find(text);
    return found >= 0 ? found : added_by_text_.find(text);
  }

  void look_for_inner_spaces() {
    if (v_->kind == TokenizerKind::byte_bpe || v_->kind == TokenizerKind::word_piece || by_text_.find(" ") < 0) return;
    cuts_before_spaces_ = true;
    keeps_space_.set(static_cast<unsigned char>(' '));
    for (std::size_t i = 0; i < v_->tokens.size(); ++i) {
      const std::string& t = v_->tokens[i];
      if (v_->kinds[i] != TokenKind::normal && v_->kinds[i] != TokenKind::user_defined) continue;
      for (std::size_t at = t.find(' ', 1); at != std::string::npos; at = t.find(' ', at + 1))
        keeps_space_.set(static_cast<unsigned char>(t[at - 1]));
    }
  }

  const std::string& text_of(TokenId id) const { return v_->tokens[static_cast<std::size_t>(id)]; }

  bool encode_bytes(std::string_view word, Scratch& s, std::vector<TokenId>& out, std::size_t& missing) const {
    if (v_->whole_words) {
      if (const TokenId known = by_text_.find(word); known >= 0) {
        out.push_back(known);
        return true;
      }
    }
    s.symbols.clear();
    for (std::size_t i = 0; i < word.size(); ++i) {
      const TokenId id = byte_ids_[static_cast<unsigned char>(word[i])];
      if (id < 0) {
        missing = i;
        return false;
      }
      s.symbols.push_back(id);
    }
    s.pair_merger.merge(s.symbols, merges_);
    out.insert(out.end(), s.symbols.begin(), s.symbols.end());
    return true;
  }

  bool encode_characters(std::string_view word, Scratch& s, std::vector<TokenId>& out, std::size_t& missing) const {
    if (v_->whole_words) {
      if (const TokenId known = by_text_.find(word); known >= 0) {
        out.push_back(known);
        return true;
      }
    }
    s.symbols.clear();
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t bytes = decode_utf8(word.substr(at)).bytes;
      const TokenId found = by_text_.find(word.substr(at, bytes));
      if (found >= 0)
        s.symbols.push_back(found);
      else if (!append_bytes(word, at, at + bytes, s.symbols, missing))
        return false;
      at += bytes;
    }
    s.pair_merger.merge(s.symbols, merges_);
    out.insert(out.end(), s.symbols.begin(), s.symbols.end());
    return true;
  }

  bool encode_by_score(std::string_view word, Scratch& s, std::vector<TokenId>& out, std::size_t& missing) const {
    const auto id_of = [&](std::size_t from, std::size_t to) { return by_text_.find(word.substr(from, to - from)); };
    s.pieces.clear();
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t after = at + decode_utf8(word.substr(at)).bytes;
      s.pieces.push_back({at, after, id_of(at, after)});
      at = after;
    }
    s.piece_merger.merge(s.pieces, [&](const Piece& left, const Piece& right) {
      const TokenId id = id_of(left.begin, right.end);
      return id < 0 ? Merge{} : Merge{true, -static_cast<double>(v_->scores[static_cast<std::size_t>(id)]), id};
    });
    for (const Piece& p : s.pieces) {
      if (p.id >= 0)
        out.push_back(p.id);
      else if (!append_bytes(word, p.begin, p.end, out, missing))
        return false;
    }
    return true;
  }

  bool encode_unigram(std::string_view word, Scratch& s, std::vector<TokenId>& out, std::size_t& missing) const {
    bool good = true;
    unigram_.encode(word, v_->scores, s.unigram, [&](std::size_t begin, std::size_t end, TokenId id) {
      if (id >= 0)
        out.push_back(id);
      else
        good = good && append_bytes(word, begin, end, out, missing);
    });
    return good;
  }

  /// The bytes [begin, end) of a word one by one, or unknown if no token is a byte.
  bool append_bytes(std::string_view word, std::size_t begin, std::size_t end, std::vector<TokenId>& out,
                    std::size_t& missing) const {
    if (!has_bytes_) return append_unknown(out, missing, begin);
    for (std::size_t i = begin; i < end; ++i) {
      const TokenId id = byte_ids_[static_cast<unsigned char>(word[i])];
      if (id < 0) {
        missing = i;
        return false;
      }
      out.push_back(id);
    }
    return true;
  }
  bool append_unknown(std::vector<TokenId>& out, std::size_t& missing, std::size_t at) const {
    if (!v_->unknown) {
      missing = at;
      return false;
    }
    if (!v_->fuse_unknown || out.empty() || out.back() != *v_->unknown) out.push_back(*v_->unknown);
    return true;
  }

  const Vocabulary* v_;
  std::array<TokenId, 256> byte_ids_{};  ///< -1: no token is this byte alone
  bool has_bytes_ = false;
  bool cuts_before_spaces_ = false;
  std::bitset<256> keeps_space_;  ///< bytes in front of a space inside a token
  TextIndex by_text_;             ///< tokens that a text may have
  TextIndex added_by_text_;       ///< user-defined tokens
  PairMerger::Table merges_;
  Unigram unigram_;
  WordPiece word_piece_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
