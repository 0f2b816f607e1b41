#pragma once
// Any pruning method, then rounding of the remaining weights to nearest.

#include <string>
#include <utility>

#include <anybit/prune/pruner.hpp>
#include <anybit/recipe/algorithm.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// PrunedNearest<Pruner, Scheme> or PrunedNearest<Pruner, Format, Granularity, ScaleStore, Layout>: an algorithm for recipes.
template <class P, class... Parts>
struct PrunedNearest {
  static_assert(Pruner<P>, "anybit: the first argument of PrunedNearest is the pruning method: Magnitude, Wanda or SparseGpt");
  static_assert(sizeof...(Parts) > 0, "anybit: PrunedNearest needs a scheme after the pruning method");
  using scheme = scheme_of_t<Parts...>;
  static_assert(keeps_zero_v<typename scheme::format>,
                "anybit: pruned weights must stay 0, and this format has no level 0; choose another");
  static constexpr Needs needs = P::needs;

  P pruner{};
  Range range = Range::format;
  Search search = Search::none;
  ShrinkSearch shrink{};

  GridFit grid_fit() const { return {range, search, shrink}; }
  std::string describe() const {
    const std::string grids = grid_fit().describe();
    return pruner.describe() + " then nearest" + (grids.empty() ? "" : "(" + grids + ")");
  }

  /// Grids are found on what pruning left; its zeros decode to 0.
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& options = {}) const {
    ANYBIT_TRY_STATUS(check_range<typename scheme::format>(range));
    ANYBIT_TRY_STATUS(check_search(shrink));
    ANYBIT_TRY_STATUS(grid::check_limits(rounding_ops_v<scheme>, w, options.clip_limits));
    ANYBIT_TRY(Pruned pruned, pruner.prune(w, stats, options));
    Quantized<scheme> result{QuantizedMatrix<scheme>(w.extents()), std::move(pruned.report)};
    Report& report = result.report;
    const std::string name{std::string_view(scheme::name)};
    report.done = (report.done == report.requested ? describe() : report.done + " then nearest") + " " + name;
    report.requested = describe() + " " + name;
    const ConstMatrix left = pruned.weights.view();
    grid::fit_groups(left, grid_fit(), options.clip_limits, {}, AnyQuantized(result.matrix), report, options.executor);
    grid::encode_nearest(left, options.clip_limits, AnyQuantized(result.matrix), options.executor);
    result.matrix.provenance = describe();
    ANYBIT_TRY_STATUS(check_strict(report, options));
    recipe::measure(w, AnyQuantized(result.matrix), {}, stats, report, options.executor);
    return result;
  }
};

template <class P, class... Parts>
struct AlgorithmTraits<PrunedNearest<P, Parts...>> : AlgorithmDefaults<PrunedNearest<P, Parts...>> {
  static GridFit grid_fit(const PrunedNearest<P, Parts...>& a) { return a.grid_fit(); }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit
