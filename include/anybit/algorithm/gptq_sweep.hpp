#pragma once
// GPTQ's loop over the columns, for a tile of rows at a time. Rows share nothing but the factor.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <anybit/algorithm/gptq_factor.hpp>
#include <anybit/calibrate/group_grids.hpp>
#include <anybit/calibrate/product.hpp>

namespace anybit::gptq::inline ANYBIT_CODE {

struct SweepOptions {
  Index block = 128;           ///< columns between two updates of everything to their right
  bool dynamic_groups = true;  ///< grids are found when the sweep reaches the group, on weights that have been compensated so far
  bool fresh_grids = false;    ///< those see the compensation for all columns before the group: blocks end where groups do
  GridFit fit{};
  ConstMatrix limits{};  ///< by original group, for dynamic groups; see QuantizeOptions::clip_limits
  std::span<const float>
      importance{};  ///< of squared errors of each processed column when dynamic grids are searched; may be empty
};

/// Rows of one task. It fixes how products are cut, so results do not depend on the number of threads.
inline constexpr Index row_tile = calibrate::AffineLanes::most;

/// What the sweep keeps of a tile of rows. Everything is stored transposed: a row of these is one column of the weights,
/// `row_tile` long and 0 past the last row, so that the loops have a constant length, which compilers vectorize at -O2 too. A
/// template so that only programs that quantize compile its products.
template <class Real = float>
class Tile {
 public:
  Tile(MatrixView<const Real> rows, const Factor& factor)
      : factor_(factor),
        original_(size(rows.cols)),
        error_(size(rows.cols)),
        compensated_(size(rows.cols)),
        moved_(factor.drift.empty() ? 0 : size(rows.cols)) {
    for (Index r = 0; r < rows.rows; ++r)
      for (Index k = 0; k < rows.cols; ++k) column(original_, k)[r] = rows(r, k);
  }

  /// Brings columns i1 .. i2 - 1 up to date with the errors of all columns before i1. If `group_end` > i1, unrounded() is
  /// made for columns i1 .. group_end - 1 as well.
  void enter_block(Index i1, Index i2, Index group_end) {
    const Index reach = std::max(i2, group_end);
    const MatrixView<Real> now(column(compensated_, i1), reach - i1, row_tile);
    std::copy(column(original_, i1), column(original_, reach), now.data);
    if (!factor_.drift.empty()) {
      // The targets of these columns move by what the earlier ones, as they stood when they were rounded, lack.
      if (i1 > 0) add_feedback(factor_.drift, compensated_, i1, reach);
      std::copy(now.data, now.data + now.rows * row_tile, column(moved_, i1));
    }
    if (i1 > 0) add_feedback(factor_.feedback, error_, i1, reach);
    if (group_end > i1) unround(i1, reach);
  }
  /// Makes unrounded() for columns from .. to - 1, whose compensated() values are up to date with all columns before `from`.
  void unround(Index from, Index to) {
    // Until they are rounded, these columns follow each other too: their errors d_k = w_k - u_k solve
    // d_k + sum_{j<k} d_j F_jk = 0, where the sum over j < from stands in compensated_.
    unrounded_.resize(original_.size());
    for (Index k = from; k < to; ++k) subtract(target(k), column(compensated_, k), column(unrounded_, k));
    for (Index k = from; k < to; ++k)
      for (Index j = k + 1; j < to; ++j) add_share(-factor_.row(k)[j], column(unrounded_, k), column(unrounded_, j));
    for (Index k = from; k < to; ++k) subtract(target(k), column(unrounded_, k), column(unrounded_, k));
  }
  /// Lets columns k + 1 .. i2 - 1 of the block make up for the error of column k.
  void spread(Index k, Index i2) {
    for (Index j = k + 1; j < i2; ++j) add_share(factor_.row(k)[j], column(error_, k), column(compensated_, j));
    if (factor_.drift.empty()) return;
    for (Index j = k + 1; j < i2; ++j) {
      const Real share = factor_.drift[static_cast<std::size_t>(k * factor_.size + j)];
      add_share(share, column(compensated_, k), column(compensated_, j));
      add_share(share, column(compensated_, k), column(moved_, j));
    }
  }

  /// The error of column k, which was rounded to these.
  void take_error(Index k, const Real* rounded) { subtract(target(k), rounded, column(error_, k)); }

  const Real* compensated(Index k) const { return column(compensated_, k); }
  /// What column k should be: the original, unless drift moved it.
  const Real* target(Index k) const { return column(moved_.empty() ? original_ : moved_, k); }
  Real* error(Index k) { return column(error_, k); }
  /// Column k as unround(from, to) left it: compensated for all columns before `from`, and for none from there on.
  const Real* unrounded(Index k) const { return column(unrounded_, k); }

 private:
  using Column = std::array<Real, static_cast<std::size_t>(row_tile)>;
  static std::size_t size(Index cols) { return static_cast<std::size_t>(row_tile * cols); }
  static Real* column(std::vector<Real>& all, Index k) { return all.data() + k * row_tile; }
  static const Real* column(const std::vector<Real>& all, Index k) { return all.data() + k * row_tile; }
  /// compensated += the first i1 columns of `from` through `by`, for columns i1 .. reach - 1.
  void add_feedback(const std::vector<float>& by, const std::vector<Real>& from, Index i1, Index reach) {
    const Index n = factor_.size;
    const MatrixView<const Real> all(by.data(), n, n);
    calibrate::add_transposed_product<Real>(all.row_range(0, i1).col_range(i1, reach), {from.data(), i1, row_tile},
                                            {column(compensated_, i1), reach - i1, row_tile});
  }
  // Columns are either the same or apart.
  static void subtract(const Real* a, const Real* b, Real* to) {
    Column c;
    for (std::size_t r = 0; r < c.size(); ++r) c[r] = a[r] - b[r];
    std::copy(c.begin(), c.end(), to);
  }
  static void add_share(Real share, const Real* __restrict from, Real* __restrict to) {
    for (Index r = 0; r < row_tile; ++r) to[r] += share * from[r];
  }

  const Factor& factor_;
  std::vector<Real> original_, error_, compensated_, unrounded_, moved_;
};

/// The codes of a tile of rows, transposed like Tile.
class TileCodes {
 public:
  TileCodes(Index cols, bool wide) : code_bytes_(wide ? 2 : 1), codes_(static_cast<std::size_t>(row_tile * cols * code_bytes_)) {}
  std::byte* column(Index k) { return codes_.data() + k * row_tile * code_bytes_; }
  /// Row r goes to row begin + r of q, the code of column k to column position[k].
  void write(Index begin, Index rows, std::span<const Index> position, const calibrate::AnyQuantized& q) const {
    if (code_bytes_ == 2)
      write_as<std::uint16_t>(begin, rows, position, q);
    else
      write_as<std::uint8_t>(begin, rows, position, q);
  }
  /// The reverse.
  void read(Index begin, Index rows, std::span<const Index> position, const calibrate::AnyQuantized& q) {
    for (Index r = 0; r < rows; ++r)
      for (std::size_t k = 0; k < position.size(); ++k)
        std::memcpy(column(static_cast<Index>(k)) + r * code_bytes_, q.code(begin + r, position[k]),
                    static_cast<std::size_t>(code_bytes_));
  }
  /// Those rows of column k that are `taken`.
  void replace(Index k, const std::byte* codes, const std::array<bool, static_cast<std::size_t>(row_tile)>& taken) {
    for (std::size_t r = 0; r < taken.size(); ++r)
      if (taken[r]) {
        const auto at = static_cast<Index>(r) * code_bytes_;
        std::memcpy(column(k) + at, codes + at, static_cast<std::size_t>(code_bytes_));
      }
  }

