#pragma once
// Wanda (Sun et al., 2023): removes the smallest |w_ij| * ||X_j||. docs/methods/pruning.md; readable twin: reference/wanda.hpp.

#include <anybit/prune/pruner.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

struct Wanda {
  static constexpr Needs needs = Needs::mean_square;

  Sparsity sparsity{};
  /// The paper compares the weights of a row; Compare::row_share is the variant of its code.
  Compare compare = Compare::row;

  std::string describe() const { return "wanda(" + anybit::describe(sparsity, compare, Compare::row) + ")"; }

  template <WeightsView W>
  Result<Pruned> prune(const W& weights, const Stats& stats, const QuantizeOptions& options = {}) const {
    const ConstMatrix w = weights;
    ANYBIT_TRY_STATUS(prune::check_sparsity(sparsity, "wanda"));
    ANYBIT_TRY_STATUS(grid::check_weights(w));
    ANYBIT_TRY_STATUS(recipe::check_stats(stats, needs, w.cols, "wanda"));
    // ||X_j|| up to a factor that all channels share, which decides nothing.
    std::vector<float> norm = stats.mean_square();
    bool all_dead = true;
    for (float& v : norm) {
      v = std::sqrt(v);
      all_dead = all_dead && v == 0;
    }
    Report report;
    report.requested = report.done = describe();
    if (all_dead) {
      report.fallbacks.push_back("every input was 0 in calibration: magnitudes alone decided");
      report.done = "magnitude(" + sparsity.describe() + ")";
      norm.clear();
    }
    ANYBIT_TRY_STATUS(check_strict(report, options));
    return prune::without<>(w, prune::select_smallest(w, norm, sparsity, compare, options.executor), stats, std::move(report),
                            options.executor);
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit
