#pragma once
// Text to token ids and back: added tokens are found, the text between them is normalized and cut into words, and the model makes
// tokens of each word.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/tokenizer/added_tokens.hpp>
#include <anybit/model/tokenizer/normalizer.hpp>
#include <anybit/model/tokenizer/pre_tokenizer.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>
#include <anybit/model/tokenizer/word_cache.hpp>
#include <anybit/model/tokenizer/word_encoder.hpp>
#include <anybit/model/tokenizer/word_splitter.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The meaning of a control token's name ("</s>", "<|im_end|>") inside a text. Text that others wrote is text: only a prompt
/// that the program itself makes, a chat template's for example, asks for control tokens by name.
enum class Specials { as_text, parsed };

/// Immutable; copies share their tables and may be used from any thread.
class Tokenizer {
 public:
  /// Checks that ids are in range, sizes agree, patterns are known, and every merge makes a token.
  static Result<Tokenizer> make(Vocabulary v) {
    auto tables = std::make_shared<Tables>();
    tables->v = std::move(v);
    ANYBIT_TRY_STATUS(tables->check());
    ANYBIT_TRY_STATUS(tables->make_rules());
    ANYBIT_TRY_STATUS(tables->index_names());
    ANYBIT_TRY(tables->words, WordEncoder::make(tables->v));
    return Tokenizer(std::move(tables));
  }

  const Vocabulary& vocabulary() const { return t_->v; }
  Index size() const { return static_cast<Index>(t_->v.tokens.size()); }

  /// Whether decode() gives back every text that encode() takes, byte for byte: nothing normalizes the text, drops a part of it
  /// or makes it `unknown`.
  bool lossless() const {
    const Vocabulary& v = t_->v;
    for (const CutStep& c : t_->cuts)
      if (c.behavior == CutStep::Behavior::removed) return false;
    for (const NameRule& r : v.name_rules)
      if (r.swallows_left || r.swallows_right) return false;
    const bool unknowns = v.kind != TokenizerKind::byte_bpe && v.unknown && !t_->words->has_byte_tokens();
    return t_->normalizer.empty() && !v.prefix_unless_space && v.kind != TokenizerKind::word_piece && !unknowns;
  }

  /// Bytes that are not UTF-8 are encoded as they are where the vocabulary has tokens for single bytes. A byte without any
  /// token is an error that names its place, unless the vocabulary has a token for the unknown. No token is put in front of the
  /// text; see Vocabulary::add_bos. Added words (TokenKind::user_defined) are found in the text before everything else, the
  /// longest first. `starts` is false for a text that goes on behind a control token: it gets a space in front only where
  /// Vocabulary::prefix puts one there.
  Result<std::vector<TokenId>> encode(std::string_view text, Specials specials = Specials::as_text, bool starts = true) const {
    std::vector<TokenId> out;
    Scratch s;
    s.fresh = starts || t_->v.prefix != SpacePrefix::start;
    s.cached = text.size() > 256;
    const AddedTokens& names = specials == Specials::parsed ? t_->all : t_->added;
    for (std::size_t at = 0; at < text.size();) {
      const AddedTokens::Found found = names.find(text, at);
      const bool control = found.id >= 0 && is_control(found.id);
      // SentencePiece puts its space in front of a user-defined token that starts the text, too.
      const bool bare_prefix =
          s.fresh && t_->v.add_space_prefix && t_->v.prefix == SpacePrefix::start_and_controls && found.id >= 0 && !control;
      if (found.begin != at || bare_prefix)
        ANYBIT_TRY_STATUS(encode_part(text.substr(at, found.begin - at), at, specials, s, out));
      at = found.end;
      if (found.id < 0) break;
      out.push_back(found.id);
      s.fresh = t_->prefix_follows(found.id);
    }
    return out;
  }

  /// The bytes of `ids`. Control tokens appear by name; the space that encode() puts before a text, and behind each control
  /// token, is taken off again.
  Result<std::string> decode(std::span<const TokenId> ids) const {
    std::string out;
    const bool prefixed = t_->v.add_space_prefix || t_->v.kind == TokenizerKind::word_piece;
    bool at_start = true;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= size())
        return {ErrorCode::invalid_argument,
                io::detail::text("token ", i, " has the id ", ids[i], ", but the vocabulary ends at ", size() - 1,
                                 ": the ids belong to another tokenizer")};
      std::string_view piece = token(ids[i]);
      const TokenKind kind = t_->v.kinds[static_cast<std::size_t>(ids[i])];
      const bool control = kind == TokenKind::control, added = kind == TokenKind::user_defined;
      if (at_start && !control && !added && prefixed && piece.starts_with(' ')) piece.remove_prefix(1);
      at_start = t_->prefix_follows(ids[i]);
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
  struct Tables {
    Vocabulary v;
    std::vector<NormalizerStep> normalizer_steps;
    std::vector<CutStep> cuts;
    Normalizer normalizer;
    WordSplitter splitter;
    std::optional<WordEncoder> words;  ///< of `v`
    /// Found in the text as it is and in the normalized one; with and without control tokens.
    AddedTokens added, all, normalized_added, normalized_all;
    bool normalizes_names = false;
    bool prepends = false;  ///< the normalizer puts something in front of each part

    static Error bad(std::string what) {
      return {ErrorCode::corrupt_data, "tokenizer: " + std::move(what) + ": convert the model again"};
    }

    /// Whether the text behind the added token `id` gets a space in front.
    bool prefix_follows(TokenId id) const {
      const TokenKind kind = v.kinds[static_cast<std::size_t>(id)];
      return (kind == TokenKind::control && v.prefix != SpacePrefix::start) ||
             (kind == TokenKind::user_defined && v.prefix == SpacePrefix::every_part);
    }

    Status check() const {
      const auto n = v.tokens.size();
      if (n == 0 || n > 0x7FFFFFFFu) return bad(io::detail::text("a vocabulary of ", n, " tokens"));
      if (v.kinds.size() != n) return bad(io::detail::text(v.kinds.size(), " token types for ", n, " tokens"));
      const bool scored = v.kind == TokenizerKind::score_bpe || v.kind == TokenizerKind::unigram;
      if (scored && v.scores.size() != n) return bad(io::detail::text(v.scores.size(), " scores for ", n, " tokens"));
      for (std::size_t i = 0; i < v.scores.size(); ++i)
        if (is_nan(v.scores[i])) return bad(io::detail::text("the score of token ", i, " is NaN"));
      for (const auto& id : {v.bos, v.eos, v.unknown})
        if (id && (*id < 0 || static_cast<std::size_t>(*id) >= n))
          return bad(io::detail::text("the special token ", *id, " is outside the vocabulary of ", n));
      for (const NameRule& r : v.name_rules)
        if (r.id < 0 || static_cast<std::size_t>(r.id) >= n)
          return bad(io::detail::text("the added token ", r.id, " is outside the vocabulary of ", n));
      return Ok{};
    }

    Status make_rules() {
      normalizer_steps = v.normalizer;
      cuts = v.cuts;
      if (v.kind == TokenizerKind::byte_bpe && !v.pre.empty()) {
        const PreTokenizer* const rule = find_pre_tokenizer(v.pre);
        if (!rule) {
          std::string known;
          for (const PreTokenizer& p : pre_tokenizers) known += (known.empty() ? "" : " ") + std::string(p.names);
          return {ErrorCode::unsupported,
                  io::detail::text("the pre-tokenizer is ", io::detail::shown(v.pre), ": use a model with one of: ", known)};
        }
        for (NormalizerStep& s : rule->normalizer()) normalizer_steps.push_back(std::move(s));
        for (CutStep& c : rule->cuts()) cuts.push_back(std::move(c));
        v.whole_words = v.whole_words || rule->whole_words;
      }
      for (const NormalizerStep& s : normalizer_steps) prepends = prepends || s.kind == NormalizerStep::Kind::prepend;
      ANYBIT_TRY(normalizer, Normalizer::make(normalizer_steps));
      ANYBIT_TRY(splitter, WordSplitter::make(cuts));
      return Ok{};
    }

