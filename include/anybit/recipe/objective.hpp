#pragma once
// Errors of a quantized matrix, in its weights and, through the Hessian, in its outputs.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <anybit/calibrate/stats.hpp>
#include <anybit/core/distance.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/recipe/report.hpp>
#include <anybit/tensor/pack.hpp>

namespace anybit::calibrate {
inline namespace ANYBIT_CODE {

/// tr(D H D^T) for a few rows of D; `scratch` has their number of rows and `panel` columns.
template <class Real>
double trace_of_rows(MatrixView<const Real> d, MatrixView<const Real> h, MatrixView<Real> scratch) {
  const Index n = d.cols, panel = scratch.cols;
  double sum = 0;
  for (Index c = 0; c < n; c += panel) {
    const Index end = std::min(c + panel, n);
    const MatrixView<Real> product(scratch.data, d.rows, end - c, scratch.stride);
    // What lies below the diagonal block counts twice, for itself and for its mirror image.
    for (Index r = 0; r < d.rows; ++r) std::fill_n(product.row(r).data(), end - c, Real{0});
    if (end < n) add_product<Real>(d.col_range(end, n), h.row_range(end, n).col_range(c, end), product);
    for (Index r = 0; r < d.rows; ++r)
      for (Real& v : product.row(r)) v *= 2;
    add_product<Real>(d.col_range(c, end), h.row_range(c, end).col_range(c, end), product);
    for (Index r = 0; r < d.rows; ++r) {
      const Real *a = product.row(r).data(), *b = d.row(r).data() + c;
      sum += lane_sum(end - c, [a, b](Index i) { return static_cast<double>(a[i]) * static_cast<double>(b[i]); });
    }
  }
  return sum;
}

/// tr(D H D^T) for symmetric H: what D does to the outputs, summed over rows and, for H = 2/n X^T X, 2/n times over tokens.
/// Only the lower triangle of H is read. Products run in Real, sums over products in double.
template <class Real>
double quadratic_trace(ConstMatrix d, MatrixView<const Real> h, ExecutorRef executor = {}) {
  ANYBIT_CHECK(h.rows == d.cols && h.cols == d.cols, "quadratic_trace: H is not cols x cols");
  constexpr Index panel = 128;
  const Index tile = task_rows(d.rows);
  std::vector<double> sums(static_cast<std::size_t>(ceil_div(d.rows, tile)));  // one a tile: equal for any number of threads
  parallel_tiles(executor, d.rows, tile, [&](Index begin, Index end) {
    std::vector<Real> scratch(static_cast<std::size_t>(tile * panel)), wide;
    for (Index r = begin; r < end; r += tile) {
      const ConstMatrix rows = d.row_range(r, std::min(r + tile, end));
      const MatrixView<Real> product(scratch.data(), rows.rows, panel);
      double& sum = sums[static_cast<std::size_t>(r / tile)];
      if constexpr (std::is_same_v<Real, float>) {
        sum = trace_of_rows<float>(rows, h, product);
      } else {
        wide.clear();
        for (Index i = 0; i < rows.rows; ++i) wide.insert(wide.end(), rows.row(i).begin(), rows.row(i).end());
        sum = trace_of_rows<Real>({wide.data(), rows.rows, rows.cols}, h, product);
      }
    }
  });
  double total = 0;
  for (const double s : sums) total += s;
  return total;
}

/// H in floats, divided by a power of two above its largest diagonal entry: no product overflows, whatever the inputs' size, and
/// comparisons of tr(D H D^T) come out the same.
struct ScaledHessian {
  explicit ScaledHessian(const Stats& stats) : h(stats.inputs(), stats.inputs()) {
    const Index n = stats.inputs();
    std::vector<double> wide(static_cast<std::size_t>(n * n));
    stats.hessian(MatrixView<double>(wide.data(), n, n));
    double largest = 0;
    for (Index j = 0; j < n; ++j) largest = std::max(largest, wide[static_cast<std::size_t>(j * n + j)]);
    if (largest > 0) unit = std::ldexp(1.0, std::ilogb(largest) + 1);
    for (std::size_t i = 0; i < wide.size(); ++i) h.data()[i] = static_cast<float>(wide[i] / unit);
  }
  MatrixView<const float> view() const { return {h.data(), h.rows(), h.cols()}; }

  Matrix h;
  double unit = 1;
};

inline Matrix difference(ConstMatrix a, ConstMatrix b) {
  Matrix d(a.rows, a.cols);
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.cols; ++c) d(r, c) = a(r, c) - b(r, c);
  return d;
}

/// Output errors of approximations of one matrix, tr(D H D^T), at the speed of float products where these resolve them, else
/// with products in Wide.
template <class Wide = double>
class OutputMetric {
 public:
  OutputMetric(ConstMatrix w, MatrixView<const Wide> h, ExecutorRef executor)
      : w_(w), wide_(h), narrow_(h.rows, h.cols), executor_(executor) {
    double largest = 0;
    for (Index i = 0; i < h.rows; ++i) largest = std::max(largest, std::fabs(h(i, i)));
    if (largest > 0) unit_ = largest;  // so that any H fits a float
    for (Index i = 0; i < h.rows; ++i)
      for (Index j = 0; j < h.cols; ++j) narrow_(i, j) = static_cast<float>(h(i, j) / unit_);
    reference_ = trace<float>(w);
    if (!is_finite(reference_)) reference_ = trace<Wide>(w);
  }
  /// tr(W H W^T).
  double reference() const { return reference_; }
  double error(ConstMatrix approximation) const {
    const Matrix d = difference(w_, approximation);
    // Rounding of float products is about 1e-7 of the reference: above 1e-4 of it the result is good to 0.1 %.
    const double fast = trace<float>(d.view());
    return is_finite(fast) && fast > 1e-4 * reference_ ? fast : trace<Wide>(d.view());
  }
  double exact_error(ConstMatrix approximation) const { return trace<Wide>(difference(w_, approximation).view()); }
  /// ||(W - Q) X||_F / ||W X||_F.
  double relative_to_outputs(double error) const { return RelativeError{error, reference_}.value(); }

