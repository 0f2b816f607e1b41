#pragma once
// Hugging Face's tokenizer.json. Its decoder is not read, because the kind of the model determines it; truncation and padding
// are matters of the caller.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/json_subset.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/detail/utf8.hpp>
#include <anybit/io/json.hpp>
#include <anybit/model/tokenizer/huggingface_rules.hpp>
#include <anybit/model/tokenizer/rules.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// The members of a tokenizer.json, in whatever order they come; finish() makes a vocabulary of them.
class HuggingFaceTokenizer {
 public:
  /// A token takes some bytes of the text, so an id beyond its size is damage and no reason to allocate.
  explicit HuggingFaceTokenizer(std::string_view text)
      : json_(text), most_tokens_(std::clamp<std::uint64_t>(text.size(), 1024, std::uint64_t{1} << 24)) {}

  Result<Vocabulary> read() {
    bool has_model = false;
    ANYBIT_TRY_STATUS(json_.object([&](const std::string& key) -> Status {
      if (key == "model") {
        has_model = true;
        return read_model();
      }
      if (key == "normalizer" || key == "pre_tokenizer" || key == "post_processor" || key == "added_tokens") {
        ANYBIT_TRY(const io::JsonValue value, io::detail::read_json_value(json_, 16));
        if (key == "normalizer") return rules_.read_normalizer(value);
        if (key == "pre_tokenizer") return rules_.read_pre_tokenizer(value);
        if (key == "added_tokens") return read_added_tokens(value);
        post_processor_ = value;
        return Ok{};
      }
      return json_.skip_value();
    }));
    ANYBIT_TRY_STATUS(json_.end());
    if (!has_model) return bad("it has no member 'model'");
    return finish();
  }

 private:
  struct Added {
    std::string content;
    bool special;
    NameRule rule;
  };

  Status read_model() {
    return json_.object([&](const std::string& key) -> Status {
      if (key == "vocab") return json_.next() == '[' ? read_pieces() : read_vocab();
      if (key == "merges") return read_merges();
      if (json_.null()) return Ok{};
      if (key == "type") return set(type_, json_.string());
      if (key == "unk_token") return set(unknown_name_, json_.string());
      if (key == "continuing_subword_prefix") return set(continuing_, json_.string());
      if (key == "end_of_word_suffix") return set(suffix_, json_.string());
      if (key == "unk_id") return set(unknown_id_, json_.unsigned_integer());
      if (key == "max_input_chars_per_word") return set(longest_word_, json_.unsigned_integer());
      if (key == "byte_fallback") return set(byte_fallback_, json_.boolean());
      if (key == "fuse_unk") return set(v_.fuse_unknown, json_.boolean());
      if (key == "ignore_merges") return set(v_.whole_words, json_.boolean());
      if (key == "dropout") return set(dropout_, json_.number());
      return json_.skip_value();
    });
  }
  template <class To, class From>
  static Status set(To& to, Result<From> from) {
    if (!from) return from.error();
    to = *std::move(from);
    return Ok{};
  }

  /// { "token": id }
  Status read_vocab() {
    return json_.object([&](std::string token) -> Status {
      ANYBIT_TRY(const std::uint64_t id, json_.unsigned_integer());
      return put(id, std::move(token), TokenKind::normal);
    });
  }
  /// [ ["piece", score] ]
  Status read_pieces() {
    return json_.array([&]() -> Status {
      int part = 0;
      ANYBIT_TRY_STATUS(json_.array([&]() -> Status {
        if (part++ == 0) {
          ANYBIT_TRY(std::string piece, json_.string());
          return put(v_.tokens.size(), std::move(piece), TokenKind::normal);
        }
        ANYBIT_TRY(const double score, json_.number());
        v_.scores.push_back(static_cast<float>(score));
        return Ok{};
      }));
      if (v_.scores.size() == v_.tokens.size()) return Ok{};
      return json_.fail("a piece is not a string and a score");
    });
  }
  /// [ "left right" ] or [ ["left", "right"] ]
  Status read_merges() {
    return json_.array([&]() -> Status {
      std::vector<std::string> pair;
      if (json_.next() == '[') {
        ANYBIT_TRY_STATUS(json_.array([&]() -> Status {
          ANYBIT_TRY(std::string token, json_.string());
          pair.push_back(std::move(token));
          return Ok{};
        }));
      } else {
        ANYBIT_TRY(const std::string both, json_.string());
        const std::size_t space = both.find(' ');
        pair.push_back(both.substr(0, space));
        if (space != std::string::npos) pair.push_back(both.substr(space + 1));
      }
      if (pair.size() != 2 || pair[0].empty() || pair[1].empty())
        return json_.fail(io::detail::text("merge ", merges_.size(), " is no pair of tokens"));
      merges_.emplace_back(std::move(pair[0]), std::move(pair[1]));
      return Ok{};
    });
  }

