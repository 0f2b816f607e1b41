#pragma once
// The two products that calibrated methods need, over views. Each is one instance of Eigen's kernel, whoever calls it: every
// other shape of expression would cost a program another second of compilation.

#include <anybit/core/eigen_view.hpp>

namespace anybit::calibrate::inline ANYBIT_CODE {

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
