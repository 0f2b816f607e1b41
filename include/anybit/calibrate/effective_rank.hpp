#pragma once
// The effective rank of a layer's inputs: how many independent directions a calibration text has.

#include <vector>

#include <anybit/core/view.hpp>

namespace anybit::calibrate {
inline namespace ANYBIT_CODE {

/// n^2 / ||C||_F^2 of the n inputs that were not always 0, where C is the Hessian scaled to a diagonal of ones: the number of
/// equally strong directions that would give the same. Units of the inputs do not matter. T tokens of independent inputs give
/// n / (1 + (n - 1) / T), so never more than about T.
inline double effective_rank(MatrixView<const double> hessian) {
  const Index n = hessian.rows;
  std::vector<double> inverse(static_cast<std::size_t>(n), 0);
  double alive = 0, sum = 0;
  for (Index j = 0; j < n; ++j)
    if (hessian(j, j) > 0) inverse[static_cast<std::size_t>(j)] = 1 / hessian(j, j), ++alive;
  for (Index i = 0; i < n; ++i) {
    double row = 0;
    for (Index j = 0; j < n; ++j) row += hessian(i, j) * hessian(i, j) * inverse[static_cast<std::size_t>(j)];
    sum += row * inverse[static_cast<std::size_t>(i)];
  }
  return sum > 0 ? alive * alive / sum : 0;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::calibrate
