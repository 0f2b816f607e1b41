#pragma once
// Tokens by their text. A vocabulary is indexed whenever a model is loaded, so the index allocates one array and copies no text.

#include <anybit/core/macros_begin.hpp>

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// For tables in memory. It is the same for the same machine only.
inline std::uint64_t text_hash(std::string_view text) {
  const auto mix = [](std::uint64_t h) {
    h *= 0xBF58476D1CE4E5B9u;
    return (h ^ h >> 29) * 0x94D049BB133111EBu;
  };
  std::uint64_t h = text.size() * 0x9E3779B97F4A7C15u, part = 0;
  const char* at = text.data();
  std::size_t left = text.size();
  for (; left >= 8; at += 8, left -= 8) {
    std::memcpy(&part, at, 8);
    h = mix(h ^ part);
  }
  part = 0;
  if (left != 0) std::memcpy(&part, at, left);
  return mix(h ^ part);
}

/// The texts stay in `tokens`, which must neither move nor change.
class TextIndex {
 public:
  explicit TextIndex(const std::vector<std::string>& tokens) : tokens_(&tokens), slots_(std::bit_ceil(2 * tokens.size() + 2)) {}

  /// The token that has this text: `id`, or an earlier one. At most as many as `tokens` had may be added.
  TokenId add(TokenId id) {
    const std::string& text = (*tokens_)[static_cast<std::size_t>(id)];
    const std::uint64_t hash = text_hash(text);
    Slot& s = slots_[place(text, hash)];
    if (s.id < 0) s = {static_cast<std::uint32_t>(hash >> 32), id}, ++size_;
    return s.id;
  }
  /// -1 if there is none.
  TokenId find(std::string_view text) const { return slots_[place(text, text_hash(text))].id; }
  bool empty() const { return size_ == 0; }

 private:
  struct Slot {
    std::uint32_t hash = 0;
    TokenId id = -1;
  };

  /// The number of the slot of `text`, or of the empty one that it belongs into.
  std::size_t place(std::string_view text, std::uint64_t hash) const {
    const std::size_t last = slots_.size() - 1;
    for (std::size_t i = static_cast<std::size_t>(hash) & last;; i = (i + 1) & last) {
      const Slot& s = slots_[i];
      if (s.id < 0 || (s.hash == static_cast<std::uint32_t>(hash >> 32) && (*tokens_)[static_cast<std::size_t>(s.id)] == text))
        return i;
    }
  }

  const std::vector<std::string>* tokens_;
  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
