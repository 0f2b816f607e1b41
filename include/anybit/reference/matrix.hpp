#pragma once
// Rows and matrices of doubles for the readable library. Everything in reference/ takes and returns these, so that each file
// shows its equations and nothing else: no threads, no blocks for caches, no packed codes.
//   W  weights (outputs x inputs), as PyTorch stores nn.Linear.weight
//   X  activations (tokens x inputs)

#include <initializer_list>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/core/view.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// A std::vector that is indexed by signed numbers, as matrices are.
template <class T>
struct Row {
  std::vector<T> values;

  Row() = default;
  explicit Row(Index n, T value = T()) : values(static_cast<std::size_t>(n), value) {}
  Row(std::initializer_list<T> list) : values(list) {}
  template <class U>
  explicit Row(const std::vector<U>& other) : values(other.begin(), other.end()) {}
  Index size() const { return static_cast<Index>(values.size()); }
  T& operator[](Index i) { return values[static_cast<std::size_t>(i)]; }
  const T& operator[](Index i) const { return values[static_cast<std::size_t>(i)]; }
  auto begin() { return values.begin(); }
  auto end() { return values.end(); }
  auto begin() const { return values.begin(); }
  auto end() const { return values.end(); }
  friend bool operator==(const Row&, const Row&) = default;
};

/// rows x cols values, row-major, all T() at first.
template <class T>
struct Table {
  Index rows = 0, cols = 0;
  std::vector<T> values;

  Table() = default;
  Table(Index rows_, Index cols_) : rows(rows_), cols(cols_), values(static_cast<std::size_t>(rows_ * cols_)) {}
  T& operator()(Index r, Index c) { return values[static_cast<std::size_t>(r * cols + c)]; }
  const T& operator()(Index r, Index c) const { return values[static_cast<std::size_t>(r * cols + c)]; }
  /// Columns first .. last - 1 of one row.
  Row<T> row(Index r, Index first, Index last) const {
    Row<T> out(last - first);
    for (Index c = first; c < last; ++c) out[c - first] = (*this)(r, c);
    return out;
  }
  Row<T> row(Index r) const { return row(r, 0, cols); }
  friend bool operator==(const Table&, const Table&) = default;
};

using Vector = Row<double>;
using Matrix = Table<double>;
using Order = Row<Index>;  ///< a permutation: the original index at each new place
using Mask = Table<int>;   ///< 1: pruned

inline Matrix matrix_of(ConstMatrix m) {
  Matrix out(m.rows, m.cols);
  for (Index r = 0; r < m.rows; ++r)
    for (Index c = 0; c < m.cols; ++c) out(r, c) = static_cast<double>(m(r, c));
  return out;
}
inline Matrix matrix_of(const anybit::Matrix& m) { return matrix_of(m.view()); }

/// A B^T: the form of every linear layer, Y = X W^T.
inline Matrix times_transposed(const Matrix& a, const Matrix& b) {
  Matrix y(a.rows, b.rows);
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < b.rows; ++c)
      for (Index k = 0; k < a.cols; ++k) y(r, c) += a(r, k) * b(c, k);
  return y;
}
inline Matrix transposed(const Matrix& m) {
  Matrix t(m.cols, m.rows);
  for (Index r = 0; r < m.rows; ++r)
    for (Index c = 0; c < m.cols; ++c) t(c, r) = m(r, c);
  return t;
}
/// Columns of `m` in another order.
inline Matrix with_columns(const Matrix& m, const Order& order) {
  Matrix out(m.rows, m.cols);
  for (Index r = 0; r < m.rows; ++r)
    for (Index c = 0; c < m.cols; ++c) out(r, c) = m(r, order[c]);
  return out;
}
/// Rows and columns of a square matrix in another order.
inline Matrix reordered(const Matrix& m, const Order& order) {
  Matrix out(m.rows, m.cols);
  for (Index r = 0; r < m.rows; ++r)
    for (Index c = 0; c < m.cols; ++c) out(r, c) = m(order[r], order[c]);
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