  Status put(std::uint64_t id, std::string token, TokenKind kind) {
    if (id >= most_tokens_)
      return bad(io::detail::text("token ", io::detail::shown(token), " has the id ", id, ", not below ", most_tokens_));
    const auto i = static_cast<std::size_t>(id);
    if (i >= v_.tokens.size()) v_.tokens.resize(i + 1), v_.kinds.resize(i + 1, TokenKind::unused);
    if (v_.kinds[i] != TokenKind::unused)
      return bad(
          io::detail::text("tokens ", io::detail::shown(v_.tokens[i]), " and ", io::detail::shown(token), " have the id ", id));
    v_.tokens[i] = std::move(token);
    v_.kinds[i] = kind;
    return Ok{};
  }

  Status read_added_tokens(const io::JsonValue& value) {
    if (value.null()) return Ok{};
    const auto* const array = value.as<io::JsonValue::Array>();
    if (!array) return bad("added_tokens is not an array");
    for (std::size_t i = 0; i < array->size(); ++i) {
      const io::JsonObject token((*array)[i], {}, io::detail::text("added_tokens[", i, "]"));
      const auto flag = [&](std::string_view key) { return token.has(key) ? token.boolean(key) : Result<bool>(false); };
      Added a{};
      ANYBIT_TRY(const std::int64_t id, token.integer("id"));
      ANYBIT_TRY(a.content, token.text("content"));
      ANYBIT_TRY(a.special, flag("special"));
      ANYBIT_TRY(a.rule.swallows_left, flag("lstrip"));
      ANYBIT_TRY(a.rule.swallows_right, flag("rstrip"));
      ANYBIT_TRY(a.rule.whole_word, flag("single_word"));
      ANYBIT_TRY(a.rule.normalized, flag("normalized"));
      if (id < 0 || static_cast<std::uint64_t>(id) >= most_tokens_)
        return bad(io::detail::text(token.path("id"), " is ", id, ", not from 0 to ", most_tokens_ - 1));
      a.rule.id = static_cast<TokenId>(id);
      added_.push_back(std::move(a));
    }
    return Ok{};
  }

  Result<Vocabulary> finish() {
    ANYBIT_TRY_STATUS(find_kind());
    {
      TextIndex ids(v_.tokens);  // by their spelling, which changes below
      for (std::size_t i = 0; i < v_.tokens.size(); ++i)
        if (v_.kinds[i] == TokenKind::normal) ids.add(static_cast<TokenId>(i));
      ANYBIT_TRY_STATUS(find_merges(ids));
      ANYBIT_TRY_STATUS(find_unknown(ids));
    }
    ANYBIT_TRY_STATUS(add_tokens());
    ANYBIT_TRY_STATUS(undo_spelling());
    rules_.finish(v_);
    ANYBIT_TRY_STATUS(find_specials());
    return std::move(v_);
  }

