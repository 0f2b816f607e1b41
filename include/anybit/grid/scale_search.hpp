#pragma once
// The scale and zero point of one group: from its range, or by search. Readable twins: reference/scale_search.hpp, hqq.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/grid/least_squares.hpp>
#include <anybit/grid/power_sum.hpp>
#include <anybit/tensor/scheme_ops.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Which range of a group its grid spans. Formats without a zero point know only `format`.
enum class Range {
  format,     ///< the format's own fit; with a zero point: from min(0, w) to max(0, w), as GPTQ's asymmetric grid
  symmetric,  ///< GPTQ's symmetric grid: zero = 2^(b-1), scale = 2 max|w| / (2^b - 1). Half the range if no weight is negative,
              ///< as published.
  min_max,    ///< AWQ: from min(w) to max(w), zero clamped to the grid, width at least 1e-5
};

/// All of them multiply the error of each weight by its importance, where one is given.
enum class Search {
  none,
  mse,             ///< GPTQ: shrink the range step by step and keep the one with the least sum |w - q|^norm
  least_squares,   ///< the same ranges and some wider ones; the scale (and zero point) of the best are refitted to their codes in
                   ///< turn with the codes until nothing moves. Least sum (w - q)^2
  half_quadratic,  ///< HQQ: as least_squares, but for sum |w - q|^norm with a norm below 1, which lets outliers go
};

/// Candidates are the full range times 1 - i / steps for i = 0 .. shrink * steps - 1 (GPTQ's defaults).
struct ShrinkSearch {
  float shrink = 0.8f;
  int steps = 100;
  float norm = 2.4f;
  int candidates() const { return static_cast<int>(static_cast<double>(shrink) * steps + 1e-6); }
};

/// Half-quadratic splitting (Badri and Shaji 2023, as in their code): errors e are split into outliers, which are left alone, and
/// the rest, which is fitted by least squares. The outlier part of e is |e| - |e|^(norm - 1) / beta where that is above 0, in
/// units of the mean distance between levels.
struct HalfQuadratic {
  float norm = 0.7f;
  float beta = 10;       ///< in the first round
  float growth = 1.01f;  ///< of beta from round to round
  int rounds = 20;
};

ANYBIT_INLINE Status check_search(const HalfQuadratic& s) {
  if (!is_within(s.norm, 0, 1) || s.norm == 0)
    return Error{ErrorCode::invalid_argument,
                 "half-quadratic search: norm is " + std::to_string(s.norm) + "; it must lie above 0, up to 1"};
  if (!is_within(s.beta, 0, 1e6f) || s.beta == 0 || !is_within(s.growth, 1, 10))
    return Error{ErrorCode::invalid_argument, "half-quadratic search: beta is " + std::to_string(s.beta) + ", growth " +
                                                  std::to_string(s.growth) +
                                                  "; beta must lie above 0, up to 1e6, and growth from 1 to 10"};
  if (s.rounds < 1 || s.rounds > 1000)
    return Error{ErrorCode::invalid_argument,
                 "half-quadratic search: rounds is " + std::to_string(s.rounds) + "; it must be 1 to 1000"};
  return Ok{};
}

