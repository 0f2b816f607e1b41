#pragma once
// How the Affine of one group is found: from its range, or by one of the searches for the range that costs least.

#include <cstdio>
#include <span>
#include <string>

#include <anybit/grid/full_range.hpp>
#include <anybit/grid/hqq.hpp>
#include <anybit/grid/least_squares.hpp>
#include <anybit/grid/neuqi.hpp>
#include <anybit/grid/shrink.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// All of them multiply the error of each weight by its importance, where one is given.
enum class Search {
  none,
  mse,             ///< GPTQ's: grid/shrink.hpp
  least_squares,   ///< the same ranges and some wider ones, then refits: grid/least_squares.hpp
  half_quadratic,  ///< HQQ: grid/hqq.hpp
  neuqi,           ///< NeUQI: for each scale of a coarse, then a fine scan the best zero point: grid/neuqi.hpp
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit {
inline namespace ANYBIT_CODE {

/// A rule from the weights of one group to its Affine.
struct GridFit {
  Range range = Range::format;
  Search search = Search::none;
  ShrinkSearch shrink{};
  HalfQuadratic half_quadratic{};

  /// The options that differ from the defaults: "", "search", "symmetric range, weighted search(norm=2)".
  std::string describe(bool weighted = false) const {
    std::string text = range == Range::format ? "" : range == Range::symmetric ? "symmetric range" : "min_max range";
    if (search == Search::none) return text;
    if (!text.empty()) text += ", ";
    if (weighted) text += "weighted ";
    text += search == Search::least_squares    ? "least squares"
            : search == Search::half_quadratic ? "half-quadratic search"
            : search == Search::neuqi          ? "neuqi"
                                               : "search";
    std::string options;
    const auto add = [&](const char* name, float value, float usual) {
      if (value == usual) return;
      char number[48];
      std::snprintf(number, sizeof number, "%s%s=%.6g", options.empty() ? "" : ", ", name, static_cast<double>(value));
      options += number;
    };
    constexpr ShrinkSearch usual;
    add("shrink", shrink.shrink, usual.shrink);
    add("steps", static_cast<float>(shrink.steps), static_cast<float>(usual.steps));
    if (search == Search::mse) add("norm", shrink.norm, usual.norm);
    if (search == Search::half_quadratic) {
      constexpr HalfQuadratic hq;
      add("norm", half_quadratic.norm, hq.norm);
      add("beta", half_quadratic.beta, hq.beta);
      add("growth", half_quadratic.growth, hq.growth);
      add("rounds", static_cast<float>(half_quadratic.rounds), static_cast<float>(hq.rounds));
    }
    return options.empty() ? text : text + "(" + options + ")";
  }
  /// The full range, before the store.
  Affine plain(const FormatOps& format, std::span<const float> values) const {
    return grid::FullRange(format, range, values).affine();
  }
  template <Format F>
  Affine plain(std::span<const float> values) const {
    return plain(format_ops_v<F>, values);
  }

  /// The affine as stored (see RoundingOps::stored). `importance`, empty or one weight >= 0 a value, multiplies the errors in
  /// a search.
  Affine fit(const RoundingOps& scheme, std::span<const float> values, std::span<const float> importance = {}) const {
    const grid::FullRange full(scheme.format, range, values);
    if (search == Search::none || scheme.no_scales) return scheme.stored(full.affine());
    grid::Trial trial(scheme, values, importance);
    if (search == Search::mse) return grid::shrink(trial, full, shrink);
    if (search == Search::least_squares) return grid::least_squares(trial, full, shrink);
    if (search == Search::neuqi) return grid::neuqi(trial, full, shrink);
    return grid::hqq(trial, full, shrink, half_quadratic);
  }
  template <AnyScheme S>
  Affine fit(std::span<const float> values, std::span<const float> importance = {}) const {
    return fit(rounding_ops_v<S>, values, importance);
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit
