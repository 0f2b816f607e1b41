#pragma once
// Weights on Superfloat's grid under scales, and the gradients that pass through the rounding:
//
//   W' = s Q(U),  U = W / s;   dL/dW = dL/dW' M,   dL/ds = sum dL/dW' (Q(U) - M U),   M = [|U| <= largest]
//
// with one s per row or group of columns of a row, per column, or none. dL/ds is that of LSQ (Esser et al., arXiv:1902.08153);
// where s is the largest magnitude of a channel it belongs to the weight that has it.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include <anybit/core/view.hpp>
#include <anybit/train/wasq/superfloat_grid.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

enum class ScaleAxis : std::uint8_t { none, rows, columns };

/// Scales on one axis of a matrix: one per column; one per row, or per row and group of `group` columns; none.
template <class Real>
struct Scales {
  ScaleAxis axis = ScaleAxis::none;
  std::span<const Real> values{};
  Index group = 0;   ///< columns; 0: the whole row
  Index groups = 1;  ///< per row

  std::size_t index(Index row, Index col) const {
    if (axis == ScaleAxis::columns) return static_cast<std::size_t>(col);
    return static_cast<std::size_t>(group == 0 ? row : row * groups + col / group);
  }
  Real at(Index row, Index col) const { return axis == ScaleAxis::none ? Real{1} : values[index(row, col)]; }
};

/// W' of the rows [begin, end).
template <class Real>
void round_weights(const SuperfloatGrid& grid, MatrixView<const Real> w, const Scales<Real>& scales, MatrixView<Real> to,
                   Index begin, Index end) {
  for (Index r = begin; r < end; ++r)
    for (Index c = 0; c < w.cols; ++c) {
      const Real s = scales.at(r, c);
      to(r, c) = s * grid.round(w(r, c) / s);
    }
}

/// `d`, dL/dW' of the whole matrix, becomes dL/dW; dL/ds is added to `dscales`, which may be empty. `outside`: M = 0 and 1 the
/// wrong way round, the published gradient mask of 2025.
template <class Real>
void straight_through(const SuperfloatGrid& grid, MatrixView<const Real> w, const Scales<Real>& scales, MatrixView<Real> d,
                      std::span<Real> dscales, bool outside = false) {
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c) {
      const Real s = scales.at(r, c), u = w(r, c) / s;
      const bool passes = grid.passes(u) != outside;
      if (!dscales.empty()) dscales[scales.index(r, c)] += d(r, c) * (grid.round(u) - (grid.passes(u) ? u : Real{0}));
      if (!passes) d(r, c) = 0;
    }
}

/// max(floor, max |W_ij|) per column over matrices that read the same input; added to what `to` holds.
inline void column_maxima(ConstMatrix w, std::span<float> to) {
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c)
      to[static_cast<std::size_t>(c)] = std::max(to[static_cast<std::size_t>(c)], std::abs(w(r, c)));
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
