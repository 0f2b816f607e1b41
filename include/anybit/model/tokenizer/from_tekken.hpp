#pragma once
// Mistral's tekken.json: the ranks of tiktoken with the pattern that cuts a text, behind a number of special tokens.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/json_subset.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/detail/utf8.hpp>
#include <anybit/model/tokenizer/ranks.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// Special tokens of files that do not list theirs (versions 3 and before 7).
inline constexpr std::string_view tekken_specials[] = {"<unk>",
                                                       "<s>",
                                                       "</s>",
                                                       "[INST]",
                                                       "[/INST]",
                                                       "[AVAILABLE_TOOLS]",
                                                       "[/AVAILABLE_TOOLS]",
                                                       "[TOOL_RESULTS]",
                                                       "[/TOOL_RESULTS]",
                                                       "[TOOL_CALLS]",
                                                       "[IMG]",
                                                       "<pad>",
                                                       "[IMG_BREAK]",
                                                       "[IMG_END]",
                                                       "[PREFIX]",
                                                       "[MIDDLE]",
                                                       "[SUFFIX]",
                                                       "[SYSTEM_PROMPT]",
                                                       "[/SYSTEM_PROMPT]",
                                                       "[TOOL_CONTENT]"};

class TekkenFile {
 public:
  explicit TekkenFile(std::string_view text) : json_(text) {}

  Result<Vocabulary> read() {
    ANYBIT_TRY_STATUS(json_.object([&](const std::string& key) -> Status {
      if (key == "config") return read_config();
      if (key == "vocab") return json_.array([&] { return read_token(ranked_); });
      if (key == "special_tokens" && json_.next() == '[') return json_.array([&] { return read_token(specials_); });
      return json_.skip_value();
    }));
    ANYBIT_TRY_STATUS(json_.end());
    return vocabulary();
  }

 private:
  struct Entry {
    std::uint64_t rank = std::numeric_limits<std::uint64_t>::max();
    std::string bytes, name;
  };

  Status read_config() {
    return json_.object([&](const std::string& key) -> Status {
      if (key == "pattern") {
        ANYBIT_TRY(pattern_, json_.string());
      } else if (key == "default_vocab_size") {
        ANYBIT_TRY(size_, json_.unsigned_integer());
      } else if (key == "default_num_special_tokens") {
        ANYBIT_TRY(special_count_, json_.unsigned_integer());
      } else {
        return json_.skip_value();
      }
      return Ok{};
    });
  }

  Status read_token(std::vector<Entry>& to) {
    Entry e;
    ANYBIT_TRY_STATUS(json_.object([&](const std::string& key) -> Status {
      if (key == "rank") {
        ANYBIT_TRY(e.rank, json_.unsigned_integer());
      } else if (key == "token_bytes") {
        ANYBIT_TRY(const std::string base64, json_.string());
        auto bytes = from_base64(base64);
        if (!bytes) return json_.fail("token_bytes " + io::detail::shown(base64) + " is not base64");
        e.bytes = *std::move(bytes);
      } else if (key == "token_str" && json_.next() == '"') {
        ANYBIT_TRY(e.name, json_.string());
      } else {
        return json_.skip_value();
      }
      return Ok{};
    }));
    to.push_back(std::move(e));
    return Ok{};
  }

  Result<Vocabulary> vocabulary() {
    Vocabulary v;
    if (pattern_.empty() || ranked_.empty()) return bad("it has no config.pattern or no vocab");
    if (special_count_ >= size_ || size_ - special_count_ > ranked_.size() || special_count_ > (std::uint64_t{1} << 20))
      return bad(io::detail::text("default_vocab_size is ", size_, ", default_num_special_tokens is ", special_count_,
                                  ", and vocab has ", ranked_.size(), " tokens"));
    v.tokens.resize(static_cast<std::size_t>(size_));
    v.kinds.assign(v.tokens.size(), TokenKind::normal);
    for (Entry& e : ranked_)
      if (e.rank >= size_ - special_count_) {
        if (e.rank >= ranked_.size()) return bad(io::detail::text("a token has the rank ", e.rank, " of ", ranked_.size()));
      } else {
        ANYBIT_TRY_STATUS(add_ranked_token(v, e.rank, special_count_, std::move(e.bytes)));
      }
    for (std::size_t i = special_count_; i < v.tokens.size(); ++i)
      if (v.tokens[i].empty()) return bad(io::detail::text("no token has the rank ", i - special_count_));
    for (std::size_t i = 0; i < special_count_; ++i) {
      v.kinds[i] = TokenKind::control;
      if (specials_.empty() && i < std::size(tekken_specials)) v.tokens[i] = std::string(tekken_specials[i]);
    }
    for (const Entry& e : specials_) {
      if (e.rank >= special_count_ || e.name.empty())
        return bad(
            io::detail::text("the special token ", io::detail::shown(e.name), " has the rank ", e.rank, " of ", special_count_));
      v.tokens[static_cast<std::size_t>(e.rank)] = e.name;
    }
    for (std::size_t i = 0; i < special_count_; ++i)
      if (v.tokens[i].empty()) v.tokens[i] = io::detail::text("<SPECIAL_", i, ">");
    if (special_count_ > 2) v.unknown = 0, v.bos = 1, v.eos = 2;
    v.add_bos = v.bos.has_value();
    v.whole_words = true;
    set_rules(v, {}, {{pattern_}});
    ANYBIT_TRY_STATUS(make_merges(v));
    return v;
  }

  static Error bad(std::string what) { return {ErrorCode::corrupt_data, what + ": correct the file or fetch it again"}; }

  io::detail::JsonReader json_;
  std::string pattern_;
  std::uint64_t size_ = 0, special_count_ = 0;
  std::vector<Entry> ranked_, specials_;
};

}  // namespace detail

/// Whether a JSON document is a tekken.json: it has tokens by rank. A tokenizer.json has a member "model" in their place.
inline bool is_tekken(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  bool model = false, vocab = false;
  io::detail::JsonReader json(text);
  const Status read = json.object([&](const std::string& key) -> Status {
    model = model || key == "model";
    vocab = vocab || key == "vocab";
    return model || vocab ? Status(json.fail("")) : json.skip_value();  // one of them is enough
  });
  static_cast<void>(read);
  return vocab;
}

/// `name` is for errors.
inline Result<Tokenizer> tokenizer_from_tekken(std::span<const std::byte> bytes, std::string_view name) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!io::detail::is_utf8(text)) return {ErrorCode::corrupt_data, io::detail::text(name, ": is not UTF-8: fetch it again")};
  auto v = detail::TekkenFile(text).read();
  if (!v) return in_context(v.error(), name);
  auto tokenizer = Tokenizer::make(*std::move(v));
  if (!tokenizer) return in_context(tokenizer.error(), name);
  return tokenizer;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