  Status find_kind() {
    if (type_.empty()) type_ = !v_.scores.empty() ? "Unigram" : !merges_.empty() ? "BPE" : "WordPiece";
    if (type_ == "BPE")
      v_.kind = rules_.byte_level() ? TokenizerKind::byte_bpe : TokenizerKind::merge_bpe;
    else if (type_ == "Unigram")
      v_.kind = TokenizerKind::unigram, v_.fuse_unknown = true;
    else if (type_ == "WordPiece")
      v_.kind = TokenizerKind::word_piece;
    else
      return unsupported(
          io::detail::text("model.type is ", io::detail::shown(type_), "; anybit knows BPE, Unigram and WordPiece"));
    if (v_.tokens.empty()) return bad("model.vocab is absent or empty");
    if (v_.kind == TokenizerKind::unigram ? v_.scores.size() != v_.tokens.size() : !v_.scores.empty())
      return bad(io::detail::text("model.vocab is not that of a model of the type ", type_));
    if (type_ != "BPE" && rules_.byte_level())
      return unsupported("a model of the type " + type_ + " with bytes in place of characters");
    if (type_ == "BPE" && (!continuing_.value_or("").empty() || !suffix_.empty()))
      return unsupported("model.continuing_subword_prefix or model.end_of_word_suffix of BPE: anybit knows BPE without them");
    if (dropout_ != 0) return unsupported("model.dropout makes ids random: set it to null");
    if (longest_word_ > 1'000'000) return bad(io::detail::text("model.max_input_chars_per_word is ", longest_word_));
    v_.longest_word = static_cast<std::int32_t>(longest_word_);
    return Ok{};
  }

  Status find_merges(const TextIndex& ids) {
    for (std::size_t i = 0; i < merges_.size(); ++i) {
      const TokenId left = ids.find(merges_[i].first), right = ids.find(merges_[i].second);
      if (left < 0 || right < 0)
        return bad(io::detail::text("merge ", i, ", ", io::detail::shown(merges_[i].first), " and ",
                                    io::detail::shown(merges_[i].second), ", joins what is no token"));
      v_.merges.push_back({left, right});
    }
    return Ok{};
  }

  Status find_unknown(const TextIndex& ids) {
    if (unknown_id_) {
      if (*unknown_id_ >= v_.tokens.size())
        return bad(io::detail::text("model.unk_id is ", *unknown_id_, " of ", v_.tokens.size(), " tokens"));
      v_.unknown = static_cast<TokenId>(*unknown_id_);
    } else if (!unknown_name_.empty() && v_.kind != TokenizerKind::byte_bpe) {
      const TokenId found = ids.find(unknown_name_);
      if (found < 0) return bad("model.unk_token is " + io::detail::shown(unknown_name_) + ", which is no token");
      v_.unknown = found;
    }
    if (v_.unknown) v_.kinds[static_cast<std::size_t>(*v_.unknown)] = TokenKind::unknown;
    return Ok{};
  }

  Status add_tokens() {
    const bool escaped = rules_.escapes_spaces();
    for (Added& a : added_) {
      const auto i = static_cast<std::size_t>(a.rule.id);
      if (i < v_.tokens.size() && v_.kinds[i] != TokenKind::unused) {
        if (v_.tokens[i] != a.content)
          return bad(io::detail::text("tokens ", io::detail::shown(v_.tokens[i]), " and ", io::detail::shown(a.content),
                                      " have the id ", i));
      } else {
        ANYBIT_TRY_STATUS(put(i, a.content, TokenKind::user_defined));
      }
      // A run of escaped spaces is found by the model: no text has its name.
      if (escaped && !a.special && a.content.find(escaped_space) != std::string::npos) continue;
      v_.kinds[i] = a.special ? TokenKind::control : TokenKind::user_defined;
      names_.emplace(a.content, a.rule.id);
      if (a.rule.swallows_left || a.rule.swallows_right || a.rule.whole_word || a.rule.normalized)
        v_.name_rules.push_back(a.rule);
    }
    if (!v_.scores.empty()) v_.scores.resize(v_.tokens.size());
    return Ok{};
  }

  Status undo_spelling() {
    const std::string prefix = continuing_.value_or("##");
    for (std::size_t i = 0; i < v_.tokens.size(); ++i) {
      std::string& t = v_.tokens[i];
      if (v_.kinds[i] == TokenKind::control || v_.kinds[i] == TokenKind::user_defined || v_.kinds[i] == TokenKind::unknown)
        continue;
      if (v_.kind == TokenizerKind::byte_bpe) {
        auto bytes = from_byte_alphabet(t);
        bytes ? static_cast<void>(t = *std::move(bytes)) : static_cast<void>(v_.kinds[i] = TokenKind::unused);
      } else if (v_.kind == TokenizerKind::word_piece) {
        t = !prefix.empty() && t.starts_with(prefix) ? t.substr(prefix.size()) : " " + t;
      } else if (const int byte = byte_fallback_ ? byte_token(t) : -1; byte >= 0) {
        t.assign(1, static_cast<char>(byte));
        v_.kinds[i] = TokenKind::byte;
      } else if (rules_.escapes_spaces()) {
        if (v_.kinds[i] == TokenKind::normal && t.find(' ') != std::string::npos) v_.kinds[i] = TokenKind::unused;
        replace_all(t, escaped_space, " ");
      }
    }
    return Ok{};
  }

