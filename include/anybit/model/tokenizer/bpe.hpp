#pragma once
// Byte pair encoding: the best adjacent pair is merged until none is left. One algorithm serves both families of
// tokenizers; they differ in the meaning of "best".

#include <algorithm>
#include <cstdint>
#include <vector>

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

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