 private:
  template <class Stored>
  void write_as(Index begin, Index rows, std::span<const Index> position, const calibrate::AnyQuantized& q) const {
    for (Index r = 0; r < rows; ++r) {
      auto* const to = reinterpret_cast<Stored*>(q.code(begin + r, 0));
      const auto* const from = reinterpret_cast<const Stored*>(codes_.data()) + r;
      for (std::size_t k = 0; k < position.size(); ++k) to[position[k]] = from[static_cast<Index>(k) * row_tile];
    }
  }
  Index code_bytes_;
  std::vector<std::byte> codes_;
};

/// Quantizes rows begin .. end - 1 (at most row_tile). `w` is in processed column order, as are the rows and columns of the
/// factor; `position[k]` is where the code of processed column k belongs, and its group is position / group width. Static grids
/// are read from q.affines; dynamic ones are written there, and then every group is one run of processed columns.
template <class Real = float>
void sweep(MatrixView<const Real> w, Index begin, Index end, const Factor& factor, std::span<const Index> position,
           const SweepOptions& options, const calibrate::AnyQuantized& q, calibrate::StoreLoss& loss) {
  const Index n = w.cols, rows = end - begin;
  const auto group_of = [&](Index k) { return position[static_cast<std::size_t>(k)] / q.group_cols; };
  Tile<Real> tile(w.row_range(begin, end), factor);
  TileCodes codes(n, q.format().wide);
  calibrate::AffineLanes affines;
  std::vector<float> values;
  std::vector<Index> run_end(static_cast<std::size_t>(n), n);  // of the run of columns of one group around each column
  for (Index k = n - 2; k >= 0; --k)
    run_end[static_cast<std::size_t>(k)] = group_of(k) == group_of(k + 1) ? run_end[static_cast<std::size_t>(k + 1)] : k + 1;
  const auto end_of_run = [&](Index k) { return run_end[static_cast<std::size_t>(k)]; };
  const auto starts_run = [&](Index k) { return k == 0 || group_of(k) != group_of(k - 1); };

  // The grid of the group that starts at column c, on the weights as they stood when the block was entered. The published
  // loop does so too: compensation inside a block has not reached its big matrix then.
  const auto find_grids = [&](Index c) {
    const Index stop = end_of_run(c), g = group_of(c);
    const auto importance = options.importance.empty()
                                ? options.importance
                                : options.importance.subspan(static_cast<std::size_t>(c), static_cast<std::size_t>(stop - c));
    values.resize(static_cast<std::size_t>(stop - c));
    for (Index r = 0; r < rows; ++r) {
      for (Index k = c; k < stop; ++k) values[static_cast<std::size_t>(k - c)] = tile.unrounded(k)[r];
      if (options.limits.rows > 0)
        for (float& v : values) v = calibrate::clipped(v, options.limits(begin + r, g));
      const Affine a = options.fit.fit(q.scheme, values, importance);
      if (options.fit.search == Search::none) loss.count(q.scheme, options.fit.plain(q.format(), values).scale, a.scale);
      q.affine(begin + r, g) = a;
    }
  };

  for (Index i1 = 0, i2 = 0; i1 < n; i1 = i2) {
    i2 = std::min(i1 + options.block, n);
    Index grids_end = i1;
    if (options.dynamic_groups) {
      if (options.fresh_grids) i2 = std::min(i2, end_of_run(i1));
      for (Index k = i1; k < i2; ++k)
        if (starts_run(k)) grids_end = end_of_run(k);  // the last group may end behind the block
    }
    tile.enter_block(i1, i2, grids_end);
    for (Index k = i1; k < i2; ++k) {
      if (starts_run(k)) {
        if (options.dynamic_groups) find_grids(k);
        for (Index r = 0; r < rows; ++r) affines.set(r, q.affine(begin + r, group_of(k)));
      }
      float rounded[row_tile];
      q.format().encode_lanes(tile.compensated(k), affines, codes.column(k));
      q.format().decode_lanes(codes.column(k), affines, rounded);
      tile.take_error(k, rounded);
      tile.spread(k, i2);
    }
  }
  codes.write(begin, rows, position, q);
}

}  // namespace anybit::gptq::inline ANYBIT_CODE
