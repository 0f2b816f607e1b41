#pragma once
// The rules of a vocabulary as one line of JSON, for files that hold a vocabulary among other things:
//   {"normalizer": [["replace", "from", "to"], ..], "cuts": [["pattern", "isolated", false], ..], "names": [[id, flags], ..],
//    "prefix": "start", "longest_word": 100, "flags": ["whole_words", ..]}
// Members that are as in an empty vocabulary are left out. A charsmap is in base64. Flags of a name: 1 swallows_left,
// 2 swallows_right, 4 whole_word, 8 normalized.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/json_subset.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/detail/utf8.hpp>
#include <anybit/model/tokenizer/ranks.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

inline constexpr std::array<std::string_view, 14> normalizer_names{"nfc",
                                                                   "nfd",
                                                                   "lowercase",
                                                                   "strip_marks",
                                                                   "strip_nonspacing_marks",
                                                                   "replace",
                                                                   "replace_pattern",
                                                                   "prepend",
                                                                   "charsmap",
                                                                   "collapse_spaces",
                                                                   "strip_left",
                                                                   "strip_right",
                                                                   "clean",
                                                                   "space_ideographs"};
inline constexpr std::array<std::string_view, 5> behavior_names{"isolated", "removed", "merged_with_previous", "merged_with_next",
                                                                "contiguous"};
inline constexpr std::array<std::string_view, 3> prefix_names{"start", "start_and_controls", "every_part"};

inline std::string to_base64(std::string_view bytes) {
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    std::uint32_t three = 0;
    for (std::size_t i = 0; i < 3; ++i)
      three = three << 8 | (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0u);
    for (std::size_t i = 0; i < 4; ++i) out += at + i > bytes.size() ? '=' : alphabet[three >> (18 - 6 * i) & 63u];
  }
  return out;
}

/// Calls `f(name, flag)` for each flag that rules have.
template <class V, class F>
void for_each_rule_flag(V& v, F&& f) {
  f("prefix_unless_space", v.prefix_unless_space), f("whole_words", v.whole_words), f("tied_merges", v.tied_merges);
  f("fuse_unknown", v.fuse_unknown);
}

}  // namespace detail

/// Empty where there are no rules but `pre` and `add_space_prefix`.
inline std::string rules_text(const Vocabulary& v) {
  std::string out;
  const auto quoted = [](std::string_view s) { return io::detail::json_quoted(s); };
  const auto add = [&](std::string_view key, const std::string& value) {
    out += out.empty() ? "{" : ", ";
    out += quoted(key) + ": " + value;
  };
  const auto list = [&](std::string_view key, const auto& items, auto&& text_of) {
    std::string all;
    for (const auto& item : items) all += (all.empty() ? "[" : ", ") + std::string("[") + text_of(item) + "]";
    if (!all.empty()) add(key, all + "]");
  };
  list("normalizer", v.normalizer, [&](const NormalizerStep& s) {
    const bool binary = s.kind == NormalizerStep::Kind::charsmap;
    return quoted(detail::normalizer_names[static_cast<std::size_t>(s.kind)]) + ", " +
           quoted(binary ? detail::to_base64(s.from) : s.from) + ", " + quoted(s.to);
  });
  list("cuts", v.cuts, [&](const CutStep& c) {
    return quoted(c.pattern) + ", " + quoted(detail::behavior_names[static_cast<std::size_t>(c.behavior)]) +
           (c.inverted ? ", true" : ", false");
  });
  list("names", v.name_rules, [&](const NameRule& r) {
    return io::detail::text(r.id, ", ", r.swallows_left | r.swallows_right << 1 | r.whole_word << 2 | r.normalized << 3);
  });
  if (v.prefix != Vocabulary{}.prefix) add("prefix", quoted(detail::prefix_names[static_cast<std::size_t>(v.prefix)]));
  if (v.longest_word != Vocabulary{}.longest_word) add("longest_word", std::to_string(v.longest_word));
  std::string flags;
  detail::for_each_rule_flag(v, [&](std::string_view name, bool on) {
    if (on) flags += (flags.empty() ? "[" : ", ") + quoted(name);
  });
  if (!flags.empty()) add("flags", flags + "]");
  return out.empty() ? out : out + "}";
}

