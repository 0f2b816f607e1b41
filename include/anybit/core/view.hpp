#pragma once
// Matrices that somebody else owns: a pointer, a shape and a row stride.

#include <span>
#include <type_traits>

#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// A row-major matrix that somebody else owns. Element (r, c) is `data[r * stride + c]`; stride >= cols.
/// Weights are (outputs, inputs); activations are (tokens, inputs).
template <class T>
struct MatrixView {
  T* data = nullptr;
  Index rows = 0, cols = 0, stride = 0;

  constexpr MatrixView() = default;
  constexpr MatrixView(T* data_, Index rows_, Index cols_) : MatrixView(data_, rows_, cols_, cols_) {}
  constexpr MatrixView(T* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  /// A mutable view converts to a read-only one.
  template <class U>
    requires(std::is_same_v<T, const U>)
  constexpr MatrixView(MatrixView<U> other)  // NOLINT(google-explicit-constructor)
      : MatrixView(other.data, other.rows, other.cols, other.stride) {}

  constexpr T& operator()(Index r, Index c) const { return data[r * stride + c]; }
  constexpr std::span<T> row(Index r) const { return {data + r * stride, static_cast<std::size_t>(cols)}; }
  constexpr MatrixView row_range(Index begin, Index end) const { return {data + begin * stride, end - begin, cols, stride}; }
  constexpr MatrixView col_range(Index begin, Index end) const { return {data + begin, rows, end - begin, stride}; }
  constexpr Extents extents() const { return {rows, cols}; }
  constexpr bool contiguous() const { return stride == cols || rows <= 1; }
};

using ConstMatrix = MatrixView<const float>;
using MutableMatrix = MatrixView<float>;

}  // namespace ANYBIT_ABI
}  // namespace anybit
