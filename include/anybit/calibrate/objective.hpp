#pragma once
// Errors of a quantized matrix, in its weights and, through the Hessian, in its outputs.

#include <algorithm>
#include <limits>

#include <anybit/calibrate/report.hpp>
#include <anybit/calibrate/stats.hpp>
#include <anybit/core/eigen_view.hpp>
#include <anybit/tensor/pack.hpp>

namespace anybit::calibrate::inline ANYBIT_CODE {

/// tr(D H D^T) for symmetric H: what D does to the outputs, summed over rows and, for H = 2/n X^T X, 2/n times over tokens.
/// Only the lower triangle of H is read. Products run in Real, sums over products in double.
template <class Real>
double quadratic_trace(ConstMatrix d, MatrixView<const Real> h, ExecutorRef executor = {}) {
  ANYBIT_CHECK(h.rows == d.cols && h.cols == d.cols, "quadratic_trace: H is not cols x cols");
  using Block = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Block, 0, Eigen::OuterStride<>> hessian(h.data, h.rows, h.cols, Eigen::OuterStride<>(h.stride));
  constexpr Index tile = 128, block = 128;
  std::vector<double> sums(static_cast<std::size_t>(ceil_div(d.rows, tile)));  // one a tile: equal for any number of threads
  executor.parallel_for(d.rows, tile, [&](Index begin, Index end) {
    for (Index r = begin; r < end; r += tile) {
      const Block rows = as_eigen(d.row_range(r, std::min(r + tile, end))).template cast<Real>();
      double sum = 0;
      for (Index c = 0; c < d.cols; c += block) {
        const Index width = std::min(block, d.cols - c);
        const auto mine = rows.middleCols(c, width);
        // Rows c .. c + width of the lower triangle: everything to the left counts twice, the diagonal block once.
        Block product = mine * hessian.block(c, c, width, width).template selfadjointView<Eigen::Lower>();
        sum += product.cwiseProduct(mine).template cast<double>().sum();
        if (c == 0) continue;
        product.noalias() = mine * hessian.block(c, 0, width, c);
        sum += 2 * product.cwiseProduct(rows.leftCols(c)).template cast<double>().sum();
      }
      sums[static_cast<std::size_t>(r / tile)] = sum;
    }
  });
  double total = 0;
  for (const double s : sums) total += s;
  return total;
}

inline double square_sum(ConstMatrix m) {
  double sum = 0;
  for (Index r = 0; r < m.rows; ++r)
    for (const float v : m.row(r)) sum += static_cast<double>(v) * static_cast<double>(v);
  return sum;
}

inline Matrix difference(ConstMatrix a, ConstMatrix b) {
  Matrix d(a.rows, a.cols);
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.cols; ++c) d(r, c) = a(r, c) - b(r, c);
  return d;
}

/// sqrt(error / reference); 0 if there is no error, infinity if a reference of 0 got one.
inline double relative(double error, double reference) {
  return error <= 0 ? 0 : reference > 0 ? std::sqrt(error / reference) : std::numeric_limits<double>::infinity();
}

/// ||W - Q||_F / ||W||_F.
inline double relative_weight_error(ConstMatrix w, ConstMatrix q) {
  return relative(square_sum(difference(w, q).view()), square_sum(w));
}

/// Output errors of approximations of one matrix, tr(D H D^T), at the speed of float products where these resolve them.
class OutputMetric {
 public:
  OutputMetric(ConstMatrix w, MatrixView<const double> h, ExecutorRef executor)
      : w_(w), wide_(h), narrow_(h.rows, h.cols), executor_(executor) {
    double largest = 0;
    for (Index i = 0; i < h.rows; ++i) largest = std::max(largest, std::fabs(h(i, i)));
    if (largest > 0) unit_ = largest;  // so that any H fits a float
    for (Index i = 0; i < h.rows; ++i)
      for (Index j = 0; j < h.cols; ++j) narrow_(i, j) = static_cast<float>(h(i, j) / unit_);
    reference_ = trace<float>(w);
    if (!std::isfinite(reference_)) reference_ = trace<double>(w);
  }
  /// tr(W H W^T).
  double reference() const { return reference_; }
  double error(ConstMatrix approximation) const {
    const Matrix d = difference(w_, approximation);
    // Rounding of float products is about 1e-7 of the reference: above 1e-4 of it the result is good to 0.1 %.
    const double fast = trace<float>(d.view());
    return std::isfinite(fast) && fast > 1e-4 * reference_ ? fast : trace<double>(d.view());
  }
  double exact_error(ConstMatrix approximation) const { return trace<double>(difference(w_, approximation).view()); }
  /// ||(W - Q) X||_F / ||W X||_F.
  double relative_to_outputs(double error) const { return relative(error, reference_); }

 private:
  template <class Real>
  double trace(ConstMatrix d) const {
    if constexpr (std::is_same_v<Real, float>)
      return unit_ * quadratic_trace<float>(d, {narrow_.data(), narrow_.rows(), narrow_.cols()}, executor_);
    else
      return quadratic_trace<double>(d, wide_, executor_);
  }
  ConstMatrix w_;
  MatrixView<const double> wide_;
  Matrix narrow_;
  ExecutorRef executor_;
  double unit_ = 1, reference_ = 0;
};

/// As packed, a column order included.
template <AnyScheme S>
double bits_per_weight(const QuantizedMatrix<S>& q) {
  return S::bits_per_weight(q.extents) + (q.column_order.empty() ? 0.0 : 32.0 / static_cast<double>(q.extents.rows));
}

/// Errors of q against w (both in original column order) and its size, into the report. The Hessian is used where stats has one.
template <AnyScheme S>
void measure(ConstMatrix w, const QuantizedMatrix<S>& q, const Stats& stats, Report& report, ExecutorRef executor = {}) {
  const Matrix back = dequantize(q);
  report.weight_error = relative_weight_error(w, back.view());
  if (stats.has(Needs::hessian) && stats.inputs() == w.cols && stats.tokens() > 0) {
    std::vector<double> h(static_cast<std::size_t>(w.cols * w.cols));
    stats.hessian(MatrixView<double>(h.data(), w.cols, w.cols));
    const OutputMetric metric(w, {h.data(), w.cols, w.cols}, executor);
    report.output_error = metric.relative_to_outputs(metric.error(back.view()));
  }
  report.bits_per_weight = bits_per_weight(q);
}

}  // namespace anybit::calibrate::inline ANYBIT_CODE