    Status index_names() {
      std::unordered_map<TokenId, const NameRule*> rules;
      for (const NameRule& r : v.name_rules) rules.emplace(r.id, &r);
      for (std::size_t i = 0; i < v.tokens.size(); ++i) {
        const bool control = v.kinds[i] == TokenKind::control;
        if (v.tokens[i].empty() || (!control && v.kinds[i] != TokenKind::user_defined)) continue;
        const auto id = static_cast<TokenId>(i);
        const auto found = rules.find(id);
        const NameRule* const rule = found == rules.end() ? nullptr : found->second;
        std::string name = v.tokens[i];
        const bool normalized = rule && rule->normalized && !normalizer.empty();
        if (normalized) {
          ANYBIT_TRY(name, normalizer.apply(name));
          if (name.empty()) continue;
          normalizes_names = true;
        }
        if (!control) (normalized ? normalized_added : added).add(id, name, rule);
        (normalized ? normalized_all : all).add(id, std::move(name), rule);
      }
      for (AddedTokens* const names : {&added, &all, &normalized_added, &normalized_all}) names->sort();
      return Ok{};
    }
  };

  struct Scratch {
    std::string prefixed;
    std::vector<PatternChar> chars;
    WordEncoder::Scratch word;
    WordCache cache;
    bool cached = false;  ///< whether the text is long enough to be worth it
    bool fresh = true;    ///< whether the prefix belongs in front of the next part
  };

  explicit Tokenizer(std::shared_ptr<const Tables> t) : t_(std::move(t)) {}

  bool is_control(TokenId id) const { return t_->v.kinds[static_cast<std::size_t>(id)] == TokenKind::control; }

  /// A part of a text between added tokens, which starts at `offset` of the text.
  Status encode_part(std::string_view part, std::size_t offset, Specials specials, Scratch& s, std::vector<TokenId>& out) const {
    if (t_->normalizer.empty()) return encode_normalized(part, offset, s, out);
    ANYBIT_TRY(const std::string normalized, t_->normalizer.apply(part));
    if (normalized.empty() && !part.empty()) return Ok{};
    if (!t_->normalizes_names) return encode_normalized(normalized, offset, s, out);
    const AddedTokens& names = specials == Specials::parsed ? t_->normalized_all : t_->normalized_added;
    const std::string_view text = normalized;
    for (std::size_t at = 0; at < text.size();) {
      const AddedTokens::Found found = names.find(text, at);
      if (found.begin != at) ANYBIT_TRY_STATUS(encode_normalized(text.substr(at, found.begin - at), offset + at, s, out));
      at = found.end;
      if (found.id < 0) break;
      out.push_back(found.id);
      s.fresh = t_->prefix_follows(found.id) && !t_->prepends;
    }
    return Ok{};
  }

  Status encode_normalized(std::string_view part, std::size_t offset, Scratch& s, std::vector<TokenId>& out) const {
    const bool prefix = s.fresh && t_->v.add_space_prefix && !(t_->v.prefix_unless_space && part.starts_with(' '));
    s.fresh = false;
    if (prefix) part = s.prefixed.assign(1, ' ').append(part);
    std::size_t missing = part.size();
    const auto word = [&](std::string_view w) {
      const bool keep = s.cached && w.size() <= WordCache::longest;
      if (keep) {
        if (const auto known = s.cache.find(w)) return static_cast<void>(out.insert(out.end(), known->begin(), known->end()));
      }
      const std::size_t before = out.size();
      std::size_t at = 0;
      if (!t_->words->encode(w, s.word, out, at))
        missing = std::min(missing, static_cast<std::size_t>(w.data() - part.data()) + at);
      else if (keep)
        s.cache.add(w, std::span(out).subspan(before));
    };
    if (!t_->splitter.split(part, s.chars, [&](std::string_view w) { t_->words->cut_before_spaces(w, word); }))
      return pattern_takes_too_long(part.size());
    if (missing == part.size()) return Ok{};
    return no_token(part.substr(missing), offset + missing - (prefix ? 1 : 0));
  }

  /// `rest` starts at the byte, which is at `offset` of the caller's text.
  Error no_token(std::string_view rest, std::size_t offset) const {
    const bool valid = decode_utf8(rest).valid || (rest[0] & 0xC0) == 0x80;  // or inside a character
    return {ErrorCode::invalid_argument,
            io::detail::text("byte ", io::detail::shown(rest.substr(0, 1)), " at offset ", offset, " of the ",
                             t_->normalizer.empty() ? "" : "normalized ", "text is in no token", valid ? "" : " and not UTF-8",
                             ": remove the character or use another tokenizer")};
  }

  std::shared_ptr<const Tables> t_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