  /// bos and eos are what the post-processor puts around a single text.
  Status find_specials() {
    const io::JsonObject post(post_processor_, {}, "post_processor");
    if (const auto* const all = post.find("processors") ? post.find("processors")->as<io::JsonValue::Array>() : nullptr) {
      for (const io::JsonValue& p : *all) read_template(p);
    } else {
      read_template(post_processor_);
    }
    v_.add_bos = v_.bos.has_value();
    return Ok{};
  }
  void read_template(const io::JsonValue& post) {
    const auto id_of = [&](const io::JsonValue* name) -> std::optional<TokenId> {
      const std::string* const text = name ? name->as<std::string>() : nullptr;
      const auto found = text ? names_.find(*text) : names_.end();
      return found == names_.end() ? std::nullopt : std::optional<TokenId>(found->second);
    };
    const auto first_of = [&](std::string_view key) {  // ["[CLS]", 101]
      const io::JsonValue* const pair = post.find(key);
      const auto* const array = pair ? pair->as<io::JsonValue::Array>() : nullptr;
      return array && !array->empty() ? id_of(&array->front()) : std::nullopt;
    };
    if (const auto cls = first_of("cls")) v_.bos = cls;
    if (const auto sep = first_of("sep")) v_.eos = sep;
    const io::JsonValue* const single = post.find("single");
    const auto* const pieces = single ? single->as<io::JsonValue::Array>() : nullptr;
    if (!pieces) return;
    bool before = true;
    for (const io::JsonValue& piece : *pieces) {
      const io::JsonValue* const special = piece.find("SpecialToken");
      const auto id = special ? id_of(special->find("id")) : std::nullopt;
      if (piece.find("Sequence")) before = false;
      if (id && before && !v_.bos) v_.bos = id;
      if (id && !before) v_.eos = id;
    }
  }

  static Error bad(std::string what) { return {ErrorCode::corrupt_data, what + ": correct the file or fetch it again"}; }
  static Error unsupported(std::string what) { return {ErrorCode::unsupported, what + ": use a model of another kind"}; }

  io::detail::JsonReader json_;
  std::uint64_t most_tokens_;
  HuggingFaceRules rules_;
  Vocabulary v_;
  std::string type_, unknown_name_, suffix_;
  std::optional<std::string> continuing_;
  std::optional<std::uint64_t> unknown_id_;
  std::uint64_t longest_word_ = 100;
  bool byte_fallback_ = false;
  double dropout_ = 0;
  std::vector<std::pair<std::string, std::string>> merges_;
  std::vector<Added> added_;
  io::JsonValue post_processor_;
  std::unordered_map<std::string, TokenId> names_;  ///< of added tokens
};

}  // namespace detail

/// The vocabulary in a tokenizer.json. `name` is for errors.
inline Result<Vocabulary> vocabulary_from_huggingface(std::span<const std::byte> bytes, std::string_view name) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!io::detail::is_utf8(text)) return {ErrorCode::corrupt_data, io::detail::text(name, ": is not UTF-8: fetch it again")};
  auto v = detail::HuggingFaceTokenizer(text).read();
  if (!v) return in_context(v.error(), name);
  return v;
}

inline Result<Tokenizer> tokenizer_from_huggingface(std::span<const std::byte> bytes, std::string_view name) {
  ANYBIT_TRY(Vocabulary v, vocabulary_from_huggingface(bytes, name));
  auto tokenizer = Tokenizer::make(std::move(v));
  if (!tokenizer) return in_context(tokenizer.error(), name);
  return tokenizer;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