namespace detail {

class RulesReader {
 public:
  RulesReader(std::string_view text, Vocabulary& v) : json_(text), v_(v) {}

  Status read() {
    ANYBIT_TRY_STATUS(json_.object([&](const std::string& key) -> Status {
      if (key == "normalizer") return json_.array([&] { return read_normalizer(); });
      if (key == "cuts") return json_.array([&] { return read_cut(); });
      if (key == "names") return json_.array([&] { return read_name(); });
      if (key == "flags") return json_.array([&] { return read_flag(); });
      if (key == "prefix") {
        ANYBIT_TRY(const std::size_t i, one_of(prefix_names));
        v_.prefix = static_cast<SpacePrefix>(i);
        return Ok{};
      }
      if (key == "longest_word") {
        ANYBIT_TRY(const std::uint64_t n, json_.unsigned_integer());
        if (n > 1'000'000) return json_.fail("longest_word is more than a million");
        v_.longest_word = static_cast<std::int32_t>(n);
        return Ok{};
      }
      return json_.fail("unknown rule " + io::detail::shown(key));
    }));
    return json_.end();
  }

 private:
  template <std::size_t N>
  Result<std::size_t> one_of(const std::array<std::string_view, N>& names) {
    ANYBIT_TRY(const std::string name, json_.string());
    for (std::size_t i = 0; i < N; ++i)
      if (names[i] == name) return i;
    return json_.fail("unknown rule " + io::detail::shown(name));
  }
  /// An array of as many elements as there are functions, each of which reads one.
  template <class... Each>
  Status tuple(Each&&... each) {
    std::size_t i = 0;
    ANYBIT_TRY_STATUS(json_.array([&]() -> Status {
      std::size_t k = 0;
      Status done = json_.fail("a rule has too many parts");
      (static_cast<void>(k++ == i ? static_cast<void>(done = each()) : void()), ...);
      ++i;
      return done;
    }));
    return i == sizeof...(Each) ? Status(Ok{}) : Status(json_.fail("a rule has too few parts"));
  }
  template <class To, class From>
  static Status set(To& to, Result<From> from) {
    if (!from) return from.error();
    to = static_cast<To>(*std::move(from));
    return Ok{};
  }

  Status read_normalizer() {
    NormalizerStep s;
    ANYBIT_TRY_STATUS(tuple([&] { return set(s.kind, one_of(normalizer_names)); }, [&] { return set(s.from, json_.string()); },
                            [&] { return set(s.to, json_.string()); }));
    if (s.kind == NormalizerStep::Kind::charsmap) {
      auto binary = from_base64(s.from);
      if (!binary) return json_.fail("a charsmap is not base64");
      s.from = *std::move(binary);
    }
    v_.normalizer.push_back(std::move(s));
    return Ok{};
  }
  Status read_cut() {
    CutStep c;
    ANYBIT_TRY_STATUS(tuple([&] { return set(c.pattern, json_.string()); },
                            [&] { return set(c.behavior, one_of(behavior_names)); },
                            [&] { return set(c.inverted, json_.boolean()); }));
    v_.cuts.push_back(std::move(c));
    return Ok{};
  }
  Status read_name() {
    std::uint64_t id = 0, flags = 0;
    ANYBIT_TRY_STATUS(
        tuple([&] { return set(id, json_.unsigned_integer()); }, [&] { return set(flags, json_.unsigned_integer()); }));
    if (id > 0x7FFFFFFF || flags > 15) return json_.fail("a name's id or flags are too large");
    v_.name_rules.push_back({static_cast<TokenId>(id), (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0, (flags & 8) != 0});
    return Ok{};
  }
  Status read_flag() {
    ANYBIT_TRY(const std::string name, json_.string());
    bool known = false;
    for_each_rule_flag(v_, [&](std::string_view flag, bool& on) {
      if (flag == name) on = known = true;
    });
    return known ? Status(Ok{}) : Status(json_.fail("unknown flag " + io::detail::shown(name)));
  }

  io::detail::JsonReader json_;
  Vocabulary& v_;
};

}  // namespace detail

/// Adds what rules_text() said to `v`.
inline Status read_rules(std::string_view text, Vocabulary& v) {
  if (!io::detail::is_utf8(text)) return {ErrorCode::corrupt_data, "the rules are not UTF-8"};
  return detail::RulesReader(text, v).read();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
