#pragma once
// The laws of algorithms: what a recipe, the tool and files rely on, whatever chooses the codes.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <anybit/core/distance.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/recipe/algorithm.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/rounding_ops.hpp>
#include <anybit/testing/violation.hpp>

namespace anybit::testing {
inline namespace ANYBIT_CODE {

inline Matrix normal_matrix(Index rows, Index cols, std::uint64_t seed, float deviation = 1) {
  Numbers numbers(seed);
  Matrix m(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = deviation * numbers.normal();
  return m;
}

/// Inputs that tell of each other, one of them large, `dead` of them 0 (from the second on).
inline Matrix example_inputs(Index tokens, Index inputs, std::uint64_t seed, Index dead = 0) {
  Matrix x = normal_matrix(tokens, inputs, seed);
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 0; j < inputs; ++j) {
      if (j > 0) x(t, j) = 0.6f * x(t, j - 1) + 0.8f * x(t, j);
      if (j == inputs - 1) x(t, j) *= 20;
    }
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 1; j <= std::min(dead, inputs - 1); ++j) x(t, j) = 0;
  return x;
}

/// Statistics of every kind of tokens x. The float model's inputs, for those that want them, are a little larger.
inline Stats example_stats(Needs needs, const Matrix& x) {
  Stats stats(x.cols(), needs | Needs::hessian);
  Matrix original = x;
  for (Index i = 0; i < x.rows() * x.cols(); ++i) original.data()[i] *= 1.05f;
  const Status added = stats.has(Needs::input_drift) ? stats.accumulate(x.view(), original.view()) : stats.accumulate(x.view());
  ANYBIT_CHECK(added.ok(), "example_stats: tokens are finite");
  return stats;
}

/// The laws of one result.
template <Algorithm A>
Violation check_quantized(const A& algorithm, ConstMatrix w, const Quantized<typename A::scheme>& q, const std::string& here) {
  using S = typename A::scheme;
  const Report& report = q.report;
  if (!(q.matrix.extents == w.extents())) return here + "the result has another shape";
  for (const auto code : q.matrix.codes)
    if (static_cast<Index>(code) >= static_cast<Index>(code_count_v<typename S::format>))
      return here + "code " + std::to_string(static_cast<Index>(code)) + " is outside the format";
  std::vector<float> scales;
  for (const Affine& a : q.matrix.affines) {
    scales.push_back(a.scale);
    if (!is_finite(a.scale) || a.scale < 0 || !is_finite(a.zero)) return here + "scale " + shown(a.scale) + " is no scale";
  }
  std::vector<float> again = scales;
  S::scale_store::round_trip(again);
  if (again != scales) return here + "scales are not as stored";
  const Matrix back = dequantize(q.matrix);
  for (Index i = 0; i < back.extents().size(); ++i)
    if (!is_finite(back.data()[i])) return here + "a weight became " + shown(back.data()[i]);
  if (std::vector<std::uint32_t> order = q.matrix.column_order; !order.empty()) {
    if (!AlgorithmTraits<A>::stores_column_order(algorithm)) return here + "a column order that its traits do not announce";
    std::sort(order.begin(), order.end());
    for (std::size_t j = 0; j < order.size(); ++j)
      if (order[j] != j) return here + "the column order is no permutation";
    if (static_cast<Index>(order.size()) != w.cols) return here + "the column order has another length than a row";
  }
  if (report.requested.find(algorithm.describe()) != 0)
    return here + "the report says that '" + report.requested + "' was asked for";
  if (report.as_requested() && report.done != report.requested) return here + "done differs from requested without a fallback";
  const double error = relative_error(w, back.view()), said = report.weight_error;
  if (!(error == said || std::fabs(error - said) <= 1e-9 * error))
    return here + "the report says a weight error of " + shown(said) + ", it is " + shown(error);
  const double bits =
      S::bits_per_weight(w.extents()) + (q.matrix.column_order.empty() ? 0.0 : 32.0 / static_cast<double>(w.rows));
  if (report.bits_per_weight != bits)
    return here + "the report says " + shown(report.bits_per_weight) + " bits per weight, there are " + shown(bits);
  if (q.matrix.provenance.empty()) return here + "no provenance";
  return {};
}

/// Odd shapes, zeros, dead inputs, strict mode, threads, and data that must be refused.
template <Algorithm A>
Violation check_algorithm_laws(const A& algorithm) {
  using S = typename A::scheme;
  const std::string name = algorithm.describe() + " " + std::string(std::string_view(S::name)) + ": ";
  const Needs needs = AlgorithmTraits<A>::needs(algorithm);
  if (!covers(needs, A::needs)) return name + "its traits want less than its type";
  ThreadPool pool(3);
  for (const Extents e : {Extents{1, 1}, Extents{3, 20}, Extents{19, 67}, Extents{70, 33}})
    for (const Index dead : {Index{0}, Index{2}})
      for (const int kind : {0, 1, 2}) {  // normal, zeros, one outlier
        Matrix w = kind == 1 ? Matrix(e.rows, e.cols) : normal_matrix(e.rows, e.cols, 5, 0.1f);
        if (kind == 2) w(e.rows - 1, 0) = 30;
        const Matrix before = w;
        const Stats stats = example_stats(needs, example_inputs(3 * e.cols + 2, e.cols, 6, dead));
        const std::string here = name + std::to_string(e.rows) + " x " + std::to_string(e.cols) + ", " + std::to_string(dead) +
                                 " dead inputs, weights of kind " + std::to_string(kind) + ": ";
        const auto q = algorithm.quantize(w.view(), stats, {});
        if (!q) return here + q.error().message;
        if (Violation v = check_quantized(algorithm, w.view(), *q, here); !v.empty()) return v;
        if (!std::equal(before.data(), before.data() + before.extents().size(), w.data())) return here + "the weights changed";
        if (kind == 1 && keeps_zero_v<typename S::format> && relative_error(w.view(), dequantize(q->matrix).view()) != 0)
          return here + "zeros do not stay zeros";
        const auto threaded = algorithm.quantize(w.view(), stats, {.executor = pool});
        if (!threaded || !(threaded->matrix == q->matrix)) return here + "other codes with three threads";
        const auto strict = algorithm.quantize(w.view(), stats, {.strict = true});
        if (strict.ok() != q->report.as_requested())
          return here + "strict mode " + (strict.ok() ? "accepts a fallback" : "refuses: " + strict.error().message);
        if (!strict && strict.error().code != ErrorCode::degraded) return here + "strict mode gives another error than degraded";
      }
  const Stats stats = example_stats(needs, example_inputs(40, 12, 7));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Matrix w = normal_matrix(3, 12, 8);
    w(1, 5) = bad;
    const auto q = algorithm.quantize(w.view(), stats, {});
    if (q || q.error().code != ErrorCode::not_finite) return name + "takes a weight of " + shown(bad);
    if (q.error().message.find("row 1, column 5") == std::string::npos)
      return name + "does not name the place: " + q.error().message;
  }
  if (algorithm.quantize(Matrix(0, 12).view(), stats, {})) return name + "takes a matrix of no rows";
  if (needs != Needs::none) {
    const Matrix w = normal_matrix(3, 12, 8);
    if (algorithm.quantize(w.view(), Stats(12, needs), {})) return name + "takes statistics of no tokens";
    if (algorithm.quantize(w.view(), Stats(12, Needs::none), {})) return name + "takes statistics without what it needs";
    if (algorithm.quantize(normal_matrix(3, 11, 8).view(), stats, {})) return name + "takes statistics of another layer";
  }
  return {};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::testing

#include <anybit/core/macros_end.hpp>
