#pragma once
// A linear layer: weights as floats or as packed codes, a bias, and a low-rank adapter (LoRA, arXiv:2106.09685) beside them.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <anybit/core/eigen_view.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/compute.hpp>
#include <anybit/nn/elementwise.hpp>

namespace anybit::nn {
inline namespace ANYBIT_CODE {

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

/// The low-rank matrix that an adapter adds to W: scale * B A.
struct LowRank {
  Matrix a;  ///< (rank, inputs)
  Matrix b;  ///< (outputs, rank)
  float scale = 1;
};

/// Copies share weights and adapter, so that a copy of a model costs nothing until a linear is replaced.
class Linear {
 public:
  Linear() = default;
  explicit Linear(Matrix w) : dense_(std::make_shared<Matrix>(std::move(w))) {}
  /// `activations` says how they enter the product; w is prepared for it.
  explicit Linear(AnyPacked w, ActivationMode activations = {}) : packed_(std::move(w)), activations_(activations) {
    packed_.prepare(activations.compute());
  }

  Extents extents() const { return dense_ ? dense_->extents() : packed_.empty() ? Extents{} : packed_.extents(); }
  /// Null where the weights are packed.
  const Matrix* dense() const { return dense_.get(); }
  /// Null where the weights are floats.
  const AnyPacked* packed() const { return packed_.empty() ? nullptr : &packed_; }
  Compute compute() const { return activations_.compute(); }
  /// The same with the calibrated scale of Compute::int8_static.
  ActivationMode activations() const { return activations_; }

  /// Bytes that hold weights.
  Index payload_bytes() const {
    return packed_.empty() ? extents().size() * static_cast<Index>(sizeof(float)) : packed_.payload_bytes();
  }
  double bits_per_weight() const {
    return extents().size() == 0 ? 0 : 8.0 * static_cast<double>(payload_bytes()) / static_cast<double>(extents().size());
  }

  /// One value for each output, or empty.
  const std::vector<float>& bias() const { return bias_; }
  void set_bias(std::vector<float> bias) {
    ANYBIT_CHECK(bias.empty() || static_cast<Index>(bias.size()) == extents().rows, "Linear::set_bias: one value an output");
    bias_ = std::move(bias);
  }
  /// Null where there is none.
  const LowRank* adapter() const { return adapter_.get(); }
  void set_adapter(std::shared_ptr<const LowRank> adapter) {
    ANYBIT_CHECK(!adapter || (adapter->a.cols() == extents().cols && adapter->b.rows() == extents().rows &&
                              adapter->a.rows() == adapter->b.cols()),
                 "Linear::set_adapter: shapes differ");
    adapter_ = std::move(adapter);
  }

  /// Weights in floats, the bias, the adapter's factors, for training to change in place. What another Linear shares is copied
  /// first; copies made later share it again and change along. Empty or null where there are none.
  MutableMatrix own_dense() {
    if (dense_ && dense_.use_count() > 1) dense_ = std::make_shared<Matrix>(dense_->view());
    return dense_ ? dense_->view() : MutableMatrix();
  }
  std::span<float> own_bias() { return bias_; }
  LowRank* own_adapter() {
    if (!adapter_) return nullptr;
    auto own = std::make_shared<LowRank>(*adapter_);
    LowRank* const changeable = own.get();
    adapter_ = std::move(own);
    return changeable;
  }

  /// Other weights under the same bias and adapter.
  Linear with_weights(Linear other) const {
    ANYBIT_CHECK(other.extents() == extents(), "Linear::with_weights: shapes differ");
    other.bias_ = bias_, other.adapter_ = adapter_;
    return other;
  }

  /// y = x W^T + bias, with an adapter + scale (x A^T) B^T; x (tokens, inputs), y (tokens, outputs). The same bits for any number
  /// of threads.
  void apply(ConstMatrix x, MutableMatrix y, ExecutorRef executor, Workspace& workspace) const {
    ANYBIT_CHECK(dense_ || !packed_.empty(), "Linear::apply without weights");
    if (dense_)
      float_product(dense_->view(), x, y, executor);
    else
      packed_.matmul(x, y, activations_, executor, workspace);
    add_rest(x, y, executor);
  }

  /// What apply() adds to the product: the bias and the adapter's part.
  void add_rest(ConstMatrix x, MutableMatrix y, ExecutorRef executor) const {
    if (!bias_.empty()) add_bias(bias_, y, executor);
    if (adapter_) add_adapter(x, y, executor);
  }

  /// The adapter's part of apply(), for an x of its own (dropout): y += scale (x A^T) B^T.
  void add_adapter(ConstMatrix x, MutableMatrix y, ExecutorRef executor) const {
    Matrix low(x.rows, adapter_->a.rows()), delta(y.rows, y.cols);
    float_product(adapter_->a.view(), x, low.view(), executor);
    for (Index i = 0; i < low.extents().size(); ++i) low.data()[i] *= adapter_->scale;
    float_product(adapter_->b.view(), low.view(), delta.view(), executor);
    add(delta.view(), y, executor);
  }

  /// Row r of W as floats.
  void read_row(Index r, std::span<float> to) const {
    ANYBIT_CHECK(r >= 0 && r < extents().rows && static_cast<Index>(to.size()) == extents().cols,
                 "Linear::read_row: no such row");
    if (dense_)
      std::copy_n(dense_->data() + r * dense_->cols(), to.size(), to.data());
    else
      packed_.dequantize_row(r, to);
  }

 private:
  std::shared_ptr<Matrix> dense_;
  AnyPacked packed_;
  ActivationMode activations_;
  std::vector<float> bias_;
  std::shared_ptr<const LowRank> adapter_;
};

/// One of several linears that read the same x, and where its result goes.
struct Sibling {
  const Linear& linear;
  MutableMatrix y;
};

/// What apply() gives for each, to the bit. Packed weights that read x in the same form share one rounding of it and one loop of
/// the executor.
inline void apply_siblings(std::span<const Sibling> siblings, ConstMatrix x, ExecutorRef executor, Workspace& workspace) {
  constexpr std::size_t most = 4;
  ANYBIT_CHECK(siblings.size() <= most, "nn::apply_siblings: at most four");
  ActivationPlan plan;
  std::array<Index, most + 1> ends{};  // of the siblings' shares of the loop
  std::size_t joined = 0;
  std::array<const Sibling*, most> together{};
  for (const Sibling& s : siblings) {
    const AnyPacked* const w = s.linear.packed();
    if (w == nullptr) continue;
    const ActivationPlan own = w->plan(s.linear.activations());
    if (joined == 0)
      plan = own;
    else if (!plan.join(own))
      continue;
    together[joined++] = &s;
  }
  if (joined < 2) {
    for (const Sibling& s : siblings) s.linear.apply(x, s.y, executor, workspace);
    return;
  }
  const auto shared = std::span(together).first(joined);
  for (std::size_t i = 0; i < joined; ++i) {
    kernel::check_shapes(shared[i]->linear.extents(), x, shared[i]->y);
    ends[i + 1] = ends[i] + ceil_div(shared[i]->linear.extents().rows, plan.row_grain);
  }
  const Activations a = round_activations(x, plan, workspace, executor);
  parallel_tiles(executor, ends[joined], 1, [&](Index begin, Index end) {
    for (std::size_t i = 0; i < joined; ++i) {
      const Index from = std::max(begin, ends[i]), to = std::min(end, ends[i + 1]), rows = shared[i]->linear.extents().rows;
      if (from < to)
        shared[i]->linear.packed()->product_rows(a, shared[i]->y, (from - ends[i]) * plan.row_grain,
                                                 std::min(rows, (to - ends[i]) * plan.row_grain));
    }
  });
  for (const Sibling& s : siblings)
    if (std::find(shared.begin(), shared.end(), &s) != shared.end())
      s.linear.add_rest(x, s.y, executor);
    else
      s.linear.apply(x, s.y, executor, workspace);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn

#include <anybit/core/macros_end.hpp>
