#pragma once
// Magnitude pruning: removes the smallest weights. See docs/methods/pruning.md. Readable twin: reference/pruning_masks.hpp.

#include <anybit/prune/pruner.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

struct Magnitude {
  static constexpr Needs needs = Needs::none;

  Sparsity sparsity{};
  Compare compare = Compare::matrix;

  std::string describe() const { return "magnitude(" + anybit::describe(sparsity, compare, Compare::matrix) + ")"; }

  /// Statistics are read only for the report's output error, if they hold a Hessian.
  template <WeightsView W>
  Result<Pruned> prune(const W& weights, const Stats& stats = {}, const QuantizeOptions& options = {}) const {
    const ConstMatrix w = weights;
    ANYBIT_TRY_STATUS(prune::check_sparsity(sparsity, "magnitude"));
    ANYBIT_TRY_STATUS(grid::check_weights(w));
    Report report;
    report.requested = report.done = describe();
    return prune::without<>(w, prune::select_smallest(w, {}, sparsity, compare, options.executor), stats, std::move(report),
                            options.executor);
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit
