#pragma once
// A weight of the model: floats now, packed codes after quantization, layer by layer as one likes.

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include <anybit/core/eigen_view.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/kernel/compute.hpp>

namespace anybit::model::inline ANYBIT_CODE {

/// y = x W^T through Eigen; w (outputs, inputs), x (tokens, inputs), y (tokens, outputs). The product is cut into tiles of a
/// fixed size, whoever computes them: Eigen's order of summation depends on the shape of its operands, so slices that depend
/// on the number of threads would give other bits. Tiles of 64 rows were the fastest measured for 1 to 512 tokens.
inline void float_product(ConstMatrix w, ConstMatrix x, MutableMatrix y, ExecutorRef executor) {
  constexpr Index row_tile = 64, token_tile = 256;
  ANYBIT_CHECK(x.cols == w.cols && y.cols == w.rows && x.rows == y.rows, "float_product: shapes differ");
  const Index row_tiles = ceil_div(w.rows, row_tile), token_tiles = ceil_div(x.rows, token_tile);
  executor.parallel_for(row_tiles * token_tiles, 1, [&](Index begin, Index end) {
    for (Index tile = begin; tile < end; ++tile) {
      const Index t0 = tile / row_tiles * token_tile, t1 = std::min(t0 + token_tile, x.rows);
      const Index r0 = tile % row_tiles * row_tile, r1 = std::min(r0 + row_tile, w.rows);
      const MutableMatrix to(y.data + t0 * y.stride + r0, t1 - t0, r1 - r0, y.stride);
      if (t1 - t0 == 1) {
        Eigen::Map<Eigen::VectorXf>(to.data, to.cols).noalias() =
            as_eigen(w.row_range(r0, r1)) * Eigen::Map<const Eigen::VectorXf>(x.data + t0 * x.stride, x.cols);
      } else {
        as_eigen(to).noalias() = as_eigen(x.row_range(t0, t1)) * as_eigen(w.row_range(r0, r1)).transpose();
      }
    }
  });
}

/// Copies share the weights, so that a copy of a model costs nothing until a linear is replaced.
class Linear {
 public:
  Linear() = default;
  explicit Linear(Matrix w) : dense_(std::make_shared<const Matrix>(std::move(w))) {}

  Extents extents() const { return dense_ ? dense_->extents() : Extents{}; }
  /// Null where the weights are packed.
  const Matrix* dense() const { return dense_.get(); }

  /// y = x W^T; x (tokens, inputs), y (tokens, outputs). The same bits for any number of threads.
  void apply(ConstMatrix x, MutableMatrix y, ExecutorRef executor, Workspace&) const {
    ANYBIT_CHECK(dense_, "Linear::apply without weights");
    float_product(dense_->view(), x, y, executor);
  }

  /// Row r of W as floats.
  void read_row(Index r, std::span<float> to) const {
    ANYBIT_CHECK(r >= 0 && r < extents().rows && static_cast<Index>(to.size()) == extents().cols,
                 "Linear::read_row: no such row");
    std::copy_n(dense_->data() + r * dense_->cols(), to.size(), to.data());
  }

 private:
  std::shared_ptr<const Matrix> dense_;
};

}  // namespace anybit::model::inline ANYBIT_CODE
