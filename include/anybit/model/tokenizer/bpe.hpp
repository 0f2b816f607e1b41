#pragma once
// Byte pair encoding: the best adjacent pair is merged until none is left. One algorithm serves both families of
// tokenizers; they differ in the meaning of "best".

#include <algorithm>
#include <cstdint>
#include <vector>

#include <anybit/model/tokenizer/flat_map.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// A run of bytes [begin, end) of the text that is one symbol so far. `id` is -1 where no token is known for it.
struct Piece {
  std::size_t begin = 0, end = 0;
  TokenId id = -1;
};

/// Whether two neighbours merge, how soon (the lowest priority first, the leftmost among equals), and into what.
struct Merge {
  bool possible = false;
  double priority = 0;
  TokenId id = -1;
};

/// Merges neighbours with a priority queue: O(n log n) for n pieces, whatever the text. Keep one object for many words,
/// it keeps its memory.
class PieceMerger {
 public:
  /// `pieces` are adjacent and in order; `rule(const Piece& left, const Piece& right) -> Merge`.
  template <class Rule>
  void merge(std::vector<Piece>& pieces, Rule&& rule) {
    const std::size_t n = pieces.size();
    if (n < 2) return;
    next_.resize(n + 1);
    previous_.resize(n + 1);
    for (std::size_t i = 0; i <= n; ++i) next_[i] = i + 1, previous_[i] = i - 1;
    queue_.clear();
    for (std::size_t i = 0; i + 1 < n; ++i) consider(pieces, i, i + 1, rule);

    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end(), later);
      const Candidate c = queue_.back();
      queue_.pop_back();
      Piece& left = pieces[c.left];
      // A dead piece is empty and a live one only grows, so an outdated candidate has another length.
      if (pieces[c.right].end - left.begin != c.bytes || left.begin == left.end || pieces[c.right].begin == pieces[c.right].end)
        continue;
      left.end = pieces[c.right].end;
      left.id = c.id;
      pieces[c.right].begin = pieces[c.right].end = 0;
      const std::size_t after = next_[c.left] = next_[c.right];
      if (after < n) {
        previous_[after] = c.left;
        consider(pieces, c.left, after, rule);
      }
      if (c.left != 0) consider(pieces, previous_[c.left], c.left, rule);
    }
    std::erase_if(pieces, [](const Piece& p) { return p.begin == p.end; });
  }

 private:
  struct Candidate {
    double priority;
    TokenId id;
    std::size_t left, right, bytes;
  };
  static bool later(const Candidate& a, const Candidate& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.left > b.left;
  }

  template <class Rule>
  void consider(const std::vector<Piece>& pieces, std::size_t left, std::size_t right, Rule& rule) {
    const Merge m = rule(pieces[left], pieces[right]);
    if (!m.possible) return;
    queue_.push_back({m.priority, m.id, left, right, pieces[right].end - pieces[left].begin});
    std::push_heap(queue_.begin(), queue_.end(), later);
  }

  std::vector<std::size_t> next_, previous_;
  std::vector<Candidate> queue_;
};

/// Merges by a table of pairs, as byte-level BPE has it.
class PairMerger {
 public:
  struct Rank {
    std::uint32_t rank = none;
    TokenId id = -1;  ///< of the joint token
  };
  static constexpr std::uint32_t none = 0xFFFFFFFF;
  using Table = FlatMap<Rank>;

  static std::uint64_t key(TokenId left, TokenId right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }

  /// Merges neighbours in `ids` until no pair of the table is left.
  void merge(std::vector<TokenId>& ids, const Table& table) {
    if (ids.size() > longest_scan) return merge_long(ids, table);
    // In a word the best pair is found soonest by looking at all.
    const auto rank = [&](std::size_t i) {
      const Rank* const found = table.find(key(ids[i], ids[i + 1]));
      return found ? *found : Rank{};
    };
    std::size_t pairs = ids.empty() ? 0 : ids.size() - 1;
    for (std::size_t i = 0; i < pairs; ++i) ranks_[i] = rank(i);
    while (pairs != 0) {
      std::size_t best = 0;
      for (std::size_t i = 1; i < pairs; ++i)
        if (ranks_[i].rank < ranks_[best].rank) best = i;
      if (ranks_[best].rank == none) break;
      ids[best] = ranks_[best].id;
      --pairs;
      for (std::size_t i = best + 1; i <= pairs; ++i) ids[i] = ids[i + 1];
      for (std::size_t i = best; i < pairs; ++i) ranks_[i] = ranks_[i + 1];
      if (best < pairs) ranks_[best] = rank(best);
      if (best != 0) ranks_[best - 1] = rank(best - 1);
    }
    if (!ids.empty()) ids.resize(pairs + 1);
  }

 private:
  static constexpr std::size_t longest_scan = 48;

  void merge_long(std::vector<TokenId>& ids, const Table& table) {
    pieces_.clear();
    for (std::size_t i = 0; i < ids.size(); ++i) pieces_.push_back({i, i + 1, ids[i]});
    long_.merge(pieces_, [&](const Piece& left, const Piece& right) {
      const Rank* const found = table.find(key(left.id, right.id));
      return found ? Merge{true, static_cast<double>(found->rank), found->id} : Merge{};
    });
    ids.clear();
    for (const Piece& p : pieces_) ids.push_back(p.id);
  }

  Rank ranks_[longest_scan];
  std::vector<Piece> pieces_;
  PieceMerger long_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