 private:
  template <class Real>
  double trace(ConstMatrix d) const {
    if constexpr (std::is_same_v<Real, float>)
      return unit_ * quadratic_trace<float>(d, {narrow_.data(), narrow_.rows(), narrow_.cols()}, executor_);
    else
      return quadratic_trace<Wide>(d, wide_, executor_);
  }
  ConstMatrix w_;
  MatrixView<const Wide> wide_;
  Matrix narrow_;
  ExecutorRef executor_;
  double unit_ = 1, reference_ = 0;
};

/// As packed, a column order included.
template <AnyScheme S>
double bits_per_weight(const QuantizedMatrix<S>& q) {
  return S::bits_per_weight(q.extents) + (q.column_order.empty() ? 0.0 : 32.0 / static_cast<double>(q.extents.rows));
}

/// Errors of `back` against w into the report. The Hessian is used where stats has one.
template <class Wide = double>
void measure_weights(ConstMatrix w, ConstMatrix back, const Stats& stats, Report& report, ExecutorRef executor = {}) {
  report.weight_error = relative_error(w, back);
  if (stats.has(Needs::hessian) && stats.inputs() == w.cols && stats.tokens() > 0) {
    std::vector<Wide> h(static_cast<std::size_t>(w.cols * w.cols));
    stats.hessian(MatrixView<Wide>(h.data(), w.cols, w.cols));
    const OutputMetric<Wide> metric(w, {h.data(), w.cols, w.cols}, executor);
    report.output_error = metric.relative_to_outputs(metric.error(back));
  }
}

/// Errors of q against w (both in original column order) and its size, into the report.
template <AnyScheme S>
void measure(ConstMatrix w, const QuantizedMatrix<S>& q, const Stats& stats, Report& report, ExecutorRef executor = {}) {
  measure_weights<>(w, dequantize(q).view(), stats, report, executor);
  report.bits_per_weight = bits_per_weight(q);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::calibrate

#include <anybit/core/macros_end.hpp>
