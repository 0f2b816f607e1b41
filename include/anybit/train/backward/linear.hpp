#pragma once
// Gradients of y = x W^T + b + s dropout(x) A^T B^T. W may be packed: a panel of its rows is decoded at a time, so that a frozen
// quantized matrix costs its packed bytes and one panel.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <span>
#include <vector>

#include <anybit/dense/product.hpp>
#include <anybit/nn/linear.hpp>
#include <anybit/train/backward/column_sums.hpp>

namespace anybit::train::backward {
inline namespace ANYBIT_CODE {

namespace detail {

/// Rows of packed weights that exist as floats at once.
inline constexpr Index panel_rows = 256;

/// Calls f(row begin, row end, column begin, column end) for tiles of a (rows, cols) result. Elements of dense products do not
/// depend on the tiles, only speed does.
template <class F>
void for_each_tile(Index rows, Index cols, ExecutorRef executor, F&& f) {
  constexpr Index tall = 192, wide = 256;
  const Index down = ceil_div(rows, tall);
  executor.parallel_for(down * ceil_div(cols, wide), 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index r = i % down * tall, c = i / down * wide;
      f(r, std::min(r + tall, rows), c, std::min(c + wide, cols));
    }
  });
}

}  // namespace detail

/// dx += share dy W for W (outputs, inputs) in floats; dy (tokens, outputs), dx (tokens, inputs).
inline void add_times(ConstMatrix dy, ConstMatrix w, MutableMatrix dx, ExecutorRef executor, float share = 1) {
  ANYBIT_CHECK(dy.cols == w.rows && dx.cols == w.cols && dy.rows == dx.rows, "backward::add_times: shapes differ");
  detail::for_each_tile(dx.rows, dx.cols, executor, [&](Index r0, Index r1, Index c0, Index c1) {
    dense::add_product(dy.row_range(r0, r1), w.col_range(c0, c1), dx.row_range(r0, r1).col_range(c0, c1), share);
  });
}

/// dw += share dy^T x: the gradient of weights (outputs, inputs), summed over tokens.
inline void add_weight_gradient(ConstMatrix dy, ConstMatrix x, MutableMatrix dw, ExecutorRef executor, float share = 1) {
  ANYBIT_CHECK(dy.rows == x.rows && dw.rows == dy.cols && dw.cols == x.cols, "backward::add_weight_gradient: shapes differ");
  detail::for_each_tile(dw.rows, dw.cols, executor, [&](Index r0, Index r1, Index c0, Index c1) {
    dense::add_transposed_product(dy.col_range(r0, r1), x.col_range(c0, c1), dw.row_range(r0, r1).col_range(c0, c1), share);
  });
}

/// dx += dy W for the weights of a linear, in floats or packed; its adapter is not looked at. Sums run over outputs in order.
/// Weights that multiply rounded activations count as they are (straight-through).
inline void add_times_weights(const nn::Linear& w, ConstMatrix dy, MutableMatrix dx, ExecutorRef executor) {
  if (const Matrix* dense = w.dense()) return add_times(dy, dense->view(), dx, executor);
  const auto [outputs, inputs] = w.extents();
  Matrix panel(std::min(outputs, detail::panel_rows), inputs);
  for (Index r0 = 0; r0 < outputs; r0 += detail::panel_rows) {
    const Index rows = std::min(detail::panel_rows, outputs - r0);
    executor.parallel_for(rows, 16, [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) w.read_row(r0 + r, panel.view().row(r));
    });
    add_times(dy.col_range(r0, r0 + rows), panel.view().row_range(0, rows), dx, executor);
  }
}

/// Gradients of a linear's tensors, added to; an empty one is not computed.
struct LinearGradient {
  Matrix weight{};            ///< (outputs, inputs)
  std::vector<float> bias{};  ///< one per output
  Matrix a{}, b{};            ///< of the adapter: (rank, inputs), (outputs, rank)

  bool empty() const { return weight.empty() && bias.empty() && a.empty() && b.empty(); }
};

/// With low = x A^T:  dB += s dy^T low,  dA += (s dy B)^T x,  dx += s dy B A. `x` is as the adapter read it, behind dropout; dx
/// may be a matrix of no rows: then it is not computed.
inline void adapter(const nn::LowRank& l, ConstMatrix x, ConstMatrix dy, MutableMatrix dx, MutableMatrix da, MutableMatrix db,
                    ExecutorRef executor) {
  Matrix low(x.rows, l.a.rows()), dlow(x.rows, l.a.rows());
  nn::float_product(l.a.view(), x, low.view(), executor);
  add_times(dy, l.b.view(), dlow.view(), executor, l.scale);
  if (db.rows > 0) add_weight_gradient(dy, low.view(), db, executor, l.scale);
  if (da.rows > 0) add_weight_gradient(dlow.view(), x, da, executor);
  if (dx.rows > 0) add_times(dlow.view(), l.a.view(), dx, executor);
}

/// dW += dy^T x, db += sum_t dy_t, dx += dy W, and the adapter's as above, without dropout. x (tokens, inputs), dy (tokens,
/// outputs); dx may be a matrix of no rows.
inline void linear(const nn::Linear& w, ConstMatrix x, ConstMatrix dy, MutableMatrix dx, LinearGradient& g,
                   ExecutorRef executor) {
  if (!g.weight.empty()) add_weight_gradient(dy, x, g.weight.view(), executor);
  if (!g.bias.empty()) add_column_sums(dy, g.bias, executor);
  if (dx.rows > 0) add_times_weights(w, dy, dx, executor);
  if (const nn::LowRank* l = w.adapter()) adapter(*l, x, dy, dx, g.a.view(), g.b.view(), executor);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::backward

#include <anybit/core/macros_end.hpp>
