#pragma once
// Qronos (Zhang et al. 2025, arXiv:2505.11695): GPTQ that aims at the float model's outputs. x are the inputs of the quantized
// model so far, x~ those of the float model; min ||W X~ - Q X||^2 over Q on the grid.
//
//   H = 2/n sum x x^T + damping,   G = 2/n sum x~ x^T + damping = H + D
//   V = W G H^-1 = W + W D H^-1      (the best Q without a grid)
//
// First column, the others as in W:   q_0 = round((w G_:0 - sum_{j>0} w_j H_j0) / H_00)
// then the best others next to it:    v_j = V_j - (V_0 - q_0) U_0j / U_00,   H^-1 = U^T U
// and from there GPTQ's loop.

#include <anybit/reference/gptq.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// V, with a `share` of the drift D made up for: 1 is Qronos, 0 leaves W.
inline Matrix qronos_target(const Matrix& w, const Matrix& h, const Matrix& d, double share) {
  const Matrix wd = times_transposed(w, transposed(d)), shift = times_transposed(wd, inverse(h));
  Matrix v = w;
  for (std::size_t i = 0; i < v.values.size(); ++i) v.values[i] += share * shift.values[i];
  return v;
}

/// As published. round(r, i, w) gives the value for row r at column i; w is what the weights have become.
template <class Round>
Matrix qronos(const Matrix& w, const Matrix& h, const Matrix& d, Round round) {
  const Matrix wd = times_transposed(w, transposed(d));
  Matrix first = w;
  for (Index r = 0; r < w.rows; ++r) first(r, 0) += wd(r, 0) / h(0, 0);
  return feedback_loop(qronos_target(w, h, d, 1), inverse_factor(h),
                       [&](Index r, Index i, const Matrix& now) { return round(r, i, i == 0 ? first : now); });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
