#pragma once
// Errors of a quantized matrix, in its weights and, through the Hessian, in its outputs.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

#include <anybit/calibrate/stats.hpp>
#include <anybit/core/distance.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/recipe/report.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/rounding_ops.hpp>

namespace anybit::recipe {
inline namespace ANYBIT_CODE {

/// Adds to `sum` the part of tr(D H D^T) that columns c .. c + h.cols - 1 of H have, for a few rows of D. `h` is those columns
/// from row c on; `scratch` has as many rows as D and at least as many columns as h.
template <class Real>
void add_panel_trace(MatrixView<const Real> d, Index c, MatrixView<const Real> h, MatrixView<Real> scratch, double& sum) {
  const Index n = d.cols, width = h.cols, end = c + width;
  const MatrixView<Real> product(scratch.data, d.rows, width, scratch.stride);
  // Each entry below the diagonal block counts twice, for itself and for its mirror image.
  for (Index r = 0; r < d.rows; ++r) std::fill_n(product.row(r).data(), width, Real{0});
  if (end < n) dense::add_product<Real>(d.col_range(end, n), h.row_range(width, n - c), product);
  for (Index r = 0; r < d.rows; ++r)
    for (Real& v : product.row(r)) v *= 2;
  dense::add_product<Real>(d.col_range(c, end), h.row_range(0, width), product);
  for (Index r = 0; r < d.rows; ++r) {
    const Real *x = product.row(r).data(), *y = d.row(r).data() + c;
    sum += lane_sum(width, [x, y](Index i) { return static_cast<double>(x[i]) * static_cast<double>(y[i]); });
  }
}

inline constexpr Index trace_panel = 128;  ///< columns of H at a time

/// tr(D H D^T) for a few rows of D; `scratch` has as many rows and trace_panel columns.
template <class Real>
double trace_of_rows(MatrixView<const Real> d, MatrixView<const Real> h, MatrixView<Real> scratch) {
  double sum = 0;
  for (Index c = 0; c < d.cols; c += trace_panel)
    add_panel_trace<Real>(d, c, h.row_range(c, d.cols).col_range(c, std::min(c + trace_panel, d.cols)), scratch, sum);
  return sum;
}

/// tr(D H D^T) for symmetric H: what D does to the outputs, summed over rows and, for H = 2/n X^T X, 2/n times over tokens.
/// Only the lower triangle of H is read. Products run in Real, sums over products in double.
template <class Real>
double quadratic_trace(ConstMatrix d, MatrixView<const Real> h, ExecutorRef executor = {}) {
  ANYBIT_CHECK(h.rows == d.cols && h.cols == d.cols, "quadratic_trace: H is not cols x cols");
  const Index tile = dense::task_rows(d.rows);
  std::vector<double> sums(static_cast<std::size_t>(ceil_div(d.rows, tile)));  // one a tile: equal for any number of threads
  parallel_tiles(executor, d.rows, tile, [&](Index begin, Index end) {
    std::vector<Real> scratch(static_cast<std::size_t>(tile * trace_panel)), wide;
    for (Index r = begin; r < end; r += tile) {
      const ConstMatrix rows = d.row_range(r, std::min(r + tile, end));
      const MatrixView<Real> product(scratch.data(), rows.rows, trace_panel);
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

/// As packed; a column order takes 32 bits a column.
inline double bits_per_weight(const SchemeOps& scheme, Extents e, bool with_column_order) {
  return scheme.bits_per_weight(e) + (with_column_order ? 32.0 / static_cast<double>(e.rows) : 0.0);
}

/// Fills rows begin .. end - 1 of an approximation into `out`, which begins with row `begin`. Called for different rows at once.
using FillRows = std::function<void(Index begin, Index end, MutableMatrix out)>;

/// tr(D H D^T) / unit, where D is w, less what `back` fills in if it is given, and H the Hessian of `stats`. Neither D nor H is
/// ever whole: some rows of the one and columns of the other are made at a time. Bits are those of quadratic_trace.
template <class Real>
double trace_in_parts(ConstMatrix w, const FillRows* back, const Stats& stats, double unit, ExecutorRef executor) {
  const Index n = w.cols, tile = dense::task_rows(w.rows), tiles = ceil_div(w.rows, tile);
  // Several tiles share a panel of H, but those of all threads together are no second w.
  const Index at_once = std::clamp<Index>(tiles / (4 * std::max<Index>(executor.concurrency(), 1)), 1, 4);
  std::vector<double> sums(static_cast<std::size_t>(tiles));
  executor.parallel_for(tiles, at_once, [&](Index begin, Index end) {
    std::vector<float> rows(static_cast<std::size_t>((std::is_same_v<Real, float> ? at_once : 1) * tile * n));
    std::vector<Real> wide(std::is_same_v<Real, float> ? 0 : static_cast<std::size_t>(at_once * tile * n)),
        panel(static_cast<std::size_t>(n * std::min(trace_panel, n))), scratch(static_cast<std::size_t>(tile * trace_panel));
    for (Index first = begin; first < end; first += at_once) {
      const Index stop = std::min(first + at_once, end);
      const auto rows_of = [&](Index t) { return std::min((t + 1) * tile, w.rows) - t * tile; };
      const auto part_of = [&](Index t) {
        Real* data = nullptr;
        if constexpr (std::is_same_v<Real, float>)
          data = rows.data();
        else
          data = wide.data();
        return MatrixView<Real>(data + (t - first) * tile * n, rows_of(t), n);
      };
      for (Index t = first; t < stop; ++t) {
        const MutableMatrix d(rows.data() + (std::is_same_v<Real, float> ? (t - first) * tile * n : 0), rows_of(t), n);
        if (back) (*back)(t* tile, t* tile + d.rows, d);
        for (Index r = 0; r < d.rows; ++r)
          for (Index j = 0; j < n; ++j) d(r, j) = w(t * tile + r, j) - (back ? d(r, j) : 0.0f);
        if constexpr (!std::is_same_v<Real, float>)
          for (Index r = 0; r < d.rows; ++r) std::copy_n(d.row(r).data(), n, part_of(t).row(r).data());
      }
      for (Index c = 0; c < n; c += trace_panel) {
        const Index width = std::min(trace_panel, n - c);
        const MatrixView<Real> h(panel.data(), n - c, width);
        stats.hessian_columns(c, c + width, unit, h);
        for (Index t = first; t < stop; ++t)
          add_panel_trace<Real>(part_of(t), c, h, {scratch.data(), rows_of(t), trace_panel}, sums[static_cast<std::size_t>(t)]);
      }
    }
  });
  double total = 0;
  for (const double s : sums) total += s;
  return total;
}

/// Errors of an approximation of w into the report; the one of outputs where stats has a Hessian. No copy of w or of the Hessian
/// is made.
template <class Wide = double>
void measure_rows(ConstMatrix w, const FillRows& back, const Stats& stats, Report& report, ExecutorRef executor = {}) {
  const Index tile = dense::task_rows(w.rows);
  RelativeError weights;
  std::vector<float> rows(static_cast<std::size_t>(std::min(tile, w.rows) * w.cols));
  for (Index r = 0; r < w.rows; r += tile) {
    const Index end = std::min(r + tile, w.rows);
    const MutableMatrix part(rows.data(), end - r, w.cols);
    back(r, end, part);
    weights.add(w.row_range(r, end), part);
  }
  report.weight_error = weights.value();
  if (!stats.has(Needs::hessian) || stats.inputs() != w.cols || stats.tokens() < 1) return;
  rows = {};
  // As in OutputMetric: in float where that resolves the error.
  double unit = 1;
  if (const double largest = stats.largest_hessian_diagonal(); largest > 0) unit = largest;
  double reference = unit * trace_in_parts<float>(w, nullptr, stats, unit, executor);
  if (!is_finite(reference)) reference = trace_in_parts<Wide>(w, nullptr, stats, 1, executor);
  double error = unit * trace_in_parts<float>(w, &back, stats, unit, executor);
  if (!(is_finite(error) && error > 1e-4 * reference)) error = trace_in_parts<Wide>(w, &back, stats, 1, executor);
  report.output_error = RelativeError{error, reference}.value();
}

/// The same for an approximation that stands in memory.
template <class Wide = double>
void measure_weights(ConstMatrix w, ConstMatrix back, const Stats& stats, Report& report, ExecutorRef executor = {}) {
  measure_rows<Wide>(
      w,
      [back](Index begin, Index end, MutableMatrix out) {
        for (Index r = begin; r < end; ++r) std::copy_n(back.row(r).data(), out.cols, out.row(r - begin).data());
      },
      stats, report, executor);
}

/// Errors of quantized weights against w (both in original column order) and their size as packed, into the report.
inline void measure(ConstMatrix w, const AnyQuantized& q, std::span<const std::uint32_t> column_order, const Stats& stats,
                    Report& report, ExecutorRef executor = {}) {
  measure_rows<>(
      w, [&](Index begin, Index end, MutableMatrix out) { dequantize_rows(q, column_order, begin, end, out); }, stats, report,
      executor);
  report.bits_per_weight = bits_per_weight(q.scheme, q.extents, !column_order.empty());
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::recipe

#include <anybit/core/macros_end.hpp>
