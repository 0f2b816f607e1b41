#pragma once
// The loops of reference/gptq.hpp and reference/gptaq.hpp over any format: what the library's form without an inverse is compared
// with.

#include <vector>

#include <anybit/reference/gptaq.hpp>
#include <anybit/reference/gptq.hpp>
#include <anybit/tensor/quantize.hpp>

#include "algorithm/random_layers.hpp"

namespace test_layers {

/// The loop over the columns in `order`; U and P belong to that order, P may be empty. `grid(r, i, row)` gives the affine for row
/// r at processed column i, where `row` is what the row has become by then, in processed order. The result is in original order.
template <Format F, class Grid>
Matrix reference_loop(const Matrix& w, const Square& u, const std::vector<Index>& order, const Square& p, Grid grid) {
  const reference::Order columns(order);
  const auto round = [&](Index r, Index i, const Square& now) {
    const Affine a = grid(r, static_cast<std::size_t>(i), now.row(r).values);
    return double{dequantize_value<F>(quantize_value<F>(static_cast<float>(now(r, i)), a), a)};
  };
  const Square start = reference::with_columns(reference::matrix_of(w), columns);
  const Square q = p.rows > 0 ? reference::gptaq(start, u, p, round) : reference::feedback_loop(start, u, round);
  Matrix out(w.rows(), w.cols());
  for (Index r = 0; r < w.rows(); ++r)
    for (Index i = 0; i < w.cols(); ++i) out(r, columns[i]) = static_cast<float>(q(r, i));
  return out;
}

/// U of the damped H in `order`.
inline Square loop_factor(const Square& h, double damp, const std::vector<Index>& order) {
  return reference::inverse_factor(reference::damped(reference::reordered(h, reference::Order(order)), damp));
}

}  // namespace test_layers
