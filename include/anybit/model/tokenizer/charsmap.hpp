#pragma once
// SentencePiece's "precompiled charsmap": replacements of character sequences (NFKC and more) as one binary. A number of bytes,
// a double-array trie of that size in units of 32 bits (Darts), then the replacements, each ended by NUL. A unit holds
// the byte that leads to it (bits 0 to 7, and bit 31, which is set in values only), whether a value hangs on it (bit 8) and the
// distance to its children (bits 10 to 30, times 256 where bit 9 is set).

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/tokenizer/unicode.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// A view of the binary, which outlives it.
class Charsmap {
 public:
  Charsmap() = default;

  static Result<Charsmap> make(std::string_view binary) {
    std::uint32_t trie_bytes = 0;
    const auto bad = [&](std::string_view why) {
      return Error{ErrorCode::corrupt_data, io::detail::text("precompiled charsmap of ", binary.size(), " bytes: ", why,
                                                             ": the file is damaged, fetch it again")};
    };
    if (binary.size() < sizeof trie_bytes) return bad("no size of its trie");
    std::memcpy(&trie_bytes, binary.data(), sizeof trie_bytes);
    if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > binary.size() - 4)
      return bad(io::detail::text("its trie has ", trie_bytes, " bytes"));
    Charsmap out;
    out.trie_ = binary.substr(4, trie_bytes);
    out.replacements_ = binary.substr(4 + std::size_t{trie_bytes});
    if (out.replacements_.empty() || out.replacements_.back() != '\0') return bad("its last replacement does not end");
    return out;
  }

  /// The text with the longest entry replaced at every place, from the left; other characters are copied, and so are bytes
  /// that are not UTF-8.
  std::string apply(std::string_view text) const {
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
      std::size_t bytes = 0;
      std::string_view replacement;
      if (find(text, bytes, replacement)) {
        out += replacement;
      } else {
        bytes = decode_utf8(text).bytes;
        out += text.substr(0, bytes);
      }
      text.remove_prefix(bytes);
    }
    return out;
  }

 private:
  std::size_t units() const { return trie_.size() / 4; }
  std::uint32_t unit(std::size_t i) const {
    std::uint32_t u;
    std::memcpy(&u, trie_.data() + 4 * i, sizeof u);
    return u;
  }
  static std::size_t offset(std::uint32_t u) { return std::size_t{u >> 10} << ((u & 512u) >> 6); }

  /// The longest entry that `text` starts with.
  bool find(std::string_view text, std::size_t& bytes, std::string_view& replacement) const {
    std::size_t at = offset(unit(0));
    bool found = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      at ^= byte;
      if (at >= units()) break;
      const std::uint32_t u = unit(at);
      if ((u & (0x80000000u | 255u)) != byte) break;
      at ^= offset(u);
      if ((u >> 8 & 1u) == 0) continue;
      if (at >= units()) break;
      const std::size_t value = unit(at) & 0x7FFFFFFFu;
      if (value >= replacements_.size()) break;  // a damaged trie names no replacement
      found = true;
      bytes = i + 1;
      replacement = replacements_.substr(value, replacements_.find('\0', value) - value);
    }
    return found;
  }

  std::string_view trie_, replacements_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
