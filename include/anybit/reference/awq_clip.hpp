#pragma once
// AWQ's clipping (Lin et al. 2023, arXiv:2306.00978; auto_clip in its code): each group of weights is cut off where that lowers
// the error of its part of the output.
//
//   for each row and group g:  m = max|w_g| (1 - i/20), i = 0 .. 9;  the first m with the least
//   sum over tokens (x_g . w_g - x_g . Q(clamp(w_g, -m, m)))^2
//
// Q rounds to the grid of awq.hpp. q and k are not clipped: the product of query and key is too sensitive. Clipping comes after
// scaling: W is W diag(s) and X is X / s by then.

#include <anybit/core/macros_begin.hpp>

#include <limits>

#include <anybit/reference/awq.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// The limit m of each row and group.
inline Matrix awq_clip(const Matrix& w, const Matrix& x, int bits, Index group) {
  Matrix limits(w.rows, (w.cols + group - 1) / group);
  for (Index r = 0; r < w.rows; ++r)
    for (Index g = 0; g < limits.cols; ++g) {
      const Vector v = w.row(r, g * group, std::min((g + 1) * group, w.cols));
      double largest = 0, least = std::numeric_limits<double>::infinity();
      for (const double value : v) largest = std::max(largest, std::abs(value));
      for (int i = 0; i < 10; ++i) {
        const double m = double{static_cast<float>(largest) * static_cast<float>(1 - i / 20.0)};
        Vector clamped = v;
        for (double& value : clamped) value = std::clamp(value, -m, m);
        const UniformGrid grid = awq_grid(clamped, bits);
        double error = 0;
        for (Index t = 0; t < x.rows; ++t) {
          double off = 0;
          for (Index c = 0; c < v.size(); ++c) off += x(t, g * group + c) * (v[c] - awq_round(clamped[c], grid));
          error += off * off;
        }
        if (error < least) least = error, limits(r, g) = m;
      }
    }
  return limits;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
