#pragma once
// Least squares with intervals, for laws of a few coefficients that are fitted to a table of runs.
//
//   b = argmin |y - X b|,   s^2 = |y - X b|^2 / (n - p),   cov b = s^2 (X^T X)^-1
//   interval of b_j: b_j +- t sqrt(cov_jj), t the quantile of Student's distribution with n - p degrees of freedom
//   interval of f(b): f(b) +- t sqrt(g^T cov g), g = df/db (delta method)

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/evaluate/statistics.hpp>

namespace study {

struct Interval {
  double value = 0, low = 0, high = 0;
  bool holds(double x) const { return low <= x && x <= high; }
  bool above(double x) const { return low > x; }
  bool below(double x) const { return high < x; }
};

/// t with P(|T| <= t) = level for `freedom` degrees of freedom, at least 1. With T = sqrt(freedom) tan(a), P is the share of the
/// integral of cos^(freedom - 1) over [0, pi/2] that lies below a.
inline double student_quantile(double level, std::size_t freedom) {
  constexpr int steps = 4000;
  constexpr double half_pi = 1.57079632679489661923;
  const auto power = static_cast<double>(freedom) - 1;
  std::vector<double> below{0};  // Simpson's rule, step by step
  const double width = half_pi / steps;
  const auto f = [&](double a) { return power == 0 ? 1.0 : std::pow(std::max(std::cos(a), 0.0), power); };
  for (int i = 0; i < steps; ++i) {
    const double a = i * width;
    below.push_back(below.back() + width / 6 * (f(a) + 4 * f(a + width / 2) + f(a + width)));
  }
  const double wanted = level * below.back();
  const auto next = std::lower_bound(below.begin() + 1, below.end() - 1, wanted);
  const double from = static_cast<double>(next - below.begin() - 1) * width, rest = wanted - *(next - 1);
  double more = rest / f(from);  // Newton's steps within that of Simpson
  for (int i = 0; i < 4; ++i)
    more -= (more / 6 * (f(from) + 4 * f(from + more / 2) + f(from + more)) - rest) / std::max(f(from + more), 1e-300);
  return std::sqrt(static_cast<double>(freedom)) * std::tan(std::min(from + more, half_pi));
}

/// Rows of features, each with the value that was measured.
struct Table {
  std::vector<std::string> names;  ///< of the features
  std::vector<std::vector<double>> rows{};
  std::vector<double> values{};

  void add(std::vector<double> row, double value) { rows.push_back(std::move(row)), values.push_back(value); }
};

struct Fit {
  std::vector<double> coefficients;
  std::vector<std::vector<double>> covariance;  ///< empty where nothing is left over to estimate it from
  double residual = 0;                          ///< s
  double r_squared = 0;                         ///< 1 - |e|^2 / |y - mean y|^2; 1 where y is constant and met
  std::size_t freedom = 0;                      ///< n - p

  double at(std::span<const double> row) const {
    double sum = 0;
    for (std::size_t j = 0; j < row.size(); ++j) sum += row[j] * coefficients[j];
    return sum;
  }
  /// Of the value at `row`; with `of_a_run` of one more run there, whose own scatter counts too.
  Interval value_at(std::span<const double> row, bool of_a_run, double level = 0.95) const {
    return around(at(row), row, of_a_run ? residual * residual : 0, level);
  }
  Interval interval(std::size_t j, double level = 0.95) const {
    std::vector<double> unit(coefficients.size(), 0.0);
    unit[j] = 1;
    return around(coefficients[j], unit, 0, level);
  }
  /// Of a smooth function of the coefficients, by its central differences.
  Interval interval(const std::function<double(std::span<const double>)>& f, double level = 0.95) const {
    std::vector<double> slope, b = coefficients;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const double here = b[j], step = 1e-5 * std::max(std::abs(here), 1e-3);
      b[j] = here + step;
      const double up = f(b);
      b[j] = here - step;
      slope.push_back((up - f(b)) / (2 * step));
      b[j] = here;
    }
    return around(f(coefficients), slope, 0, level);
  }

