#pragma once
// Tokens that are found in a text by their names, before anything is cut or merged.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/stable_sort.hpp>
#include <anybit/model/tokenizer/normalizer.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

class AddedTokens {
 public:
  struct Found {
    std::size_t begin, end;  ///< in the text; white space that the token swallows is between them
    TokenId id;              ///< -1: none up to the end, where both others are
  };

  /// `name` is not empty.
  void add(TokenId id, std::string name, const NameRule* rule = nullptr) {
    const auto byte = [&](std::size_t i) -> std::size_t { return static_cast<unsigned char>(name[i]); };
    if (name.size() == 1)
      for (std::size_t second = 0; second < 256; ++second) starts_.set(byte(0) << 8 | second);
    else
      starts_.set(byte(0) << 8 | byte(1));
    first_.set(byte(0));
    names_[static_cast<unsigned char>(name[0])].push_back({id, std::move(name), rule ? *rule : NameRule{}});
  }
  /// To be called when all were added: the longest names first.
  void sort() {
    for (auto& [byte, names] : names_)
      anybit::stable_sort(names.begin(), names.end(), [](const Name& a, const Name& b) { return a.name.size() > b.name.size(); });
  }
  bool empty() const { return names_.empty(); }

  /// The first one at or after `at`, the longest where several start.
  Found find(std::string_view text, std::size_t at) const {
    const std::size_t from = at;
    if (!names_.empty())
      for (; at < text.size(); ++at) {
        const auto byte = static_cast<unsigned char>(text[at]);
        if (!first_[byte]) continue;
        const std::size_t second = at + 1 < text.size() ? static_cast<unsigned char>(text[at + 1]) : 0;
        if (!starts_[static_cast<std::size_t>(byte) << 8 | second]) continue;
        for (const Name& n : names_.find(byte)->second)
          if (text.substr(at).starts_with(n.name) && (!n.rule.whole_word || stands_alone(text, at, n.name.size())))
            return with_space(text, from, at, n);
      }
    return {text.size(), text.size(), -1};
  }

 private:
  struct Name {
    TokenId id;
    std::string name;
    NameRule rule;
  };

  static bool stands_alone(std::string_view text, std::size_t at, std::size_t size) {
    constexpr CategorySet word = category_set("L") | category_set("M") | category_set("Nd") | category_set("Pc");
    std::size_t before = at;
    while (before > 0 && at - before < 4 && (static_cast<unsigned char>(text[--before]) & 0xC0u) == 0x80u) {
    }
    const auto in_word = [&](std::size_t i) {
      const DecodedChar c = decode_utf8(text.substr(i));
      return c.valid && contains(word, category(c.code_point));
    };
    return (at == 0 || !in_word(before)) && (at + size == text.size() || !in_word(at + size));
  }

  static Found with_space(std::string_view text, std::size_t from, std::size_t at, const Name& n) {
    std::size_t end = at + n.name.size();
    if (n.rule.swallows_left) at -= detail::trailing_space(text.substr(from, at - from));
    if (n.rule.swallows_right) end += detail::leading_space(text.substr(end));
    return {at, end, n.id};
  }

  std::map<unsigned char, std::vector<Name>> names_;  ///< by their first byte
  std::bitset<256> first_;
  std::bitset<65536> starts_;  ///< first byte << 8 | second byte of the names
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
