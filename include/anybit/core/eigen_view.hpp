#pragma once
// Views of a caller's Eigen objects. Ownership of Eigen objects never crosses an
// interface of anybit: their allocator depends on the -m flags of the translation unit.

#include <Eigen/Core>

#include <anybit/core/view.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// View of a row-major Eigen matrix, block or map with unit inner stride. No copy, ever.
template <class Derived>
auto as_view(Eigen::DenseBase<Derived>& m) {
  static_assert(
      Derived::IsRowMajor || Derived::ColsAtCompileTime == 1,
      "anybit: as_view needs a row-major Eigen matrix; declare it Eigen::RowMajor (a column-major one would have to be copied)");
  static_assert(Derived::InnerStrideAtCompileTime == 1, "anybit: as_view needs unit inner stride");
  return MatrixView<typename Derived::Scalar>(m.derived().data(), m.rows(), m.cols(), m.derived().outerStride());
}
template <class Derived>
auto as_view(const Eigen::DenseBase<Derived>& m) {
  static_assert(
      Derived::IsRowMajor || Derived::ColsAtCompileTime == 1,
      "anybit: as_view needs a row-major Eigen matrix; declare it Eigen::RowMajor (a column-major one would have to be copied)");
  static_assert(Derived::InnerStrideAtCompileTime == 1, "anybit: as_view needs unit inner stride");
  return MatrixView<const typename Derived::Scalar>(m.derived().data(), m.rows(), m.cols(), m.derived().outerStride());
}

/// Eigen's product and factorization kernels over a view.
template <class T>
auto as_eigen(MatrixView<T> v) {
  using Plain = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Mapped = std::conditional_t<std::is_const_v<T>, const Plain, Plain>;
  return Eigen::Map<Mapped, 0, Eigen::OuterStride<>>(v.data, v.rows, v.cols, Eigen::OuterStride<>(v.stride));
}

}  // namespace ANYBIT_CODE
}  // namespace anybit
