#pragma once
// Linear probes: logistic regression with an L2 penalty, the optimum that scikit-learn's LogisticRegression aims at.
//
//   minimize  |w|^2 / 2 + C sum_i log(1 + exp(-y_i (w . x_i + b))),   y_i = 1 or -1;  b is not penalized
//
// by Newton's method with step halving. The objective is strictly convex, so the optimum is one point and no seed matters.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include <anybit/core/stable_sort.hpp>
#include <anybit/dense/cholesky.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/steer/labelled.hpp>

namespace anybit::steer {
inline namespace ANYBIT_ABI {

struct Probe {
  std::vector<double> weight{};  ///< (width)
  double intercept = 0;
};

struct ProbeOptions {
  double c = 1;             ///< C, the inverse strength of the penalty
  int most_steps = 100;     ///< of Newton's method; ten are usual
  double tolerance = 1e-8;  ///< largest element of the gradient at the end, relative to 1 + C rows
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::steer

namespace anybit::steer {
inline namespace ANYBIT_CODE {

/// w . x + b for each row of x (rows, width); above 0 the probe says 1.
inline std::vector<double> decisions(const Probe& p, ConstMatrix x) {
  ANYBIT_CHECK(x.cols == static_cast<Index>(p.weight.size()), "steer::decisions: activations of another width than the probe");
  std::vector<double> out;
  for (Index r = 0; r < x.rows; ++r) {
    double sum = p.intercept;
    for (std::size_t j = 0; j < p.weight.size(); ++j) sum += p.weight[j] * static_cast<double>(x.row(r)[j]);
    out.push_back(sum);
  }
  return out;
}

/// Share of rows for which the probe is right.
inline double accuracy(const Probe& p, ConstMatrix x, std::span<const Label> labels) {
  const std::vector<double> d = decisions(p, x);
  std::size_t right = 0;
  for (std::size_t i = 0; i < d.size(); ++i) right += (d[i] > 0) == (labels[i] == 1);
  return d.empty() ? 0 : static_cast<double>(right) / static_cast<double>(d.size());
}

namespace detail {

/// Probe as one vector, the intercept last, and what Newton's method needs at a point of it.
class LogisticObjective {
 public:
  LogisticObjective(ConstMatrix x, std::span<const Label> labels, double c) : n_(x.rows), width_(x.cols + 1), c_(c) {
    rows_.resize(static_cast<std::size_t>(n_ * width_));
    for (Index r = 0; r < n_; ++r) {
      double* const to = rows_.data() + r * width_;
      for (Index j = 0; j + 1 < width_; ++j) to[j] = static_cast<double>(x(r, j));
      to[width_ - 1] = 1;
      y_.push_back(labels[static_cast<std::size_t>(r)] == 1 ? 1 : -1);
    }
  }
  Index width() const { return width_; }

  double value(std::span<const double> w) const {
    double sum = 0;
    for (std::size_t j = 0; j + 1 < w.size(); ++j) sum += w[j] * w[j] / 2;
    for (Index r = 0; r < n_; ++r) {
      const double margin = y_[static_cast<std::size_t>(r)] * product(r, w);
      sum += c_ * (margin > 0 ? std::log1p(std::exp(-margin)) : std::log1p(std::exp(margin)) - margin);
    }
    return sum;
  }
  /// gradient (width); hessian (width, width) if it has rows.
  void derivatives(std::span<const double> w, std::span<double> gradient, MatrixView<double> hessian) const {
    std::copy(w.begin(), w.end(), gradient.begin());
    gradient.back() = 0;
    std::vector<double> scaled(rows_);
    for (Index r = 0; r < n_; ++r) {
      const double y = y_[static_cast<std::size_t>(r)], p = 1 / (1 + std::exp(y * product(r, w)));  // of the wrong label
      double* const row = scaled.data() + r * width_;
      for (Index j = 0; j < width_; ++j) gradient[static_cast<std::size_t>(j)] -= c_ * y * p * row[j];
      const double root = std::sqrt(c_ * p * (1 - p));
      for (Index j = 0; j < width_; ++j) row[j] *= root;
    }
    std::fill(hessian.data, hessian.data + hessian.rows * hessian.stride, 0.0);
    const MatrixView<const double> factor(scaled.data(), n_, width_);
    dense::add_transposed_product<double>(factor, factor, hessian, 1);
    for (Index j = 0; j + 1 < width_; ++j) hessian(j, j) += 1;
  }

 private:
  double product(Index r, std::span<const double> w) const {
    double sum = 0;
    for (std::size_t j = 0; j < w.size(); ++j) sum += w[j] * rows_[static_cast<std::size_t>(r * width_) + j];
    return sum;
  }

  Index n_, width_;
  double c_;
  std::vector<double> rows_, y_;
};

/// x with A x = b, where A = L^T L and l holds L in its lower triangle; b becomes x.
inline void solve_from_last(MatrixView<const double> l, std::span<double> b) {
  const auto n = static_cast<Index>(b.size());
  for (Index i = n - 1; i >= 0; --i) {  // L^T y = b
    const double y = b[static_cast<std::size_t>(i)] / l(i, i);
    b[static_cast<std::size_t>(i)] = y;
    for (Index j = 0; j < i; ++j) b[static_cast<std::size_t>(j)] -= l(i, j) * y;
  }
  for (Index i = 0; i < n; ++i) {  // L x = y
    double sum = b[static_cast<std::size_t>(i)];
    for (Index j = 0; j < i; ++j) sum -= l(i, j) * b[static_cast<std::size_t>(j)];
    b[static_cast<std::size_t>(i)] = sum / l(i, i);
  }
}

}  // namespace detail

/// Fits x (rows, width). The steps cost rows * width^2 multiplications each.
inline Result<Probe> fit_probe(ConstMatrix x, std::span<const Label> labels, const ProbeOptions& options = {}) {
  using io::detail::text;
  if (!(is_finite(options.c) && options.c > 0))
    return {ErrorCode::invalid_argument, text("steer: probe: C is ", options.c, ": it must be above 0")};
  ANYBIT_TRY_STATUS(check_labelled("steer: probe", x, labels));
  const detail::LogisticObjective f(x, labels, options.c);
  const auto width = static_cast<std::size_t>(f.width());
  std::vector<double> w(width), gradient(width), step(width), trial(width), hessian_data(width * width);
  const MatrixView<double> hessian(hessian_data.data(), f.width(), f.width());
  const double goal = options.tolerance * (1 + options.c * static_cast<double>(x.rows));
  double value = f.value(w), steepest = 0;
  for (int i = 0; i < options.most_steps; ++i) {
    f.derivatives(w, gradient, hessian);
    steepest = 0;
    for (const double g : gradient) steepest = std::max(steepest, std::abs(g));
    if (steepest <= goal) return Probe{{w.begin(), w.end() - 1}, w.back()};
    if (!dense::cholesky_from_last(hessian)) break;
    step = gradient;
    detail::solve_from_last(hessian, step);
    double share = 1, next = 0;
    for (int halving = 0; halving < 50; ++halving, share /= 2) {
      for (std::size_t j = 0; j < width; ++j) trial[j] = w[j] - share * step[j];
      next = f.value(trial);
      if (next < value) break;
    }
    if (!(next < value)) return Probe{{w.begin(), w.end() - 1}, w.back()};  // rounding hides any further gain
    w = trial, value = next;
  }
  return {ErrorCode::numerical, text("steer: probe: no optimum after ", options.most_steps, " steps, the gradient is still ",
                                     steepest, ": scale the activations down or choose a smaller C")};
}

/// Places of the values from the largest; of equal ones the lower place first.
inline std::vector<std::size_t> ranking(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  anybit::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] > values[b]; });
  return order;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
