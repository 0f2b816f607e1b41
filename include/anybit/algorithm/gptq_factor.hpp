#pragma once
// The factor behind GPTQ's error feedback, and the ladder that gets one from any Hessian. Real is the Hessian's type: double
// where it comes from Stats.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <Eigen/Cholesky>

#include <anybit/calibrate/report.hpp>
#include <anybit/core/matrix.hpp>

namespace anybit::gptq::inline ANYBIT_CODE {

/// With H + damping = R R^T, R upper triangular, the objective of a row's error d = w - q is
///   d (H + damping) d^T = sum_k R_kk^2 (d_k + sum_{j<k} d_j F_jk)^2,   F = R diag(R)^-1,
/// so that q_k is best chosen nearest to w_k + sum_{j<k} d_j F_jk. These are the codes of GPTQ's published loop, whose
/// matrix U = chol(H^-1) is R^-1, with one factorization instead of Cholesky, inverse and Cholesky.
struct Factor {
  Index size = 0;
  std::vector<float> feedback;   ///< F, row-major; only entries (j, k > j) are used
  std::vector<float> weight;     ///< R_kk^2 over the largest of them: what a squared rounding error of column k costs
  double unit = 1;               ///< the largest R_kk^2
  double damping = 0;            ///< what was added to the diagonal
  std::vector<double> pivots{};  ///< R_kk: error e of column k, made up for as well as later columns can, costs e^2 R_kk^2
  std::vector<float> drift{};    ///< GPTAQ's P, row-major, or empty; see find_drift()
  const float* row(Index j) const { return feedback.data() + j * size; }
};

namespace detail {

/// nullopt if H + damping has no usable factor in Real, or its feedback none in float.
template <class Real>
std::optional<Factor> try_factor(MatrixView<const Real> h, double damping) {
  using Square = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Index n = h.rows;
  // Cholesky gives L L^T with L lower; reversing the order of rows and columns before and after makes it R R^T.
  Square reversed(n, n);
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j <= i; ++j) reversed(i, j) = h(n - 1 - j, n - 1 - i) + (i == j ? static_cast<Real>(damping) : Real{0});
  const Eigen::LLT<Eigen::Ref<Square>, Eigen::Lower> llt(reversed);
  if (llt.info() != Eigen::Success) return std::nullopt;
  Factor f{n, std::vector<float>(static_cast<std::size_t>(n * n)), std::vector<float>(static_cast<std::size_t>(n)), 1, damping,
           {}};
  Real largest = 0;
  for (Index k = 0; k < n; ++k) {
    const Real pivot = reversed(n - 1 - k, n - 1 - k);
    if (!(pivot > 0) || !std::isfinite(pivot)) return std::nullopt;
    f.pivots.push_back(static_cast<double>(pivot));
    largest = std::max(largest, pivot);
  }
  f.unit = static_cast<double>(largest) * static_cast<double>(largest);
  for (Index k = 0; k < n; ++k) {
    const auto share = static_cast<double>(reversed(n - 1 - k, n - 1 - k)) / static_cast<double>(largest);
    f.weight[static_cast<std::size_t>(k)] = static_cast<float>(share * share);
  }
  for (Index j = 0; j < n; ++j)
    for (Index k = j + 1; k < n; ++k) {
      const auto value = static_cast<float>(reversed(n - 1 - j, n - 1 - k) / reversed(n - 1 - k, n - 1 - k));
      if (!std::isfinite(value)) return std::nullopt;
      f.feedback[static_cast<std::size_t>(j * n + k)] = value;
    }
  return f;
}

inline std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", x);
  return text;
}

}  // namespace detail

/// Options that every method on this factor has.
inline Status check_options(const std::string& who, double damp, Index block, double dead_diagonal) {
  if (!(damp > 0 && damp <= 1))
    return Error{ErrorCode::invalid_argument,
                 who + ": damp is " + detail::number(damp) + "; it must lie above 0, up to 1 (0.01 is usual)"};
  if (block < 1)
    return Error{ErrorCode::invalid_argument,
                 who + ": block is " + std::to_string(block) + "; it must be at least 1 (128 is usual)"};
  if (!(dead_diagonal >= 0 && std::isfinite(dead_diagonal)))
    return Error{ErrorCode::invalid_argument,
                 who + ": dead_diagonal is " + detail::number(dead_diagonal) + "; it must be 0 (the mean) or above"};
  return Ok{};
}

/// Rungs: damp times the mean of the diagonal; twice that again and again up to the mean itself; then 1e-6 to 0.1 of the
/// largest diagonal entry on top. Every rung but the first goes into the report; nullopt if none holds.
template <class Real>
std::optional<Factor> damped_factor(MatrixView<const Real> h, double damp, Report& report) {
  double mean = 0, largest = 0;
  for (Index i = 0; i < h.rows; ++i) {
    mean += static_cast<double>(h(i, i)) / static_cast<double>(h.rows);
    largest = std::max(largest, std::fabs(static_cast<double>(h(i, i))));
  }
  const auto attempt = [&](double damping, bool asked) {
    auto f = detail::try_factor<Real>(h, damping);
    if (f && !asked)
      report.fallbacks.push_back("the Hessian is not positive definite at damp " + detail::number(damp) + ": " +
                                 detail::number(damping) + " was added to its diagonal instead of " +
                                 detail::number(damp * mean));
    return f;
  };
  if (auto f = attempt(damp * mean, true)) return f;
  double raised = damp;
  while (raised < 1) {
    raised = std::min(2 * raised, 1.0);
    if (auto f = attempt(raised * mean, false)) return f;
  }
  for (double floor = 1e-6; floor < 0.5; floor *= 10)
    if (auto f = attempt(std::fabs(mean) + floor * largest, false)) return f;
  return std::nullopt;
}

enum class ColumnOrder {
  natural,
  act,          ///< the largest diagonal entries of the Hessian first
  group_aware,  ///< the same inside every group; groups by their largest entry, each in one piece
};

/// The original column at each processed position. `group` is the width of a group of original columns.
inline std::vector<Index> column_order(std::span<const double> diagonal, ColumnOrder kind, Index group) {
  std::vector<Index> order(diagonal.size());
  std::iota(order.begin(), order.end(), Index{0});
  if (kind == ColumnOrder::natural) return order;
  const auto larger = [&](Index a, Index b) {
    return diagonal[static_cast<std::size_t>(a)] > diagonal[static_cast<std::size_t>(b)];
  };
  if (kind == ColumnOrder::act) {
    std::stable_sort(order.begin(), order.end(), larger);
    return order;
  }
  const auto n = static_cast<Index>(order.size());
  std::vector<Index> first;  // of each group, after sorting its columns: its largest
  for (Index begin = 0; begin < n; begin += group) {
    std::stable_sort(order.begin() + begin, order.begin() + std::min(begin + group, n), larger);
    first.push_back(begin);
  }
  std::stable_sort(first.begin(), first.end(), [&](Index a, Index b) {
    return larger(order[static_cast<std::size_t>(a)], order[static_cast<std::size_t>(b)]);
  });
  std::vector<Index> sorted;
  sorted.reserve(order.size());
  for (const Index begin : first) sorted.insert(sorted.end(), order.begin() + begin, order.begin() + std::min(begin + group, n));
  return sorted;
}

/// Weights and factor in the order in which columns are processed.
struct Prepared {
  std::vector<Index> order;  ///< original column at each processed position
  Matrix weights;            ///< those of dead inputs are 0
  Factor factor;
};

/// Dead inputs replaced, columns ordered, the factor found; nullopt, with the reason in the report, if there is none.
template <class Real>
std::optional<Prepared> prepare(ConstMatrix w, MatrixView<const Real> h, double damp, double dead_diagonal, ColumnOrder kind,
                                Index group, Report& report) {
  const Index n = w.cols;
  const auto at = [](Index i) { return static_cast<std::size_t>(i); };
  std::vector<double> diagonal(at(n));
  Index dead = 0;
  double sum = 0;
  for (Index j = 0; j < n; ++j) {
    diagonal[at(j)] = static_cast<double>(h(j, j));
    sum += diagonal[at(j)];
    dead += h(j, j) == 0;
  }
  if (dead == n) {
    report.fallbacks.push_back("every input was 0 in calibration");
    return std::nullopt;
  }
  if (dead > 0)
    report.fallbacks.push_back(std::to_string(dead) + " of " + std::to_string(n) +
                               " inputs were 0 on all calibration tokens; their weights were rounded from 0");
  for (double& d : diagonal)
    if (d == 0) d = dead_diagonal > 0 ? dead_diagonal : sum / static_cast<double>(n - dead);

  Prepared p{column_order(diagonal, kind, group), Matrix(w.rows, n), {}};
  for (Index r = 0; r < w.rows; ++r)
    for (Index k = 0; k < n; ++k) p.weights(r, k) = h(p.order[at(k)], p.order[at(k)]) == 0 ? 0.0f : w(r, p.order[at(k)]);
  std::vector<Real> ordered(at(n * n));
  for (Index i = 0; i < n; ++i)
    for (Index k = 0; k < n; ++k)
      ordered[at(i * n + k)] = i == k ? static_cast<Real>(diagonal[at(p.order[at(i)])]) : h(p.order[at(i)], p.order[at(k)]);
  auto factor = damped_factor<Real>({ordered.data(), n, n}, damp, report);
  if (!factor) {
    report.fallbacks.push_back("the Hessian has no factor at any damping");
    return std::nullopt;
  }
  p.factor = *std::move(factor);
  return p;
}

}  // namespace anybit::gptq::inline ANYBIT_CODE
