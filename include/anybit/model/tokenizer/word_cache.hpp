#pragma once
// The ids of words that came before in the same text: most words of a long text do.

#include <anybit/core/macros_begin.hpp>

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/tokenizer/text_index.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Of bounded size: when it is full, it starts again.
class WordCache {
 public:
  static constexpr std::size_t longest = 64;  ///< bytes of a word that is kept

  /// The ids stay until the next add().
  std::optional<std::span<const TokenId>> find(std::string_view word) {
    hash_ = text_hash(word);
    if (slots_.empty()) return std::nullopt;
    const Slot& s = slot(word);
    if (s.bytes == 0) return std::nullopt;
    return std::span<const TokenId>(ids_).subspan(s.ids, s.count);
  }
  /// Of the word that find() did not find just before.
  void add(std::string_view word, std::span<const TokenId> ids) {
    if (2 * (words_ + 1) > slots_.size()) grow();
    slot(word) = {hash_, static_cast<std::uint32_t>(text_.size()), static_cast<std::uint32_t>(word.size()),
                  static_cast<std::uint32_t>(ids_.size()), static_cast<std::uint32_t>(ids.size())};
    text_ += word;
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    ++words_;
  }

 private:
  static constexpr std::size_t most_slots = std::size_t{1} << 17;
  struct Slot {
    std::uint64_t hash = 0;
    std::uint32_t text = 0, bytes = 0, ids = 0, count = 0;  ///< bytes = 0: empty
  };

  /// The word's slot, or the empty one that it belongs into.
  Slot& slot(std::string_view word) {
    for (std::size_t i = static_cast<std::size_t>(hash_ >> 32);; ++i) {
      Slot& s = slots_[i & (slots_.size() - 1)];
      if (s.bytes == 0 ||
          (s.hash == hash_ && s.bytes == word.size() && std::memcmp(text_.data() + s.text, word.data(), word.size()) == 0))
        return s;
    }
  }
  void grow() {
    std::vector<Slot> old = std::move(slots_);
    if (old.size() == most_slots) {
      slots_.assign(most_slots, Slot{});
      text_.clear(), ids_.clear(), words_ = 0;
      return;
    }
    slots_.assign(old.empty() ? 512 : 4 * old.size(), Slot{});
    for (const Slot& s : old) {
      if (s.bytes == 0) continue;
      std::size_t i = static_cast<std::size_t>(s.hash >> 32) & (slots_.size() - 1);
      while (slots_[i].bytes != 0) i = (i + 1) & (slots_.size() - 1);
      slots_[i] = s;
    }
  }

  std::vector<Slot> slots_;
  std::string text_;
  std::vector<TokenId> ids_;
  std::uint64_t hash_ = 0;
  std::size_t words_ = 0;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
