#pragma once
// A band of rows in GPTQ's loop: the weights as compensated so far, and the errors of the columns already rounded.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include <anybit/algorithm/feedback/factor.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/tensor/rounding_ops.hpp>

namespace anybit::gptq {
inline namespace ANYBIT_CODE {

/// Rows whose grids and codes are handled side by side.
inline constexpr Index row_tile = AffineLanes::most;

/// What the sweep keeps of a band of rows. Everything is stored transposed: a row of these is one column of the weights, cut
/// into tiles that are `row_tile` long and 0 past the last row, so that the loops over a tile have a constant length, which
/// compilers vectorize at -O2 too. A template so that only programs that quantize compile its products.
template <class Real = float>
class Band {
 public:
  /// Columns that follow each other one by one; what lies further back reaches them by products.
  static constexpr Index step = 16;
  /// Columns of several blocks that follow those before them by one product: it reads those errors once for all.
  static constexpr Index panel = 512;

  /// `rows`, in processed column order, and the factor must outlive the band.
  Band(MatrixView<const Real> rows, const Factor& factor) : factor_(factor), rows_(rows), width_(round_up(rows.rows, row_tile)) {
    error_.resize(rows.cols, width_);
    if (drifts()) compensated_.resize(rows.cols, width_);
  }

  Index tiles() const { return width_ / row_tile; }
  Index rows_of(Index tile) const { return std::min(row_tile, rows_.rows - tile * row_tile); }

  /// Brings columns i1 .. i2 - 1 up to date with the errors of all columns before i1. If `group_end` > i1, unrounded() is
  /// made for columns i1 .. group_end - 1 as well.
  void enter_block(Index i1, Index i2, Index group_end) {
    const Index reach = std::max(i2, group_end);
    if (reach > panel_end_) enter_panel(i1, std::max(reach, std::min(i1 + panel, rows_.cols)));
    const auto take = [&](const Columns& from, Columns& to) { std::copy_n(from.at(i1), (reach - i1) * width_, to.at(i1)); };
    if (!drifts()) compensated_.start(i1, reach, width_);
    take(base_, compensated_);
    if (drifts()) {
      moved_.start(i1, reach, width_);
      take(original_, moved_);
    }
    if (i1 > panel_begin_) follow(panel_begin_, i1, reach, moved_, compensated_);
    if (group_end > i1) unround(i1, reach);
  }
  /// Makes unrounded() for columns from .. to - 1, whose compensated() values are up to date with all columns before `from`.
  void unround(Index from, Index to) {
    // Until they are rounded, these columns follow each other too: their errors d_k = w_k - u_k solve
    // d_k + sum_{j<k} d_j F_jk = 0, where the sum over j < from stands in compensated_. What is kept is -d.
    constexpr Real zeros[row_tile] = {};
    unrounded_.start(from, to, width_);
    for (Index s1 = from; s1 < to; s1 += step) {
      const Index s2 = std::min(s1 + step, to);
      for (Index k = s1; k < s2; ++k)
        for (Index t = 0; t < tiles(); ++t) subtract(target(t, k), compensated(t, k), at(unrounded_, t, k));
      if (s1 > from) add_product(factor_.transposed(), from, s1, unrounded_, s2, unrounded_);
      for (Index k = s1; k < s2; ++k)
        for (Index t = 0; t < tiles(); ++t) {
          subtract(zeros, unrounded(t, k), at(unrounded_, t, k));
          for (Index j = k + 1; j < s2; ++j) add_share(factor_.column(j)[k], unrounded(t, k), at(unrounded_, t, j));
        }
    }
    for (Index k = from; k < to; ++k)
      for (Index t = 0; t < tiles(); ++t) add_share(1, target(t, k), at(unrounded_, t, k));
  }
  /// Lets columns from .. to - 1 make up for the errors of columns i1 .. from - 1 of their block.
  void catch_up(Index i1, Index from, Index to) { follow(i1, from, to, moved_, compensated_); }
  /// Lets columns from .. to - 1 of a tile, all behind column k, make up for its error.
  void spread(Index tile, Index k, Index from, Index to) {
    for (Index j = from; j < to; ++j) add_share(factor_.column(j)[k], error(tile, k), at(compensated_, tile, j));
    if (!drifts()) return;
    for (Index j = from; j < to; ++j) {
      const Real share = drift()(j, k);
      add_share(share, compensated(tile, k), at(compensated_, tile, j));
      add_share(share, compensated(tile, k), at(moved_, tile, j));
    }
  }

  /// The error of column k, which was rounded to these.
  void take_error(Index tile, Index k, const Real* rounded) { subtract(target(tile, k), rounded, error(tile, k)); }

  const Real* compensated(Index tile, Index k) const { return at(compensated_, tile, k); }
  /// The target of column k: the original, unless drift moved it.
  const Real* target(Index tile, Index k) const { return at(drifts() ? moved_ : original_, tile, k); }
  Real* error(Index tile, Index k) { return at(error_, tile, k); }
  /// Column k as unround(from, to) left it: compensated for all columns before `from`, and for none from there on.
  const Real* unrounded(Index tile, Index k) const { return at(unrounded_, tile, k); }

 private:
  /// Some columns, one after the other.
  class Columns {
   public:
    void resize(Index count, Index width) { start(0, count, width); }
    /// Forgets what it holds, for columns from .. to - 1, of any values.
    void start(Index from, Index to, Index width) {
      first_ = from;
      width_ = width;
      const std::size_t bytes = static_cast<std::size_t>((to - from) * width) * sizeof(Real);
      if (bytes > all_.size()) all_ = AlignedBuffer(bytes, AlignedBuffer::Uninitialized{});
    }
    Index width() const { return width_; }
    Real* at(Index k) { return all_.as<Real>() + (k - first_) * width_; }
    const Real* at(Index k) const { return all_.as<Real>() + (k - first_) * width_; }

   private:
    AlignedBuffer all_;
    Index first_ = 0, width_ = 0;
  };

  static Real* at(Columns& columns, Index tile, Index k) { return columns.at(k) + tile * row_tile; }
  static const Real* at(const Columns& columns, Index tile, Index k) { return columns.at(k) + tile * row_tile; }
  bool drifts() const { return !factor_.drift.empty(); }
  ConstMatrix drift() const { return {factor_.drift.data(), factor_.size, factor_.size}; }
  /// Columns begin .. end - 1 of original_ and base_ for blocks to come.
  void enter_panel(Index begin, Index end) {
    panel_begin_ = begin;
    panel_end_ = end;
    original_.start(begin, end, width_);
    constexpr Index line = 16;  // rows read side by side, so that whole cache lines are written
    for (Index first = 0; first < width_; first += line)
      for (Index k = begin; k < end; ++k)
        for (Index r = first; r < first + line; ++r) original_.at(k)[r] = r < rows_.rows ? rows_(r, k) : Real{0};
    base_.start(begin, end, width_);
    std::copy_n(original_.at(begin), (end - begin) * width_, base_.at(begin));
    if (begin > 0) follow(0, begin, end, original_, base_);
  }
  /// Columns end .. reach - 1 of `target` and `now`, as columns begin .. end - 1 left them, follow those.
  void follow(Index begin, Index end, Index reach, Columns& target, Columns& now) const {
    if (drifts()) {
      // Targets move by what the earlier columns, as they stood when they were rounded, lack.
      add_product(drift(), begin, end, compensated_, reach, target);
      add_product(drift(), begin, end, compensated_, reach, now);
    }
    add_product(factor_.transposed(), begin, end, error_, reach, now);
  }
  /// to += columns begin .. end - 1 of `from` through `by`, for columns end .. reach - 1.
  static void add_product(ConstMatrix by, Index begin, Index end, const Columns& from, Index reach, Columns& to) {
    dense::add_product<Real>(by.row_range(end, reach).col_range(begin, end), {from.at(begin), end - begin, from.width()},
                             {to.at(end), reach - end, to.width()});
  }
  // Columns are either the same or apart.
  static void subtract(const Real* a, const Real* b, Real* to) {
    std::array<Real, static_cast<std::size_t>(row_tile)> c;
    for (std::size_t r = 0; r < c.size(); ++r) c[r] = a[r] - b[r];
    std::copy(c.begin(), c.end(), to);
  }
  static void add_share(Real share, const Real* __restrict from, Real* __restrict to) {
    for (Index r = 0; r < row_tile; ++r) to[r] += share * from[r];
  }

  const Factor& factor_;
  MatrixView<const Real> rows_;
  Index width_;
  Index panel_begin_ = 0, panel_end_ = 0;
  /// Of the panel: the weights (moved by the drift of columns before it), and those compensated for columns before it.
  Columns original_, base_;
  Columns error_;                    ///< of all columns
  Columns compensated_, unrounded_;  ///< of the block; with drift, compensated_ is of all columns
  Columns moved_;                    ///< of the block, with drift: what its columns should be
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::gptq

#include <anybit/core/macros_end.hpp>
