#pragma once
// Cholesky's factorization from the last column to the first, in place: what Eigen's gives after two reversals of a copy, and
// without what its decompositions cost a compiler.

#include <algorithm>
#include <cmath>
#include <vector>

#include <anybit/calibrate/product.hpp>

namespace anybit::calibrate::inline ANYBIT_CODE {

namespace detail {

/// to[i] -= share * from[i] for i < n.
template <class Real>
void subtract_share(Real share, const Real* from, Index n, Real* to) {
  using Row = Eigen::Array<Real, Eigen::Dynamic, 1>;
  Eigen::Map<Row>(to, n) -= share * Eigen::Map<const Row>(from, n);
}

}  // namespace detail

/// Overwrites the upper triangle of a with R, upper triangular and of positive diagonal, where A = R R^T. Nothing left of the
/// diagonal is read; some of it is overwritten. False, with `a` spoiled, if A is not positive definite in Real.
template <class Real>
bool factor_upper(MatrixView<Real> a) {
  constexpr Index block = 128;
  const Index n = a.rows;
  ANYBIT_CHECK(a.cols == n, "factor_upper: the matrix is not square");
  const auto at = [](Index i) { return static_cast<std::size_t>(i); };
  std::vector<Real> minus(at(n * block)), square(at(block * block)), inverse(at(block));
  for (Index end = n, begin = 0; end > 0; end = begin) {
    begin = (end - 1) / block * block;
    const Index width = end - begin;
    if (end < n) {
      const MatrixView<Real> later(minus.data(), n - end, width);
      for (Index c = 0; c < width; ++c)
        for (Index k = end; k < n; ++k) later(k - end, c) = -a(begin + c, k);
      add_product<Real>(MatrixView<const Real>(a).row_range(0, end).col_range(end, n), later,
                        a.row_range(0, end).col_range(begin, end));
    }
    // The block on the diagonal: row k of `square` is column k of R.
    const MatrixView<Real> columns(square.data(), width, width);
    for (Index c = 0; c < width; ++c)
      for (Index j = 0; j <= c; ++j) columns(c, j) = a(begin + j, begin + c);
    for (Index k = width - 1; k >= 0; --k) {
      const Real pivot = std::sqrt(columns(k, k));
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      columns(k, k) = pivot;
      inverse[at(k)] = 1 / pivot;
      for (Index j = 0; j < k; ++j) columns(k, j) *= inverse[at(k)];
      for (Index c = 0; c < k; ++c) detail::subtract_share(columns(k, c), &columns(k, 0), c + 1, &columns(c, 0));
    }
    for (Index c = 0; c < width; ++c)
      for (Index j = 0; j <= c; ++j) a(begin + j, begin + c) = columns(c, j);
    // What stands above it, row by row.
    for (Index j = 0; j < begin; ++j) {
      Real* const row = &a(j, begin);
      for (Index k = width - 1; k >= 0; --k) {
        row[k] *= inverse[at(k)];
        detail::subtract_share(row[k], &columns(k, 0), k, row);
      }
    }
  }
  return true;
}

}  // namespace anybit::calibrate::inline ANYBIT_CODE
