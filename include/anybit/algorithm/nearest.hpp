#pragma once
// Rounds each weight to nearest on its group's grid. See docs/methods/nearest.md. Readable twin: reference/nearest.hpp.

#include <anybit/core/macros_begin.hpp>

#include <string>
#include <vector>

#include <anybit/grid/group_grids.hpp>
#include <anybit/recipe/algorithm.hpp>
#include <anybit/recipe/objective.hpp>
#include <anybit/tensor/pack.hpp>

namespace anybit::nearest {
inline namespace ANYBIT_CODE {

/// Nearest's own, of any scheme.
struct Options {
  GridFit fit;
  bool weighted;

  std::string describe() const {
    const std::string grids = fit.describe(weighted);
    return grids.empty() ? "nearest" : "nearest(" + grids + ")";
  }
};

/// Fills `codes` and the report. See Nearest::quantize.
inline Status quantize(const Options& o, ConstMatrix w, const Stats& stats, const QuantizeOptions& options,
                       const AnyQuantized& codes, Report& report) {
  ANYBIT_TRY_STATUS(grid::check_weights(w));
  ANYBIT_TRY_STATUS(grid::check_limits(codes.scheme, w, options.clip_limits));
  ANYBIT_TRY_STATUS(check_range(codes.format(), o.fit.range));
  ANYBIT_TRY_STATUS(check_search(o.fit.shrink));
  ANYBIT_TRY_STATUS(check_search(o.fit.half_quadratic));
  std::vector<float> importance;
  if (o.weighted) {
    if (!stats.has(Needs::mean_square) || stats.inputs() != w.cols || stats.tokens() < 1)
      return Error{ErrorCode::insufficient_data, "nearest(weighted): needs mean_square of " + std::to_string(w.cols) +
                                                     " inputs over at least 1 token; got " + anybit::describe(stats.needs()) +
                                                     " of " + std::to_string(stats.inputs()) + " over " +
                                                     std::to_string(stats.tokens())};
    importance = stats.mean_square();
  }
  report.requested = report.done = o.describe() + " " + std::string(codes.scheme.name);
  grid::fit_groups(w, o.fit, options.clip_limits, importance, codes, report, options.executor);
  grid::encode_nearest(w, options.clip_limits, codes, options.executor);
  ANYBIT_TRY_STATUS(check_strict(report, options));
  recipe::measure(w, codes, {}, stats, report, options.executor);
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::nearest

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
  std::string describe() const { return options().describe(); }

  /// Statistics are read only if `weighted`, and for the report's output error if they hold a Hessian.
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats = {}, const QuantizeOptions& asked = {}) const {
    Quantized<scheme> result{QuantizedMatrix<scheme>(w.extents()), {}};
    ANYBIT_TRY_STATUS(nearest::quantize(options(), w, stats, asked, AnyQuantized(result.matrix), result.report));
    result.matrix.provenance = describe();
    return result;
  }

 private:
  nearest::Options options() const { return {grid_fit(), weighted}; }
};

template <class... Parts>
struct AlgorithmTraits<Nearest<Parts...>> : AlgorithmDefaults<Nearest<Parts...>> {
  static GridFit grid_fit(const Nearest<Parts...>& a) { return a.grid_fit(); }
  static Needs needs(const Nearest<Parts...>& a) { return a.weighted ? Needs::mean_square : Needs::none; }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