 private:
  Interval around(double value, std::span<const double> direction, double more, double level) const {
    constexpr double infinite = std::numeric_limits<double>::infinity();
    if (covariance.empty()) return {value, -infinite, infinite};
    double variance = more;
    for (std::size_t i = 0; i < direction.size(); ++i)
      for (std::size_t j = 0; j < direction.size(); ++j) variance += direction[i] * covariance[i][j] * direction[j];
    const double reach = student_quantile(level, freedom) * std::sqrt(std::max(variance, 0.0));
    return {value, value - reach, value + reach};
  }
};

/// y = X b by Householder's reflections. An error where rows are too few or not finite, or where they cannot tell a feature from
/// those before it.
inline anybit::Result<Fit> fit_linear(const Table& t) {
  using anybit::Error, anybit::ErrorCode;
  const std::size_t n = t.rows.size(), p = t.names.size();
  if (n < p || p == 0)
    return Error{ErrorCode::insufficient_data,
                 std::to_string(n) + " runs for " + std::to_string(p) + " coefficients: add runs, or fit a smaller law"};
  std::vector<std::vector<double>> a = t.rows;
  std::vector<double> y = t.values;
  for (std::size_t r = 0; r < n; ++r) {
    bool finite = a[r].size() == p && std::isfinite(y[r]);
    for (const double x : a[r]) finite = finite && std::isfinite(x);
    if (!finite)
      return Error{ErrorCode::not_finite, "run " + std::to_string(r) + " has a value that is not finite: leave it out"};
  }
  for (std::size_t k = 0; k < p; ++k) {
    double whole = 0, below = 0;
    for (std::size_t r = 0; r < n; ++r) whole += t.rows[r][k] * t.rows[r][k];
    for (std::size_t r = k; r < n; ++r) below += a[r][k] * a[r][k];
    if (!(below > 1e-20 * whole))
      return Error{ErrorCode::insufficient_data,
                   "the runs cannot tell " + t.names[k] + " from the terms before it: add runs in which it varies by itself"};
    const double head = a[k][k] > 0 ? -std::sqrt(below) : std::sqrt(below);
    std::vector<double> v(n, 0.0);  // reflects column k to (head, 0, ..)
    for (std::size_t r = k; r < n; ++r) v[r] = a[r][k];
    v[k] -= head;
    double length = 0;
    for (const double x : v) length += x * x;
    const auto reflect = [&](auto&& at) {
      double dot = 0;
      for (std::size_t r = k; r < n; ++r) dot += v[r] * at(r);
      for (std::size_t r = k; r < n; ++r) at(r) -= 2 * dot / length * v[r];
    };
    for (std::size_t c = k; c < p; ++c) reflect([&](std::size_t r) -> double& { return a[r][c]; });
    reflect([&](std::size_t r) -> double& { return y[r]; });
  }
  const auto back = [&](std::vector<double> z) {  // R b = z
    for (std::size_t k = p; k-- > 0;) {
      for (std::size_t c = k + 1; c < p; ++c) z[k] -= a[k][c] * z[c];
      z[k] /= a[k][k];
    }
    return z;
  };
  Fit out;
  out.coefficients = back({y.begin(), y.begin() + static_cast<std::ptrdiff_t>(p)});
  out.freedom = n - p;
  const double center = anybit::evaluate::mean(t.values);
  double left = 0, whole = 0;
  for (std::size_t r = 0; r < n; ++r) {
    const double e = t.values[r] - out.at(t.rows[r]);
    left += e * e, whole += (t.values[r] - center) * (t.values[r] - center);
  }
  out.r_squared = whole > 0 ? 1 - left / whole : 1;
  if (out.freedom == 0) return out;
  const double variance = left / static_cast<double>(out.freedom);
  out.residual = std::sqrt(variance);
  std::vector<std::vector<double>> inverse;  // columns of R^-1
  for (std::size_t j = 0; j < p; ++j) {
    std::vector<double> unit(p, 0.0);
    unit[j] = 1;
    inverse.push_back(back(std::move(unit)));
  }
  out.covariance.assign(p, std::vector<double>(p, 0.0));
  for (std::size_t i = 0; i < p; ++i)
    for (std::size_t j = 0; j < p; ++j)
      for (std::size_t k = 0; k < p; ++k) out.covariance[i][j] += variance * inverse[k][i] * inverse[k][j];
  return out;
}