ANYBIT_INLINE Status check_search(const ShrinkSearch& s) {
  if (!is_within(s.shrink, 0, 1) || s.shrink == 0 || s.shrink == 1)
    return Error{ErrorCode::invalid_argument, "search: shrink is " + std::to_string(s.shrink) + "; it must lie between 0 and 1"};
  if (s.steps < 1 || s.steps > 100000)
    return Error{ErrorCode::invalid_argument, "search: steps is " + std::to_string(s.steps) + "; it must be 1 to 100000"};
  if (!is_within(s.norm, 0, 16) || s.norm == 0)
    return Error{ErrorCode::invalid_argument, "search: norm is " + std::to_string(s.norm) + "; it must lie above 0, up to 16"};
  return Ok{};
}

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit {
inline namespace ANYBIT_CODE {

namespace detail {

struct MinMax {
  float low = 0, high = 0;
};

inline MinMax min_max(std::span<const float> values) {
  if (values.empty()) return {};
  MinMax m{values[0], values[0]};
  for (const float v : values) {
    m.low = std::min(m.low, v);
    m.high = std::max(m.high, v);
  }
  return m;
}

/// The grid of a format with a zero point over [low, high] = the least and greatest weight, cut to `kept` of its width.
/// Single precision step by step: ties of the zero point are decided by these very roundings.
inline Affine span_range(int bits, Range range, MinMax m, float kept) {
  const float max_code = static_cast<float>((1 << bits) - 1), middle = static_cast<float>(1 << (bits - 1));
  if (range == Range::min_max) {
    const float width = std::max((m.high - m.low) * kept, 1e-5f);
    const float scale = std::min(width, std::numeric_limits<float>::max()) / max_code;
    return {scale, std::clamp(round_half_even(-(m.low * kept) / scale), 0.0f, max_code)};
  }
  m = {std::min(m.low, 0.0f), std::max(m.high, 0.0f)};
  if (range == Range::symmetric) {
    m.high = std::max(-m.low, m.high);
    if (m.low < 0) m.low = -m.high;
  }
  if (m.low == 0 && m.high == 0) m = {-1, 1};  // any grid will do; error feedback may still bring values into the group
  const float low = m.low * kept, high = m.high * kept;
  float scale = (high - low) / max_code;
  if (!(scale <= std::numeric_limits<float>::max())) scale = high / max_code - low / max_code;  // the width alone overflows
  if (range == Range::symmetric) return {scale, middle};
  return {scale, scale > 0 ? std::clamp(round_half_even(-low / scale), 0.0f, max_code) : 0.0f};
}

/// The weights of one group, tried on one grid after the other.
class GroupTrial {
 public:
  GroupTrial(const calibrate::FormatFunctions& format, std::span<const float> values, std::span<const float> importance)
      : format_(format),
        values_(values),
        importance_(importance.empty() ? nullptr : importance.data()),
        levels_(values.size()),
        restored_(values.size()),
        value_sums_(calibrate::target_sums(values.data(), importance_, static_cast<Index>(values.size()))) {}

  /// Sum of importance * |w - q|^norm on a grid; see power_sum for `enough`.
  double error(Affine a, float norm, double enough) {
    format_.round(values_.data(), size(), a, a, restored_.data());
    return calibrate::power_sum(restored_.data(), values_.data(), importance_, size(), norm, enough);
  }
  /// The affine that suits the codes of grid a best.
  calibrate::Refit refit(Affine a, bool free_zero) {
    round(a);
    return fit_line(values_.data(), value_sums_, a, free_zero);
  }
  /// The same for the weights without the outlier part of their errors.
  Affine refit_without_outliers(Affine a, bool free_zero, float norm, float beta) {
    round(a);
    const float unit = a.scale * format_.level_distance(), per_unit = 1 / unit;
    if (!(per_unit > 0 && per_unit <= std::numeric_limits<float>::max())) return a;
    constexpr Index lanes = calibrate::power_lanes;
    for (Index i = 0; i < size(); i += lanes) {
      float e[lanes] = {};
      double p[lanes];
      const Index count = std::min(lanes, size() - i);
      for (Index j = 0; j < count; ++j)
        e[j] = (values_[static_cast<std::size_t>(i + j)] - a.scale * levels_[static_cast<std::size_t>(i + j)]) * per_unit;
      calibrate::powers(e, norm, p);
      for (Index j = 0; j < count; ++j) {
        const double size_of_e = std::fabs(static_cast<double>(e[j])),
                     outlier = size_of_e - p[j] / (size_of_e * static_cast<double>(beta));
        const auto kept = static_cast<float>(outlier > 0 ? outlier : 0) * unit;
        restored_[static_cast<std::size_t>(i + j)] = values_[static_cast<std::size_t>(i + j)] - std::copysign(kept, e[j]);
      }
    }
    return fit_line(restored_.data(), calibrate::target_sums(restored_.data(), importance_, size()), a, free_zero).affine;
  }

 private:
  Index size() const { return static_cast<Index>(values_.size()); }
  void round(Affine a) { format_.round(values_.data(), size(), a, {1, a.zero}, levels_.data()); }
  calibrate::Refit fit_line(const float* targets, const calibrate::TargetSums& sums, Affine a, bool free_zero) const {
    const float highest = format_.zero_point && free_zero ? static_cast<float>((1 << format_.bits) - 1) : 0.0f;
    return calibrate::refit(calibrate::level_sums(levels_.data(), targets, importance_, size(), highest > 0), sums, a, highest);
  }
  const calibrate::FormatFunctions& format_;
  std::span<const float> values_;
  const float* importance_;
  std::vector<float> levels_, restored_;
  calibrate::TargetSums value_sums_;
};

}  // namespace detail

/// A rule from the weights of one group to its Affine.
struct GridFit {
  Range range = Range::format;
  Search search = Search::none;
  ShrinkSearch shrink{};
  HalfQuadratic half_quadratic{};

  /// What differs from the defaults: "", "search", "symmetric range, weighted search(norm=2)".
  std::string describe(bool weighted = false) const {
    std::string text = range == Range::format ? "" : range == Range::symmetric ? "symmetric range" : "min_max range";
    if (search == Search::none) return text;
    if (!text.empty()) text += ", ";
    if (weighted) text += "weighted ";
    text += search == Search::least_squares    ? "least squares"
            : search == Search::half_quadratic ? "half-quadratic search"
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
  Affine plain(const calibrate::FormatFunctions& format, std::span<const float> values) const {
    return format.zero_point ? detail::span_range(format.bits, range, detail::min_max(values), 1.0f) : format.fit(values);
  }
  template <Format F>
  Affine plain(std::span<const float> values) const {
    return plain(calibrate::format_functions_v<F>, values);
  }

  /// The affine as stored (see SchemeFunctions::stored). `importance`, empty or one weight >= 0 a value, multiplies the errors in
  /// a search.
  Affine fit(const calibrate::SchemeFunctions& scheme, std::span<const float> values,
             std::span<const float> importance = {}) const {
    if (search == Search::none || scheme.no_scales) return scheme.stored(plain(scheme.format, values));
    detail::GroupTrial trial(scheme.format, values, importance);
    return search == Search::mse ? least_cut(scheme, values, trial) : refined(scheme, values, trial);
  }
  template <AnyScheme S>
  Affine fit(std::span<const float> values, std::span<const float> importance = {}) const {
    return fit(calibrate::scheme_functions_v<S>, values, importance);
  }

 private:
  /// The full range, cut to (or widened by) a factor.
  Affine candidate(const calibrate::FormatFunctions& format, Affine full, detail::MinMax m, float kept) const {
    if (format.zero_point) return detail::span_range(format.bits, range, m, kept);
    full.scale *= kept;
    return full;
  }
  float kept(int i) const { return static_cast<float>(1.0 - static_cast<double>(i) / shrink.steps); }

  Affine least_cut(const calibrate::SchemeFunctions& scheme, std::span<const float> values, detail::GroupTrial& trial) const {
    const Affine full = plain(scheme.format, values);
    const detail::MinMax m = detail::min_max(values);
    Affine best = scheme.stored(full);
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < shrink.candidates(); ++i) {
      const Affine a = scheme.stored(candidate(scheme.format, full, m, kept(i)));
      const double error = trial.error(a, shrink.norm, least);
      if (error < least) {
        least = error;
        best = a;
      }
    }
    return best;
  }

  /// Ranges from a quarter more than the full one down, each judged by what remains after one refit; then the best are refined,
  /// and compared as stored. The plain fit takes part, so the result is never worse.
  Affine refined(const calibrate::SchemeFunctions& scheme, std::span<const float> values, detail::GroupTrial& trial) const {
    const bool quadratic = search == Search::least_squares, free_zero = range != Range::symmetric;
    const float norm = quadratic ? 2.0f : half_quadratic.norm;
    const Affine full = plain(scheme.format, values);
    const detail::MinMax m = detail::min_max(values);
    Affine best = scheme.stored(full);
    double least = trial.error(best, norm, std::numeric_limits<double>::infinity());
    const auto take = [&](Affine a) {
      a = scheme.stored(a);
      const double error = trial.error(a, norm, least);
      if (!(error < least)) return false;
      least = error;
      best = a;
      return true;
    };
    // A store of few scales has nothing to refine between them.
    const bool coarse = std::fabs(scheme.stored({1.1f, 0}).scale - 1.1f) > 0.011f;
    struct Start {
      double error = std::numeric_limits<double>::infinity();
      Affine affine;
    } starts[4];
    for (int i = -shrink.steps / 4; i < shrink.candidates(); ++i) {
      const Affine a = candidate(scheme.format, full, m, kept(i));
      if (coarse) {
        take(a);
        continue;
      }
      Start start;
      if (quadratic) {
        const calibrate::Refit fitted = trial.refit(a, free_zero);
        start = {fitted.error, fitted.affine};
      } else {
        start = {trial.error(a, norm, starts[3].error), a};
      }
      for (Start& s : starts)
        if (start.error < s.error) std::swap(start, s);
    }
    for (const Start& start : starts) {
      if (!is_finite(start.error)) continue;
      Affine a = start.affine;
      take(a);
      float beta = half_quadratic.beta;
      int idle = 0;
      for (int round = 0; round < (quadratic ? 20 : half_quadratic.rounds) && idle < 3; ++round) {
        const Affine b = quadratic ? trial.refit(a, free_zero).affine : trial.refit_without_outliers(a, free_zero, norm, beta);
        if (b == a) break;
        a = b;
        if (!quadratic) idle = take(a) ? 0 : idle + 1;
        beta *= half_quadratic.growth;
      }
      if (quadratic) take(a);
    }
    return best;
  }
};

/// Formats without a zero point have one way to span a range.
inline Status check_range(const calibrate::FormatFunctions& format, Range range) {
  if (format.zero_point || range == Range::format) return Ok{};
  return Error{ErrorCode::invalid_argument, "range: only formats with a zero point can choose their range; " +
                                                std::string(format.name) + " has none, leave Range::format"};
}
template <Format F>
Status check_range(Range range) {
  return check_range(calibrate::format_functions_v<F>, range);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
