#pragma once
// The concept of a pruning method: a small aggregate of its rule and the wanted share or pattern.

#include <concepts>
#include <string>

#include <anybit/calibrate/stats.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/grid/group_grids.hpp>
#include <anybit/prune/mask.hpp>
#include <anybit/prune/select.hpp>
#include <anybit/recipe/objective.hpp>
#include <anybit/recipe/report.hpp>
#include <anybit/recipe/siblings.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// A matrix after pruning. The report's bits_per_weight is 0: nothing is packed yet.
struct Pruned {
  Matrix weights;  ///< 0 wherever the mask prunes
  Mask mask;
  Report report;
};

/// needs       the statistics it reads
/// describe()  its name and options: "wanda(50%)"
/// prune       bad data is an error that names the place. A template in the type of w, so that only programs that prune compile
/// it.
template <class P>
concept Pruner = requires(const P p, ConstMatrix w, const Stats& stats, const QuantizeOptions& options) {
  { P::needs } -> std::convertible_to<Needs>;
  { p.describe() } -> std::convertible_to<std::string>;
  { p.prune(w, stats, options) } -> std::same_as<Result<Pruned>>;
};

/// The argument of prune(): a view of floats.
template <class W>
concept WeightsView = std::is_convertible_v<const W&, ConstMatrix>;

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit::prune {
inline namespace ANYBIT_CODE {

/// w without the weights of the mask; the others stay as they are. Errors go into the report.
template <class Wide = double>
Pruned without(ConstMatrix w, Mask mask, const Stats& stats, Report report, ExecutorRef executor) {
  Pruned p{Matrix(w), std::move(mask), std::move(report)};
  apply(p.mask, p.weights.view());
  recipe::measure_weights<Wide>(w, p.weights.view(), stats, p.report, executor);
  return p;
}

/// Whether `mine` is as close as `other`; no rows or a weight that is not finite means it is not.
template <class Metric>
bool no_worse(const Metric& metric, ConstMatrix mine, ConstMatrix other) {
  if (mine.rows == 0 || find_not_finite(mine).first >= 0) return false;
  return metric.error(mine) < 0.9 * metric.error(other) || metric.exact_error(mine) <= metric.exact_error(other);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::prune
