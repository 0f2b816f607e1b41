#pragma once
// The mask of pruned weights, and the share or pattern that is wanted.

#include <anybit/core/macros_begin.hpp>

#include <bit>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/view.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// How many weights become zero: a share of them, or N:M, where at most `keep` of every `of` consecutive columns of a row are
/// left. A last run of fewer columns keeps as many of them; nothing is padded.
struct Sparsity {
  double share = 0.5;  ///< 0 to 1 of each group of weights that are compared, rounded down. Not used with N:M.
  int keep = 0, of = 0;
  /// Of a share: prune all scores up to and including the first that would stay, so at least one more than asked. Published
  /// magnitude pruning and SparseGPT do so; 2:4 and other patterns always hold exactly.
  bool through_threshold = false;

  /// 2:4 is n_of_m(2, 4).
  static constexpr Sparsity n_of_m(int keep, int of) { return {.share = 0, .keep = keep, .of = of}; }
  constexpr bool is_pattern() const { return keep != 0 || of != 0; }
  /// Zeros among n weights that are compared.
  constexpr Index count(Index n) const { return static_cast<Index>(static_cast<double>(n) * share); }
  constexpr Index pruned_of_run(Index columns) const { return columns > keep ? columns - keep : 0; }

  std::string describe() const {
    if (is_pattern()) return std::to_string(keep) + ":" + std::to_string(of);
    char text[32];
    std::snprintf(text, sizeof text, "%.6g%%", 100 * share);
    return text;
  }
};

/// One bit a weight; nothing is pruned at first. Rows do not share words: threads may change different rows at once.
class Mask {
 public:
  Mask() = default;
  Mask(Index rows, Index cols)
      : words_per_row_(ceil_div(cols, 64)), rows_(rows), cols_(cols), words_(static_cast<std::size_t>(rows * words_per_row_)) {
    ANYBIT_CHECK(rows >= 0 && cols >= 0, "Mask: rows or columns are negative");
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Extents extents() const { return {rows_, cols_}; }
  ANYBIT_INLINE bool pruned(Index r, Index c) const { return (word(r, c) >> (c % 64) & 1) != 0; }
  ANYBIT_INLINE void prune(Index r, Index c) { words_[index(r, c)] |= std::uint64_t{1} << (c % 64); }
  ANYBIT_INLINE void restore(Index r, Index c) { words_[index(r, c)] &= ~(std::uint64_t{1} << (c % 64)); }

  /// Pruned weights.
  ANYBIT_INLINE Index count() const {
    Index n = 0;
    for (const std::uint64_t w : words_) n += std::popcount(w);
    return n;
  }
  /// Their share of all; 0 of an empty matrix.
  ANYBIT_INLINE double sparsity() const {
    return words_.empty() ? 0 : static_cast<double>(count()) / static_cast<double>(rows_ * cols_);
  }

  friend bool operator==(const Mask&, const Mask&) = default;

 private:
  std::size_t index(Index r, Index c) const { return static_cast<std::size_t>(r * words_per_row_ + c / 64); }
  std::uint64_t word(Index r, Index c) const { return words_[index(r, c)]; }

  Index words_per_row_ = 0, rows_ = 0, cols_ = 0;
  std::vector<std::uint64_t> words_;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit {
inline namespace ANYBIT_CODE {

/// The weights of w that are 0, of either sign.
inline Mask mask_of_zeros(ConstMatrix w) {
  Mask m(w.rows, w.cols);
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c)
      if (w(r, c) == 0) m.prune(r, c);
  return m;
}

/// Sets pruned weights to 0 and leaves the others as they are.
inline void apply(const Mask& mask, MutableMatrix w) {
  ANYBIT_CHECK(mask.extents() == w.extents(), "apply: mask and weights have different shapes");
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c)
      if (mask.pruned(r, c)) w(r, c) = 0;
}

/// Whether at most s.keep of every s.of consecutive columns are left; the error names the first place where more are.
inline Status check_pattern(const Mask& mask, const Sparsity& s) {
  ANYBIT_CHECK(s.is_pattern() && s.of >= 1, "check_pattern: the sparsity is a share, not a pattern N:M");
  for (Index r = 0; r < mask.rows(); ++r)
    for (Index c = 0; c < mask.cols(); c += s.of) {
      const Index end = c + s.of < mask.cols() ? c + s.of : mask.cols();
      Index left = 0;
      for (Index k = c; k < end; ++k) left += !mask.pruned(r, k);
      if (left > s.keep)
        return Error{ErrorCode::invalid_argument, "row " + std::to_string(r) + " has " + std::to_string(left) +
                                                      " weights left in columns " + std::to_string(c) + " to " +
                                                      std::to_string(end - 1) + "; " + s.describe() + " allows " +
                                                      std::to_string(s.keep)};
    }
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

namespace anybit::prune {
inline namespace ANYBIT_CODE {

inline Status check_sparsity(const Sparsity& s, const std::string& who) {
  if (s.is_pattern()) {
    if (s.of < 1 || s.keep < 0 || s.keep > s.of)
      return Error{ErrorCode::invalid_argument, who + ": pattern " + s.describe() + " keeps " + std::to_string(s.keep) +
                                                    " of every " + std::to_string(s.of) +
                                                    " columns; N:M needs M of at least 1 and N from 0 to M"};
  } else if (!is_within(s.share, 0, 1)) {
    return Error{ErrorCode::invalid_argument,
                 who + ": sparsity is " + std::to_string(s.share) + "; it is a share and must lie from 0 to 1"};
  }
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::prune

#include <anybit/core/macros_end.hpp>
