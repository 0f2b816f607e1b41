#pragma once
// Cholesky factorization from the last column to the first, in place: the result of reversing a copy, factoring and reversing.

#include <algorithm>
#include <cmath>

#include <anybit/core/finite.hpp>
#include <anybit/dense/product_kernel.hpp>

namespace anybit::dense {
inline namespace ANYBIT_CODE {

/// Overwrites the lower triangle of a with L, lower triangular and of positive diagonal, where A = L^T L. Nothing right of the
/// diagonal is read; some of it is overwritten. False, with `a` spoiled, if A is not positive definite in Real.
template <class Real>
bool cholesky_from_last(MatrixView<Real> a) {
  constexpr Index block = 128, step = 16;
  const Index n = a.rows;
  ANYBIT_CHECK(a.cols == n, "cholesky_from_last: the matrix is not square");
  /// Rows from .. to - 1, up to their diagonal, lose what rows to .. last - 1 explain of them.
  const auto subtract = [&](Index from, Index to, Index last) {
    const MatrixView<const Real> rows = MatrixView<const Real>(a).row_range(to, last);
    simd::add_transposed_product<Real>(rows.col_range(from, to), rows, a.row_range(from, to).col_range(0, to), -1);
  };
  for (Index end = n, begin = 0; end > 0; end = begin) {
    begin = (end - 1) / block * block;
    subtract(begin, end, n);
    for (Index stop = end, first = 0; stop > begin; stop = first) {
      first = (stop - 1) / step * step;
      subtract(first, stop, end);
      for (Index k = stop - 1; k >= first; --k) {
        Real* const row = a.row(k).data();
        const Real pivot = std::sqrt(row[k]);
        if (!(pivot > 0) || !is_finite(pivot)) return false;
        const Real inverse = 1 / pivot;
        row[k] = pivot;
        for (Index j = 0; j < k; ++j) row[j] *= inverse;
        for (Index c = first; c < k; ++c) simd::add_multiple(-row[c], row, c + 1, a.row(c).data());
      }
    }
  }
  return true;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::dense
