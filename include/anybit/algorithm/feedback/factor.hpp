#pragma once
// The factor of GPTQ's error feedback, and the ladder of dampings that yields one for every Hessian. Real is the Hessian's
// type: double where it comes from Stats.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/core/stable_sort.hpp>
#include <anybit/dense/cholesky.hpp>
#include <anybit/recipe/report.hpp>

namespace anybit::gptq {
inline namespace ANYBIT_CODE {

/// With H + damping = R R^T, R upper triangular, the objective of a row's error d = w - q is
///   d (H + damping) d^T = sum_k R_kk^2 (d_k + sum_{j<k} d_j F_jk)^2,   F = R diag(R)^-1,
/// so that q_k is best chosen nearest to w_k + sum_{j<k} d_j F_jk. These are the codes of GPTQ's published loop, whose
/// matrix U = chol(H^-1) is R^-1, with one factorization instead of Cholesky, inverse and Cholesky. Matrices are stored
/// transposed, so that what column k depends on is a row.
struct Factor {
  Index size = 0;
  AlignedBuffer feedback;        ///< F^T, row-major floats; only entries (k, j < k) are used
  std::vector<float> weight;     ///< R_kk^2 over the largest of them: what a squared rounding error of column k costs
  double unit = 1;               ///< the largest R_kk^2
  double damping = 0;            ///< what was added to the diagonal
  std::vector<double> pivots{};  ///< R_kk: error e of column k, made up for as well as later columns can, costs e^2 R_kk^2
  std::vector<float> drift{};    ///< GPTAQ's P, as F, or empty; see find_drift()
  ConstMatrix transposed() const { return {feedback.as<float>(), size, size}; }
  /// F_jk, 0 <= j < k.
  const float* column(Index k) const { return feedback.as<float>() + k * size; }
};

namespace detail {

/// A Hessian whose rows and columns are processed in another order, and whose diagonal is replaced. Symmetric; only entries
/// left of the diagonal are read.
template <class Real>
struct OrderedHessian {
  MatrixView<const Real> h;
  std::span<const Index> order;      ///< the original column at each processed position
  std::span<const double> diagonal;  ///< by original column
};

/// nullopt if H + damping has no usable factor in Real, or its feedback none in float. In float a factor is usable if it loses no
/// more than three of seven digits to cancellation: what columns lose by an error in F is of second order in that error.
template <class Real, class Stored>
std::optional<Factor> try_factor(const OrderedHessian<Stored>& from, double damping) {
  constexpr bool narrow = std::is_same_v<Real, float> && !std::is_same_v<Stored, float>;
  constexpr double most_cancelled = 1000;
  const Index n = from.h.rows;
  const auto at = [](Index i) { return static_cast<std::size_t>(i); };
  const auto diagonal = [&](Index k) { return from.diagonal[at(from.order[at(k)])] + damping; };
  double unit = 1;  // so that any Hessian fits a float
  if (narrow)
    for (Index k = 0; k < n; ++k) unit = std::max(k == 0 ? 0.0 : unit, diagonal(k));
  if (!(unit > 0)) return std::nullopt;
  const auto square = [&](std::size_t size) { return AlignedBuffer(at(n * n) * size, AlignedBuffer::Uninitialized{}); };
  Factor f{n, square(sizeof(float)), std::vector<float>(at(n)), 1, damping, {}};
  AlignedBuffer wide = std::is_same_v<Real, float> ? AlignedBuffer() : square(sizeof(Real));
  const MatrixView<Real> r((std::is_same_v<Real, float> ? f.feedback : wide).template as<Real>(), n, n);
  const auto scale = static_cast<Stored>(1 / unit);
  for (Index k = 0; k < n; ++k) {
    const Stored* const row = from.h.row(from.order[at(k)]).data();
    for (Index j = 0; j < k; ++j) r(k, j) = static_cast<Real>(narrow ? row[from.order[at(j)]] * scale : row[from.order[at(j)]]);
    r(k, k) = static_cast<Real>(diagonal(k) / unit);
  }
  if (!dense::cholesky_from_last(r)) return std::nullopt;
  double largest = 0;
  for (Index k = 0; k < n; ++k) {
    const auto pivot = static_cast<double>(r(k, k));
    if (narrow && diagonal(k) > most_cancelled * pivot * pivot * unit) return std::nullopt;
    f.pivots.push_back(pivot * std::sqrt(unit));
    largest = std::max(largest, pivot);
  }
  f.unit = largest * largest * unit;
  for (Index k = 0; k < n; ++k) {
    const double share = static_cast<double>(r(k, k)) / largest;
    f.weight[at(k)] = static_cast<float>(share * share);
  }
  float most = 0;
  for (Index k = 0; k < n; ++k) {
    float* const column = f.feedback.as<float>() + k * n;
    const Real inverse = 1 / r(k, k);
    for (Index j = 0; j < k; ++j) {
      column[j] = static_cast<float>(r(k, j) * inverse);
      most = std::max(most, std::fabs(column[j]));
      if (is_nan(column[j])) return std::nullopt;
    }
  }
  if (!is_finite(most)) return std::nullopt;
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
  if (!is_within(damp, 0, 1) || damp == 0)
    return Error{ErrorCode::invalid_argument,
                 who + ": damp is " + detail::number(damp) + "; it must lie above 0, up to 1 (0.01 is usual)"};
  if (block < 1)
    return Error{ErrorCode::invalid_argument,
                 who + ": block is " + std::to_string(block) + "; it must be at least 1 (128 is usual)"};
  if (!is_finite(dead_diagonal) || dead_diagonal < 0)
    return Error{ErrorCode::invalid_argument,
                 who + ": dead_diagonal is " + detail::number(dead_diagonal) + "; it must be 0 (the mean) or above"};
  return Ok{};
}

/// Rungs: damp times the mean of the diagonal; twice that again and again up to the mean itself; then 1e-6 to 0.1 of the
/// largest diagonal entry on top. Every rung but the first goes into the report; nullopt if none holds. For matrices whose
/// factorization takes a while the first is tried in float before it is in Real: half the time.
template <class Real>
std::optional<Factor> damped_factor(const detail::OrderedHessian<Real>& h, double damp, Report& report) {
  double mean = 0, largest = 0;
  for (const double d : h.diagonal) {
    mean += d / static_cast<double>(h.diagonal.size());
    largest = std::max(largest, std::fabs(d));
  }
  const auto attempt = [&](double damping, bool asked) {
    auto f = detail::try_factor<Real>(h, damping);
    if (f && !asked)
      report.fallbacks.push_back("the Hessian is not positive definite at damp " + detail::number(damp) + ": " +
                                 detail::number(damping) + " was added to its diagonal instead of " +
                                 detail::number(damp * mean));
    return f;
  };
  constexpr Index large = 2048;
  if constexpr (!std::is_same_v<Real, float>)
    if (h.h.rows >= large)
      if (auto f = detail::try_factor<float>(h, damp * mean)) return f;
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
    anybit::stable_sort(order.begin(), order.end(), larger);
    return order;
  }
  const auto n = static_cast<Index>(order.size());
  std::vector<Index> first;  // of each group, after sorting its columns: its largest
  for (Index begin = 0; begin < n; begin += group) {
    anybit::stable_sort(order.begin() + begin, order.begin() + std::min(begin + group, n), larger);
    first.push_back(begin);
  }
  anybit::stable_sort(first.begin(), first.end(), [&](Index a, Index b) {
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
  Index dead = 0;  ///< inputs that were 0 on all tokens
};

/// Dead inputs replaced, columns ordered, the factor found; nullopt, with the reason in the report, if there is none.
template <class Real>
std::optional<Prepared> prepare(ConstMatrix w, MatrixView<const Real> h, double damp, double dead_diagonal, ColumnOrder kind,
                                Index group, Report& report) {
  const Index n = w.cols;
  const auto at = [](Index i) { return static_cast<std::size_t>(i); };
  std::vector<double> diagonal(at(n));
  std::vector<bool> alive(at(n));
  Index dead = 0;
  double sum = 0;
  for (Index j = 0; j < n; ++j) {
    diagonal[at(j)] = static_cast<double>(h(j, j));
    sum += diagonal[at(j)];
    alive[at(j)] = h(j, j) != 0;
    dead += !alive[at(j)];
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

  Prepared p{column_order(diagonal, kind, group), Matrix(w.rows, n), {}, dead};
  for (Index r = 0; r < w.rows; ++r)
    for (Index k = 0; k < n; ++k) p.weights(r, k) = alive[at(p.order[at(k)])] ? w(r, p.order[at(k)]) : 0.0f;
  auto factor = damped_factor<Real>({h, p.order, diagonal}, damp, report);
  if (!factor) {
    report.fallbacks.push_back("the Hessian has no factor at any damping");
    return std::nullopt;
  }
  p.factor = *std::move(factor);
  return p;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::gptq

#include <anybit/core/macros_end.hpp>
