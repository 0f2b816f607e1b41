#pragma once
// LDLQ's sweep for trellis codes: tiles of 16 x 16 weights, each rounded as one sequence. Functions of a scheme are pointers, so
// that the sweep is compiled once.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <anybit/algorithm/feedback/band.hpp>
#include <anybit/algorithm/feedback/sweep.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/scheme/trellis.hpp>
#include <anybit/scheme/trellis_exl3.hpp>
#include <anybit/simd/trellis_search.hpp>

namespace anybit::ldlq {
inline namespace ANYBIT_CODE {

inline constexpr Index tile = 16, tile_size = tile * tile;

/// Of a trellis scheme, or of what EXL3 has between its rotations.
struct TileFunctions {
  Index tile_bytes;
  Index (*tile_at)(Extents e, Index row, Index col);  ///< the place of the tile at (row, col), in tiles
  bool joint_scales, per_tensor;
  Index (*group_cols)(Index cols);
  Index (*index)(Extents e, Index row, Index group);
  Index (*count)(Extents e);
  void (*round_trip)(std::span<float> scales);
  /// The root of the mean square of all states' values.
  double (*deviation)();
  /// Made once, shared by all threads.
  std::shared_ptr<const void> (*make_values)();
  /// The buffers of one thread, on values that outlive them.
  std::shared_ptr<void> (*make_search)(const void* values);
  /// The loop for the tile `target` in units of values, row after row, with the roots of its weights' costs; its bytes, and the
  /// values that they stand for, row after row.
  void (*encode)(void* search, const float* target, const float* root, bool exact, std::byte* bytes, float* values);
};

namespace detail {

template <class S>
inline constexpr Index step_weights_of = step_weights_v<typename S::codebook>;
template <class S>
constexpr Index step_of(Index row, Index col) {
  if constexpr (is_exl3_v<S>)
    return S::step_of(col, row);
  else
    return S::step_of(row, col);
}
template <class S>
using Search = simd::TrellisSearch<S::code::step_bits, step_weights_of<S>>;
template <class S>
using Values = simd::TrellisValues<S::code::step_bits, step_weights_of<S>>;

template <class S>
double deviation() {
  static const double root = [] {
    double sum = 0;
    const auto& table = trellis_table<typename S::codebook, S::code::state_bits>();
    for (const float v : table) sum += double{v} * double{v};
    return std::sqrt(sum / static_cast<double>(table.size()));
  }();
  return root;
}

template <class S>
std::shared_ptr<const void> make_values() {
  return std::make_shared<const Values<S>>(S::code::state_bits, trellis_table<typename S::codebook, S::code::state_bits>());
}
template <class S>
std::shared_ptr<void> make_search(const void* values) {
  return std::make_shared<Search<S>>(*static_cast<const Values<S>*>(values), tile_size / step_weights_of<S>);
}

template <class S>
void encode(void* search, const float* target, const float* root, bool exact, std::byte* bytes, float* values) {
  constexpr Index V = step_weights_of<S>;
  const auto place = [](Index row, Index col) { return static_cast<std::size_t>(step_of<S>(row, col) * V + col % V); };
  std::array<float, static_cast<std::size_t>(tile_size)> targets, roots;
  for (Index r = 0; r < tile; ++r)
    for (Index c = 0; c < tile; ++c) targets[place(r, c)] = target[r * tile + c], roots[place(r, c)] = root[r * tile + c];
  std::array<std::uint16_t, static_cast<std::size_t>(tile_size / V)> loop;
  auto& s = *static_cast<Search<S>*>(search);
  s.aim(targets, roots);
  if (exact)
    s.exact(loop);
  else
    s.two_passes(loop);
  S::code::write(loop, bytes);
  const auto& table = trellis_table<typename S::codebook, S::code::state_bits>();
  for (Index r = 0; r < tile; ++r)
    for (Index c = 0; c < tile; ++c)
      values[r * tile + c] = table[static_cast<std::size_t>(loop[static_cast<std::size_t>(step_of<S>(r, c))] * V + c % V)];
}

}  // namespace detail

template <class S>
inline constexpr TileFunctions tile_functions_v{
    S::tile_bytes,
    [](Extents e, Index row, Index col) { return S::tile_at(e, row, col); },
    S::scale_store::joint,
    std::is_same_v<typename S::granularity, PerTensor>,
    [](Index cols) { return S::granularity::group_cols(cols); },
    [](Extents e, Index row, Index group) { return S::granularity::index(e, row, group); },
    [](Extents e) { return S::granularity::count(e); },
    [](std::span<float> scales) { S::scale_store::round_trip(scales); },
    detail::deviation<S>,
    detail::make_values<S>,
    detail::make_search<S>,
    detail::encode<S>};

/// Of the padded matrix between EXL3's rotations, which has one scale.
template <class S>
inline constexpr TileFunctions exl3_tile_functions_v{
    S::tile_bytes,
    [](Extents e, Index row, Index col) { return col / tile * (e.rows / tile) + row / tile; },
    false,
    true,
    [](Index cols) { return cols; },
    [](Extents, Index, Index) -> Index { return 0; },
    [](Extents) -> Index { return 1; },
    [](std::span<float>) {},
    detail::deviation<S>,
    detail::make_values<S>,
    detail::make_search<S>,
    detail::encode<S>};

/// A matrix on its way into tiles.
struct Coding {
  const TileFunctions& scheme;
  Extents extents;
  std::shared_ptr<const void> values;
  std::span<const float> scales;        ///< as stored, by granularity::index
  std::span<const float> column_roots;  ///< square root of the cost of a squared error, per column; empty: all alike
  bool exact = false;

  std::byte* tile_at(std::byte* trellis, Index row, Index col) const {
    return trellis + scheme.tile_at(extents, row, col) * scheme.tile_bytes;
  }
  float scale(Index row, Index col) const {
    return scales[static_cast<std::size_t>(scheme.index(extents, row, col / scheme.group_cols(extents.cols)))];
  }
};

/// The bytes of the tile at (row, col), both multiples of 16, for `target`(r, c); `kept`(r, c, value) gets the values in units of
/// scales. What lies beyond the matrix is free.
template <class Target, class Kept>
void encode_tile(const Coding& coding, void* search, Index row, Index col, Target&& target, std::byte* to, Kept&& kept) {
  alignas(64) float targets[tile_size], roots[tile_size], values[tile_size];
  const Index rows = std::min(tile, coding.extents.rows - row), cols = std::min(tile, coding.extents.cols - col);
  float most = 0;
  for (Index r = 0; r < tile; ++r) {
    const float scale = r < rows ? coding.scale(row + r, col) : 0.0f;
    for (Index c = 0; c < tile; ++c) {
      const bool counts = scale > 0 && c < cols;
      const float root = !counts                       ? 0.0f
                         : coding.column_roots.empty() ? scale
                                                       : scale * coding.column_roots[static_cast<std::size_t>(col + c)];
      targets[r * tile + c] = counts ? target(r, c) / scale : 0.0f;
      roots[r * tile + c] = root;
      most = std::max(most, root);
    }
  }
  if (most > 0)
    for (float& root : roots) root /= most;
  coding.scheme.encode(search, targets, roots, coding.exact, to, values);
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) kept(r, c, values[r * tile + c]);
}

/// Every tile by itself: rows begin .. end - 1, begin a multiple of 16. `values` are in units of scales.
template <class = void>
void code_nearest(const Coding& coding, ConstMatrix w, Index begin, Index end, std::byte* trellis, MutableMatrix values) {
  const auto search = coding.scheme.make_search(coding.values.get());
  for (Index row = begin; row < end; row += tile)
    for (Index col = 0; col < w.cols; col += tile)
      encode_tile(
          coding, search.get(), row, col, [&](Index r, Index c) { return w(row + r, col + c); },
          coding.tile_at(trellis, row, col), [&](Index r, Index c, float v) { values(row + r, col + c) = v; });
}

/// The same after feedback: each block of 16 columns meets what minimizes the error in the metric of the Hessian, given the
/// errors of the blocks before it. begin is a multiple of row_tile.
template <class Real = float>
void code_with_feedback(const Coding& coding, MatrixView<const Real> w, const gptq::Factor& factor, Index begin, Index end,
                        std::byte* trellis, MutableMatrix values) {
  const auto search = coding.scheme.make_search(coding.values.get());
  gptq::Band<Real> band(w.row_range(begin, end), factor);
  for (Index i1 = 0; i1 < w.cols; i1 += tile) {
    const Index i2 = std::min(i1 + tile, w.cols);
    band.enter_block(i1, i2, i2);
    gptq::sweep_block<tile>(band, i1, i2, tile, [&](Index t, Index k, Index, Real* kept) {
      std::fill_n(kept, tile * gptq::row_tile, Real{0});
      for (Index r0 = 0; r0 < band.rows_of(t); r0 += tile) {
        const Index row = begin + t * gptq::row_tile + r0;
        encode_tile(
            coding, search.get(), row, k, [&](Index r, Index c) { return band.unrounded(t, k + c)[r0 + r]; },
            coding.tile_at(trellis, row, k),
            [&](Index r, Index c, float v) {
              values(row + r, k + c) = v;
              kept[c * gptq::row_tile + r0 + r] = coding.scale(row + r, k + c) * v;
            });
      }
    });
  }
}

/// The cost of a squared error in each column if the rest of its block of 16 stays as it is: the diagonal of the blocks'
/// metrics, R_KK R_KK^T, over the largest of them.
inline std::vector<float> column_costs(const gptq::Factor& factor) {
  const Index n = factor.size;
  std::vector<double> costs(static_cast<std::size_t>(n));
  for (Index k = 0; k < n; ++k)
    for (Index j = k; j < std::min(k / tile * tile + tile, n); ++j) {
      const double share = (j == k ? 1.0 : double{factor.column(j)[k]}) * factor.pivots[static_cast<std::size_t>(j)];
      costs[static_cast<std::size_t>(k)] += share * share;
    }
  double most = 0;
  for (const double c : costs) most = std::max(most, c);
  std::vector<float> out;
  for (const double c : costs) out.push_back(static_cast<float>(most > 0 ? c / most : 1));
  return out;
}

/// The scales that minimize tr((W - Q) H (W - Q)^T) for the values chosen, group after group, each where its stored form is
/// an improvement. Rows begin .. end - 1. H in floats.
template <class Real = float>
void refine_scales(const TileFunctions& scheme, ConstMatrix w, ConstMatrix values, ConstMatrix h, Index begin, Index end,
                   std::span<float> scales) {
  const Index n = w.cols, rows = end - begin, width = scheme.group_cols(n);
  Matrix left(rows, n), pull(rows, n), moved(rows, n);
  const auto scale = [&](Index r, Index c) -> float& {
    return scales[static_cast<std::size_t>(scheme.index(w.extents(), begin + r, c / width))];
  };
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < n; ++c) left(r, c) = w(begin + r, c) - scale(r, c) * values(begin + r, c);
  dense::add_product<Real>(std::as_const(left).view(), h, pull.view());
  for (Index c1 = 0; c1 < n; c1 += width) {
    const Index c2 = std::min(c1 + width, n);
    std::fill_n(moved.data(), rows * n, 0.0f);
    dense::add_product<Real>(values.row_range(begin, end).col_range(c1, c2), h.row_range(c1, c2), moved.view());
    for (Index r = 0; r < rows; ++r) {
      double along = 0, curvature = 0;
      for (Index c = c1; c < c2; ++c) {
        const double v = double{values(begin + r, c)};
        along += v * double{pull(r, c)}, curvature += v * double{moved(r, c)};
      }
      if (!(curvature > 0)) continue;
      float& s = scale(r, c1);
      float wanted = static_cast<float>(double{s} + along / curvature);
      if (!(wanted > 0)) continue;
      scheme.round_trip({&wanted, 1});
      const double step = double{wanted} - double{s};
      if (!(step * (2 * along - step * curvature) > 0)) continue;
      s = wanted;
      for (Index c = 0; c < n; ++c) pull(r, c) -= static_cast<float>(step) * moved(r, c);
    }
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::ldlq

#include <anybit/core/macros_end.hpp>
