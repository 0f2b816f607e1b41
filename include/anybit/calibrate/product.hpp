#pragma once
// The two products that calibrated methods need, over views, and how they are cut. Each is one instance of Eigen's kernel,
// whoever calls it: every other shape of expression would cost a program another second of compilation.

#include <algorithm>

#include <anybit/core/eigen_view.hpp>
#include <anybit/core/types.hpp>

namespace anybit::calibrate::inline ANYBIT_CODE {

/// Rows of one task of such products: several tiles, so that the other factor is read once for them, and few enough that even a
/// small matrix has tasks to go round. It depends on the matrix alone, so results do not depend on the number of threads.
constexpr Index task_rows(Index rows) {
  constexpr Index tile = 64, most = 4 * tile, tasks = 8;
  return std::clamp(round_up(ceil_div(rows, tasks), tile), tile, most);
}

/// C += A B; a (m, k), b (k, n), c (m, n).
template <class Real>
void add_product(MatrixView<const Real> a, MatrixView<const Real> b, MatrixView<Real> c) {
  as_eigen(c).noalias() += as_eigen(a) * as_eigen(b);
}

/// C += A^T B; a (k, m), b (k, n), c (m, n).
template <class Real>
void add_transposed_product(MatrixView<const Real> a, MatrixView<const Real> b, MatrixView<Real> c) {
  as_eigen(c).noalias() += as_eigen(a).transpose() * as_eigen(b);
}

}  // namespace anybit::calibrate::inline ANYBIT_CODE
