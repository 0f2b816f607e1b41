#pragma once
// GPTQ's loop over the columns, for a tile of rows at a time. Rows share nothing but the factor.

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include <anybit/algorithm/gptq_factor.hpp>
#include <anybit/calibrate/group_grids.hpp>
#include <anybit/calibrate/product.hpp>

namespace anybit::gptq::inline ANYBIT_CODE {

struct SweepOptions {
  Index block = 128;           ///< columns between two updates of everything to their right
  bool dynamic_groups = true;  ///< grids are found when the sweep reaches the group, on weights that have been compensated so far
  GridFit fit{};
  ConstMatrix limits{};  ///< for dynamic groups in natural order; see QuantizeOptions::clip_limits
};

/// Rows of one task. It fixes how products are cut, so results do not depend on the number of threads.
inline constexpr Index row_tile = 64;

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
        codes_(size(rows.cols)) {
    for (Index r = 0; r < rows.rows; ++r)
      for (Index k = 0; k < rows.cols; ++k) column(original_, k)[r] = rows(r, k);
  }

  /// Brings columns i1 .. i2 - 1 up to date with the errors of all columns before i1. If `group_end` > i1, unrounded() is
  /// made for columns i1 .. group_end - 1 as well.
  void enter_block(Index i1, Index i2, Index group_end) {
    const Index n = factor_.size, reach = std::max(i2, group_end);
    const MatrixView<const Real> feedback(factor_.feedback.data(), n, n), error(error_.data(), n, row_tile);
    std::copy(column(original_, i1), column(original_, reach), column(compensated_, i1));
    if (i1 > 0)
      calibrate::add_transposed_product<Real>(feedback.row_range(0, i1).col_range(i1, reach), error.row_range(0, i1),
                                              {column(compensated_, i1), reach - i1, row_tile});
    if (group_end > i1) unround(i1, reach);
  }
  /// Makes unrounded() for columns from .. to - 1, whose compensated() values are up to date with all columns before `from`.
  void unround(Index from, Index to) {
    // Until they are rounded, these columns follow each other too: their errors d_k = w_k - u_k solve
    // d_k + sum_{j<k} d_j F_jk = 0, where the sum over j < from stands in compensated_.
    unrounded_.resize(original_.size());
    for (Index k = from; k < to; ++k) subtract(column(original_, k), column(compensated_, k), column(unrounded_, k));
    for (Index k = from; k < to; ++k)
      for (Index j = k + 1; j < to; ++j) add_share(-factor_.row(k)[j], column(unrounded_, k), column(unrounded_, j));
    for (Index k = from; k < to; ++k) subtract(column(original_, k), column(unrounded_, k), column(unrounded_, k));
  }
  /// Lets columns k + 1 .. i2 - 1 of the block make up for the error of column k.
  void spread(Index k, Index i2) {
    for (Index j = k + 1; j < i2; ++j) add_share(factor_.row(k)[j], column(error_, k), column(compensated_, j));
  }

  const Real* compensated(Index k) const { return column(compensated_, k); }
  const Real* original(Index k) const { return column(original_, k); }
  Real* error(Index k) { return column(error_, k); }
  std::uint16_t* codes(Index k) { return codes_.data() + k * row_tile; }
  /// Column k as unround(from, to) left it: compensated for all columns before `from`, and for none from there on.
  const Real* unrounded(Index k) const { return column(unrounded_, k); }

 private:
  using Column = std::array<Real, static_cast<std::size_t>(row_tile)>;
  static std::size_t size(Index cols) { return static_cast<std::size_t>(row_tile * cols); }
  static Real* column(std::vector<Real>& all, Index k) { return all.data() + k * row_tile; }
  static const Real* column(const std::vector<Real>& all, Index k) { return all.data() + k * row_tile; }
  // Results go through a local array, which cannot overlap the operands.
  static void subtract(const Real* a, const Real* b, Real* to) {
    Column c;
    for (std::size_t r = 0; r < c.size(); ++r) c[r] = a[r] - b[r];
    std::copy(c.begin(), c.end(), to);
  }
  static void add_share(Real share, const Real* from, Real* to) {
    Column c;
    for (std::size_t r = 0; r < c.size(); ++r) c[r] = to[r] + share * from[r];
    std::copy(c.begin(), c.end(), to);
  }

  const Factor& factor_;
  std::vector<Real> original_, error_, compensated_, unrounded_;
  std::vector<std::uint16_t> codes_;
};

/// Quantizes rows begin .. end - 1 (at most row_tile). `w` is in processed column order, as are the rows and columns of the
/// factor; `position[k]` is where the code of processed column k belongs. Static grids are read from q.affines (group =
/// position / group width); dynamic ones are written there, and then position is the identity.
template <AnyScheme S>
void sweep(ConstMatrix w, Index begin, Index end, const Factor& factor, std::span<const Index> position,
           const SweepOptions& options, QuantizedMatrix<S>& q, calibrate::StoreLoss& loss) {
  using F = typename S::format;
  const Index n = w.cols, rows = end - begin, group = S::granularity::group_cols(n);
  const auto group_of = [&](Index k) { return position[static_cast<std::size_t>(k)] / group; };
  Tile<> tile(w.row_range(begin, end), factor);
  std::vector<Affine> affine(static_cast<std::size_t>(rows));
  std::vector<float> values;

  // The grid of the group that starts at column c, on the weights as they stood when the block was entered. The published
  // loop does so too: compensation inside a block has not reached its big matrix then.
  const auto find_grids = [&](Index c) {
    const Index stop = std::min(c + group, n);
    values.resize(static_cast<std::size_t>(stop - c));
    for (Index r = 0; r < rows; ++r) {
      for (Index k = c; k < stop; ++k) values[static_cast<std::size_t>(k - c)] = tile.unrounded(k)[r];
      if (options.limits.rows > 0)
        for (float& v : values) v = calibrate::clipped(v, options.limits(begin + r, c / group));
      const Affine a = options.fit.fit<S>(values);
      if (options.fit.search == Search::none) loss.count<typename S::scale_store>(options.fit.plain<F>(values).scale, a.scale);
      q.affine(begin + r, c / group) = affine[static_cast<std::size_t>(r)] = a;
    }
  };

  for (Index i1 = 0; i1 < n; i1 += options.block) {
    const Index i2 = std::min(i1 + options.block, n);
    const bool starts_group = options.dynamic_groups && round_up(i1, group) < i2;
    tile.enter_block(i1, i2, starts_group ? std::min(round_up(i2, group), n) : i1);  // the last group may end behind the block
    for (Index k = i1; k < i2; ++k) {
      if (options.dynamic_groups) {
        if (k % group == 0) find_grids(k);
      } else if (k == 0 || group_of(k) != group_of(k - 1)) {
        for (Index r = 0; r < rows; ++r) affine[static_cast<std::size_t>(r)] = q.affine(begin + r, group_of(k));
      }
      const float *now = tile.compensated(k), *exact = tile.original(k);
      float* error = tile.error(k);
      std::uint16_t* codes = tile.codes(k);
      for (Index r = 0; r < rows; ++r) {
        const Affine a = affine[static_cast<std::size_t>(r)];
        codes[r] = quantize_value<F>(now[r], a);
        error[r] = exact[r] - dequantize_value<F>(codes[r], a);
      }
      tile.spread(k, i2);
    }
  }
  for (Index k = 0; k < n; ++k)
    for (Index r = 0; r < rows; ++r)
      q.row(begin + r)[static_cast<std::size_t>(position[static_cast<std::size_t>(k)])] =
          static_cast<typename S::code>(tile.codes(k)[r]);
}

}  // namespace anybit::gptq::inline ANYBIT_CODE
