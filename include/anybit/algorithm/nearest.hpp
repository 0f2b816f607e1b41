#pragma once
// Rounds each weight to nearest on its group's grid. See docs/methods/nearest.md. Readable twin: reference/nearest.hpp.

#include <anybit/grid/group_grids.hpp>
#include <anybit/recipe/algorithm.hpp>
#include <anybit/recipe/objective.hpp>
#include <anybit/tensor/pack.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {
/// Nearest<Scheme> or Nearest<Format, Granularity, ScaleStore, Layout>, the latter with Scheme's defaults.
template <class... Parts>
struct Nearest {
  static_assert(sizeof...(Parts) > 0,
                "anybit: Nearest needs a scheme: Nearest<Scheme> or Nearest<Format, Granularity, ScaleStore, Layout>");
  using scheme = scheme_of_t<Parts...>;
  static constexpr Needs needs = Needs::none;

  Range range = Range::format;
  Search search = Search::none;
  ShrinkSearch shrink{};
  /// Multiplies errors in the search by the mean square of their input channel; wants Needs::mean_square.
  bool weighted = false;
  HalfQuadratic half_quadratic{};

  GridFit grid_fit() const { return {range, search, shrink, half_quadratic}; }
  std::string describe() const {
    const std::string grids = grid_fit().describe(weighted);
    return grids.empty() ? "nearest" : "nearest(" + grids + ")";
  }

  /// Statistics are read only if `weighted`, and for the report's output error if they hold a Hessian.
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats = {}, const QuantizeOptions& options = {}) const {
    ANYBIT_TRY_STATUS(grid::check_weights(w));
    ANYBIT_TRY_STATUS(grid::check_limits(rounding_ops_v<scheme>, w, options.clip_limits));
    ANYBIT_TRY_STATUS(check_range<typename scheme::format>(range));
    ANYBIT_TRY_STATUS(check_search(shrink));
    ANYBIT_TRY_STATUS(check_search(half_quadratic));
    std::vector<float> importance;
    if (weighted) {
      if (!stats.has(Needs::mean_square) || stats.inputs() != w.cols || stats.tokens() < 1)
        return Error{ErrorCode::insufficient_data, "nearest(weighted): needs mean_square of " + std::to_string(w.cols) +
                                                       " inputs over at least 1 token; got " + anybit::describe(stats.needs()) +
                                                       " of " + std::to_string(stats.inputs()) + " over " +
                                                       std::to_string(stats.tokens())};
      importance = stats.mean_square();
    }
    Quantized<scheme> result{QuantizedMatrix<scheme>(w.extents()), {}};
    Report& report = result.report;
    report.requested = report.done = describe() + " " + std::string(std::string_view(scheme::name));
    grid::fit_groups(w, grid_fit(), options.clip_limits, importance, AnyQuantized(result.matrix), report, options.executor);
    grid::encode_nearest(w, options.clip_limits, AnyQuantized(result.matrix), options.executor);
    result.matrix.provenance = describe();
    ANYBIT_TRY_STATUS(check_strict(report, options));
    recipe::measure(w, result.matrix, stats, report, options.executor);
    return result;
  }
};

template <class... Parts>
struct AlgorithmTraits<Nearest<Parts...>> : AlgorithmDefaults<Nearest<Parts...>> {
  static GridFit grid_fit(const Nearest<Parts...>& a) { return a.grid_fit(); }
  static Needs needs(const Nearest<Parts...>& a) { return a.weighted ? Needs::mean_square : Needs::none; }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit
