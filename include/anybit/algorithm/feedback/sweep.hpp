#pragma once
// GPTQ's loop over the columns, one band of rows at a time. Rows share only the factor. Readable twin: reference/ldlq.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <anybit/algorithm/feedback/band.hpp>
#include <anybit/core/distance.hpp>
#include <anybit/grid/group_grids.hpp>

namespace anybit::gptq {
inline namespace ANYBIT_CODE {

/// The loop that GPTQ, SparseGPT and their joint form share, for columns i1 .. i2 - 1, a block that the band has entered:
///   q_k <- choose(w_k + sum_{j<k} d_j F_jk),   d_k = w_k - q_k.
/// `choose(tile, k, end, kept)` chooses columns k .. end - 1, `width` of them at once (fewer at the end of a step), from
/// band.compensated(): what column j becomes goes to kept + (j - k) * row_tile, 0 in rows past the last. Rounding and pruning
/// choose one column at once; a code of several columns (a trellis of 16) follows its own errors inside, and later columns follow
/// those of all. Columns of a step, a multiple of `width`, follow each other one by one, those of later steps by a product.
template <Index width = 1, class Real, class Choose>
void sweep_block(Band<Real>& band, Index i1, Index i2, Index step, Choose&& choose) {
  Real kept[static_cast<std::size_t>(width * row_tile)];
  for (Index s1 = i1; s1 < i2; s1 += step) {
    const Index s2 = std::min(s1 + step, i2);
    if (s1 > i1) band.catch_up(i1, s1, s2);
    for (Index t = 0; t < band.tiles(); ++t)
      for (Index k = s1; k < s2; k += width) {
        const Index end = std::min(k + width, s2);
        choose(t, k, end, kept);
        for (Index j = k; j < end; ++j) band.take_error(t, j, kept + (j - k) * row_tile);
        for (Index j = k; j < end; ++j) band.spread(t, j, end, s2);
      }
  }
}

struct SweepOptions {
  Index block = 128;           ///< columns between two updates of everything to their right
  bool dynamic_groups = true;  ///< grids are found when the sweep reaches the group, on weights that have been compensated so far
  bool fresh_grids = false;    ///< those see the compensation for all columns before the group: blocks end where groups do
  GridFit fit{};
  ConstMatrix limits{};  ///< by original group, for dynamic groups; see QuantizeOptions::clip_limits
  std::span<const float>
      importance{};  ///< of squared errors of each processed column when dynamic grids are searched; may be empty
};

/// The codes of a tile of rows, transposed like Band.
class TileCodes {
 public:
  TileCodes(Index cols, bool wide) : code_bytes_(wide ? 2 : 1), codes_(static_cast<std::size_t>(row_tile * cols * code_bytes_)) {}
  std::byte* column(Index k) { return codes_.data() + k * row_tile * code_bytes_; }
  /// Row r goes to row begin + r of q, the code of column k to column position[k].
  void write(Index begin, Index rows, std::span<const Index> position, const AnyQuantized& q) const {
    if (code_bytes_ == 2)
      write_as<std::uint16_t>(begin, rows, position, q);
    else
      write_as<std::uint8_t>(begin, rows, position, q);
  }
  /// The reverse.
  void read(Index begin, Index rows, std::span<const Index> position, const AnyQuantized& q) {
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
  void write_as(Index begin, Index rows, std::span<const Index> position, const AnyQuantized& q) const {
    for (Index r = 0; r < rows; ++r) {
      auto* const to = reinterpret_cast<Stored*>(q.code(begin + r, 0));
      const auto* const from = reinterpret_cast<const Stored*>(codes_.data()) + r;
      for (std::size_t k = 0; k < position.size(); ++k) to[position[k]] = from[static_cast<Index>(k) * row_tile];
    }
  }
  Index code_bytes_;
  std::vector<std::byte> codes_;
};

/// The counts of a sweep.
struct SweepTotals {
  grid::GridLoss loss{};
  /// sum_k R_kk^2 e_k^2 over the rows, e_k what column k, compensated for all columns before it, lost by rounding: equal to
  /// tr(D (H + damping) D^T) where there is no drift.
  double damage = 0;
  SweepTotals& operator+=(const SweepTotals& other) {
    loss += other.loss;
    damage += other.damage;
    return *this;
  }
};

/// Quantizes rows begin .. end - 1, a band. `w` is in processed column order, as are the rows and columns of the
/// factor; `position[k]` is where the code of processed column k belongs, and its group is position / group width. Static grids
/// are read from q.affines; dynamic ones are written there, and then every group is one run of processed columns.
template <class Real = float>
SweepTotals sweep(MatrixView<const Real> w, Index begin, Index end, const Factor& factor, std::span<const Index> position,
                  const SweepOptions& options, const AnyQuantized& q) {
  const Index n = w.cols;
  const auto group_of = [&](Index k) { return position[static_cast<std::size_t>(k)] / q.group_cols; };
  Band<Real> band(w.row_range(begin, end), factor);
  const auto tiles = static_cast<std::size_t>(band.tiles());
  std::vector<TileCodes> codes(tiles, TileCodes(n, q.format().wide));
  std::vector<AffineLanes> affines(tiles);
  SweepTotals totals;
  std::vector<float> values;
  std::vector<Index> run_end(static_cast<std::size_t>(n), n);  // of the run of columns of one group around each column
  for (Index k = n - 2; k >= 0; --k)
    run_end[static_cast<std::size_t>(k)] = group_of(k) == group_of(k + 1) ? run_end[static_cast<std::size_t>(k + 1)] : k + 1;
  const auto end_of_run = [&](Index k) { return run_end[static_cast<std::size_t>(k)]; };
  const auto starts_run = [&](Index k) { return k == 0 || group_of(k) != group_of(k - 1); };

  // The grid of the group that starts at column c, on the weights as they stood when the block was entered. The published
  // loop does so too: compensation inside a block has not reached its big matrix then.
  const auto find_grids = [&](Index t, Index c) {
    const Index stop = end_of_run(c), g = group_of(c), first = begin + t * row_tile;
    const auto importance = options.importance.empty()
                                ? options.importance
                                : options.importance.subspan(static_cast<std::size_t>(c), static_cast<std::size_t>(stop - c));
    values.resize(static_cast<std::size_t>(stop - c));
    for (Index r = 0; r < band.rows_of(t); ++r) {
      for (Index k = c; k < stop; ++k) values[static_cast<std::size_t>(k - c)] = band.unrounded(t, k)[r];
      if (options.limits.rows > 0)
        for (float& v : values) v = grid::clipped(v, options.limits(first + r, g));
      const Affine wanted = options.fit.plain(q.format(), values);
      const Affine a =
          options.fit.search == Search::none ? q.scheme.stored(wanted) : options.fit.fit(q.scheme, values, importance);
      totals.loss.count(q.scheme, values, wanted, a);
      q.affine(first + r, g) = a;
    }
  };
  const auto round_column = [&](Index t, Index k, Index, Real* rounded) {
    const auto i = static_cast<std::size_t>(t);
    if (starts_run(k)) {
      if (options.dynamic_groups) find_grids(t, k);
      for (Index r = 0; r < band.rows_of(t); ++r) affines[i].set(r, q.affine(begin + t * row_tile + r, group_of(k)));
    }
    q.format().encode_lanes(band.compensated(t, k), affines[i], codes[i].column(k));
    q.format().decode_lanes(codes[i].column(k), affines[i], rounded);
    const double pivot = factor.pivots[static_cast<std::size_t>(k)];
    totals.damage += pivot * pivot * lane_sum(band.rows_of(t), [wanted = band.compensated(t, k), got = rounded](Index r) {
                       const double d = static_cast<double>(wanted[r]) - static_cast<double>(got[r]);
                       return d * d;
                     });
  };

  for (Index i1 = 0, i2 = 0; i1 < n; i1 = i2) {
    i2 = std::min(i1 + options.block, n);
    Index grids_end = i1;
    if (options.dynamic_groups) {
      if (options.fresh_grids) i2 = std::min(i2, end_of_run(i1));
      for (Index k = i1; k < i2; ++k)
        if (starts_run(k)) grids_end = end_of_run(k);  // the last group may end behind the block
    }
    band.enter_block(i1, i2, grids_end);
    sweep_block(band, i1, i2, Band<Real>::step, round_column);
  }
  for (std::size_t t = 0; t < tiles; ++t)
    codes[t].write(begin + static_cast<Index>(t) * row_tile, band.rows_of(static_cast<Index>(t)), position, q);
  return totals;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::gptq

#include <anybit/core/macros_end.hpp>
