#pragma once
// GPTQ (Frantar et al. 2023, arXiv:2210.17323, algorithm 1; details of its code, which the paper leaves open).
//
//   H = 2/n sum x x^T,   H + damp mean(diag H) I,   H^-1 = U^T U  (U upper triangular)
//   for each column i:   q = round(w_i),   e = (w_i - q) / U_ii,   w_j -= e U_ij  for all j >= i
//
// Then sum e^2 over a row is the error d (H + damping) d^T of that row, d = w - q.
//
// Order of preparation: the grid of a whole row is found first; then dead inputs (H_ii = 0) get H_ii = 1 and w_i = 0; static
// groups find their grids on the original columns; act-order sorts the columns by falling H_ii (stable); damping comes last.
// A group that is not static finds its grid when the loop reaches it, on the weights as they were when its block of `block`
// columns began: updates inside a block are not seen by grids found in it.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <numeric>

#include <anybit/core/stable_sort.hpp>
#include <anybit/reference/cholesky.hpp>
#include <anybit/reference/scale_search.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// The loop alone, for any grid: round(r, i, w) gives the value for row r at column i; w is what the weights have become.
template <class Round>
Matrix feedback_loop(Matrix w, const Matrix& u, Round round) {
  Matrix q(w.rows, w.cols);
  for (Index i = 0; i < w.cols; ++i)
    for (Index r = 0; r < w.rows; ++r) {
      q(r, i) = round(r, i, w);
      const double e = (w(r, i) - q(r, i)) / u(i, i);
      for (Index j = i; j < w.cols; ++j) w(r, j) -= e * u(i, j);
    }
  return q;
}

struct GptqOptions {
  int bits = 4;
  Index group = 0;  ///< columns; 0: the whole row
  bool symmetric = false, act_order = false, static_groups = false, mse = false;
  double damp = 0.01;
  Index block = 128;
};

struct GptqResult {
  Order order;               ///< original column at each processed place
  Table<double> codes;       ///< rows x cols, in original order, as `weights`
  Table<UniformGrid> grids;  ///< rows x groups
  Row<Index> group_of;       ///< original column -> group
  Matrix weights;
};

inline GptqResult gptq(Matrix w, Matrix h, const GptqOptions& o) {
  const Index n = w.cols, width = o.group > 0 ? o.group : n, groups = (n + width - 1) / width;
  const auto find = [&](const Matrix& from, Index r, Index g) {
    const Vector values = from.row(r, g * width, std::min((g + 1) * width, n));
    return o.mse ? shrink_search(values, o.bits, o.symmetric) : min_max_grid(values, o.bits, o.symmetric);
  };
  GptqResult out{Order(n), Matrix(w.rows, n), Table<UniformGrid>(w.rows, groups), Row<Index>(n), {}};
  const auto find_all = [&] {
    for (Index r = 0; r < w.rows; ++r)
      for (Index g = 0; g < groups; ++g) out.grids(r, g) = find(w, r, g);
  };
  if (o.group == 0) find_all();
  for (Index i = 0; i < n; ++i)
    if (h(i, i) == 0) {
      h(i, i) = 1;
      for (Index r = 0; r < w.rows; ++r) w(r, i) = 0;
    }
  if (o.static_groups && o.group > 0) find_all();

  std::iota(out.order.begin(), out.order.end(), Index{0});
  if (o.act_order) anybit::stable_sort(out.order.begin(), out.order.end(), [&](Index a, Index b) { return h(a, a) > h(b, b); });
  for (Index i = 0; i < n; ++i) out.group_of[out.order[i]] = (o.static_groups ? out.order[i] : i) / width;

  Matrix block_start;
  const Matrix u = inverse_factor(damped(reordered(h, out.order), o.damp));
  const Matrix q = feedback_loop(with_columns(w, out.order), u, [&](Index r, Index i, const Matrix& now) {
    if (r == 0 && i % o.block == 0) block_start = now;
    UniformGrid& grid = out.grids(r, out.group_of[out.order[i]]);
    if (o.group > 0 && !o.static_groups && i % width == 0) grid = find(block_start, r, i / width);
    return value_of(out.codes(r, out.order[i]) = code_of(now(r, i), grid), grid);
  });
  out.weights = Matrix(w.rows, n);
  for (Index r = 0; r < w.rows; ++r)
    for (Index i = 0; i < n; ++i) out.weights(r, out.order[i]) = q(r, i);
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
