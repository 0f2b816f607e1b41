#pragma once
// The tokens that a text begins with, all of them in one walk over its bytes.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include <anybit/model/tokenizer/flat_map.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

class TokenTrie {
 public:
  /// Of two equal names the first one counts. `name` is not empty.
  void add(std::string_view name, TokenId id) {
    std::uint32_t node = root;
    for (const char c : name) {
      const std::uint32_t child = children_.insert(key(node, c), static_cast<std::uint32_t>(ids_.size()));
      if (child == ids_.size()) ids_.push_back(-1);
      node = child;
    }
    if (ids_[node] < 0) ids_[node] = id;
  }

  /// Calls `found(bytes, id)` for every token that the text from `at` on begins with, the shortest first.
  template <class Found>
  void prefixes(std::string_view text, std::size_t at, Found&& found) const {
    std::uint32_t node = root;
    for (std::size_t i = at; i < text.size(); ++i) {
      const std::uint32_t* const child = children_.find(key(node, text[i]));
      if (!child) return;
      node = *child;
      if (ids_[node] >= 0) found(i + 1 - at, ids_[node]);
    }
  }

 private:
  static constexpr std::uint32_t root = 0;
  static std::uint64_t key(std::uint32_t node, char c) { return std::uint64_t{node} << 8 | static_cast<unsigned char>(c); }

  FlatMap<std::uint32_t> children_;
  std::vector<TokenId> ids_{-1};  ///< by node; -1: no token ends here
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
