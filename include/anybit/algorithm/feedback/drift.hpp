#pragma once
// Inputs that are not the float model's: the factor by which GPTAQ's later columns make up for them (algorithm/gptaq.hpp), and
// the weights that Qronos aims at instead (algorithm/qronos.hpp).

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include <anybit/algorithm/feedback/factor.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit::gptq {
inline namespace ANYBIT_CODE {

inline constexpr Index drift_tile = 64;

namespace detail {

inline constexpr Index substitution_block = 64;

inline void subtract(float share, const float* from, float* to) {
  for (Index r = 0; r < drift_tile; ++r) to[r] -= share * from[r];
}

/// Columns `first` and later of Y from Y F^T = B, in place of B. `f` is F^T; `y` is transposed: n rows of drift_tile.
template <class Real>
void solve_from_last(ConstMatrix f, Index first, MutableMatrix y) {
  const Index n = f.rows;
  for (Index stop = n, k1 = 0; stop > first; stop = k1) {
    k1 = std::max(stop - substitution_block, first);
    if (stop < n)
      dense::add_transposed_product<Real>(f.row_range(stop, n).col_range(k1, stop), ConstMatrix(y).row_range(stop, n),
                                          y.row_range(k1, stop), -1);
    for (Index k = stop - 1; k >= k1; --k)
      for (Index j = k + 1; j < stop; ++j) subtract(f(j, k), y.row(j).data(), y.row(k).data());
  }
}

/// The same of Y F = B, whose columns before `first` are 0.
template <class Real>
void solve_from_first(ConstMatrix f, Index first, MutableMatrix y) {
  const Index n = f.rows;
  for (Index k1 = first; k1 < n; k1 += substitution_block) {
    const Index stop = std::min(k1 + substitution_block, n);
    if (k1 > first)
      dense::add_product<Real>(f.row_range(k1, stop).col_range(first, k1), ConstMatrix(y).row_range(first, k1),
                               y.row_range(k1, stop), -1);
    for (Index k = k1; k < stop; ++k)
      for (Index j = k + 1; j < stop; ++j) subtract(f(j, k), y.row(k).data(), y.row(j).data());
  }
}

}  // namespace detail

/// Fills factor.drift with the paper's P = alpha triu(D U^T, 1) U, U = R^-1 = chol(H^-1), D = 2/n sum (x0 - x) x^T, its rows and
/// columns in processed `order`. With F = R diag(R)^-1 that is Y F^T = D, then P F = alpha triu(Y diag(R)^-2, 1): two
/// substitutions, no inverse. False if P does not fit a float; it is left empty then.
/// A template so that only programs that quantize compile its products.
template <class Real = float>
bool find_drift(MatrixView<const double> d, std::span<const Index> order, double alpha, Factor& factor, ExecutorRef executor) {
  const Index n = factor.size;
  const auto at = [](Index i) { return static_cast<std::size_t>(i); };
  std::vector<float> p(at(n * n));
  const ConstMatrix f = factor.transposed();
  constexpr Index tile = drift_tile;
  parallel_tiles(executor, n, tile, [&](Index begin, Index end) {
    std::vector<float> storage(at(n * tile));  // transposed: a row for each column of Y or P
    const MutableMatrix y(storage.data(), n, tile);
    for (Index first = begin; first < end; first += tile) {
      const Index rows = std::min(tile, end - first);
      std::fill(storage.begin(), storage.end(), 0.0f);
      for (Index r = 0; r < rows; ++r)
        for (Index k = 0; k < n; ++k) y(k, r) = static_cast<float>(d(order[at(first + r)], order[at(k)]) / factor.unit);
      // Only Y_ik with k > i are wanted, and they follow from those further right alone.
      detail::solve_from_last<Real>(f, first, y);
      for (Index k = 0; k < n; ++k) {
        const auto share = static_cast<float>(alpha / static_cast<double>(factor.weight[at(k)]));
        for (Index r = 0; r < tile; ++r) y(k, r) = first + r < k ? share * y(k, r) : 0.0f;
      }
      detail::solve_from_first<Real>(f, first, y);
      for (Index k = first + 1; k < n; ++k) std::copy_n(y.row(k).data(), std::min(rows, k - first), p.data() + k * n + first);
    }
  });
  for (const float& v : p)
    if (!is_finite(v)) return false;
  factor.drift = std::move(p);
  return true;
}

/// Qronos: adds B (H + damping)^-1 to the weights, where `pull` is B = share W D in original columns. With H + damping =
/// F diag(R)^2 F^T these are two substitutions. False if the result does not fit a float; the weights are unchanged then.
/// A template so that only programs that quantize compile its products.
template <class Real = float>
bool aim_at_outputs(ConstMatrix pull, Prepared& prepared, ExecutorRef executor) {
  const Factor& factor = prepared.factor;
  const Index n = factor.size, rows = pull.rows;
  const auto at = [](Index i) { return static_cast<std::size_t>(i); };
  const ConstMatrix f = factor.transposed();
  constexpr Index tile = drift_tile;
  Matrix aimed = prepared.weights;
  parallel_tiles(executor, rows, tile, [&](Index begin, Index end) {
    std::vector<float> storage(at(n * tile));  // transposed: a row for each column
    const MutableMatrix y(storage.data(), n, tile);
    for (Index first = begin; first < end; first += tile) {
      const Index count = std::min(tile, std::min(end, rows) - first);
      std::fill(storage.begin(), storage.end(), 0.0f);
      for (Index r = 0; r < count; ++r)
        for (Index k = 0; k < n; ++k) y(k, r) = static_cast<float>(double{pull(first + r, prepared.order[at(k)])} / factor.unit);
      detail::solve_from_last<Real>(f, 0, y);
      for (Index k = 0; k < n; ++k)
        for (float& v : y.row(k)) v /= factor.weight[at(k)];
      detail::solve_from_first<Real>(f, 0, y);
      for (Index r = 0; r < count; ++r)
        for (Index k = 0; k < n; ++k) aimed(first + r, k) += y(k, r);
    }
  });
  for (Index r = 0; r < rows; ++r)
    for (const float v : aimed.view().row(r))
      if (!is_finite(v)) return false;
  prepared.weights = std::move(aimed);
  return true;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::gptq

#include <anybit/core/macros_end.hpp>