/// floor + (top - floor) / (1 + exp(-k (x - middle))).
struct Logistic {
  double floor = 0, top = 0, k = 0, middle = 0;
  double residual = 0;  ///< root of the mean square

  double at(double x) const { return floor + (top - floor) / (1 + std::exp(-k * (x - middle))); }
};

/// By least squares: k and middle from a net that narrows around the best, floor and top from the values by regression. Needs
/// four points or more.
inline anybit::Result<Logistic> fit_logistic(std::span<const double> x, std::span<const double> y) {
  using anybit::Error, anybit::ErrorCode;
  if (x.size() < 4 || x.size() != y.size())
    return Error{ErrorCode::insufficient_data, "a logistic curve needs four points, these are " + std::to_string(x.size())};
  const auto [least, most] = std::minmax_element(x.begin(), x.end());
  double middle = (*least + *most) / 2, log_k = 0.5, reach_middle = (*most - *least) / 2, reach_k = 2;
  Logistic best;
  best.residual = std::numeric_limits<double>::infinity();
  constexpr int net = 12;
  for (int round = 0; round < 24; ++round, reach_middle *= 0.6, reach_k *= 0.6) {
    const double center_middle = middle, center_k = log_k;
    for (int i = -net; i <= net; ++i)
      for (int j = -net; j <= net; ++j) {
        Logistic l{
            .floor = 0, .top = 1, .k = std::exp(center_k + reach_k * j / net), .middle = center_middle + reach_middle * i / net};
        if (l.k > 20 || l.k < 0.1) continue;
        Table t{{"floor", "rise"}};
        for (std::size_t r = 0; r < x.size(); ++r) t.add({1, l.at(x[r])}, y[r]);
        const anybit::Result<Fit> fit = fit_linear(t);
        if (!fit) continue;
        const double residual = fit->residual * std::sqrt(static_cast<double>(fit->freedom) / static_cast<double>(x.size()));
        if (residual >= best.residual) continue;
        l.floor = fit->coefficients[0], l.top = l.floor + fit->coefficients[1], l.residual = residual;
        best = l, middle = l.middle, log_k = std::log(l.k);
      }
  }
  if (!std::isfinite(best.residual))
    return Error{ErrorCode::insufficient_data, "no logistic curve fits: the points are all alike"};
  return best;
}

/// Spearman's: the correlation of ranks, ties sharing theirs.
inline double rank_correlation(std::span<const double> a, std::span<const double> b) {
  const auto ranks = [](std::span<const double> v) {
    std::vector<double> out;
    for (const double x : v) {
      double less = 0, same = 0;
      for (const double other : v) less += other < x ? 1 : 0, same += other == x ? 1 : 0;
      out.push_back(less + (same + 1) / 2);
    }
    return out;
  };
  const std::vector<double> p = ranks(a), q = ranks(b);
  const double mean_p = anybit::evaluate::mean(p), mean_q = anybit::evaluate::mean(q);
  double pq = 0, pp = 0, qq = 0;
  for (std::size_t i = 0; i < p.size(); ++i)
    pq += (p[i] - mean_p) * (q[i] - mean_q), pp += (p[i] - mean_p) * (p[i] - mean_p), qq += (q[i] - mean_q) * (q[i] - mean_q);
  return pp > 0 && qq > 0 ? pq / std::sqrt(pp * qq) : 0;
}

/// Mean of a few values with the interval of Student's distribution.
inline Interval mean_interval(std::span<const double> x, double level = 0.95) {
  const double center = anybit::evaluate::mean(x);
  constexpr double infinite = std::numeric_limits<double>::infinity();
  if (x.size() < 2) return {center, -infinite, infinite};
  double sum = 0;
  for (const double v : x) sum += (v - center) * (v - center);
  const auto n = static_cast<double>(x.size());
  const double reach = student_quantile(level, x.size() - 1) * std::sqrt(sum / (n - 1) / n);
  return {center, center - reach, center + reach};
}

}  // namespace study
