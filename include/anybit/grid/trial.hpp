#pragma once
// The weights of one group, tried on one grid after the other: what searches share.

#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <anybit/grid/line_fit.hpp>
#include <anybit/grid/power_sum.hpp>
#include <anybit/tensor/rounding_ops.hpp>

namespace anybit::grid {
inline namespace ANYBIT_CODE {

class Trial {
 public:
  /// `importance` is empty or has one weight >= 0 a value, which multiplies its error.
  Trial(const RoundingOps& of, std::span<const float> weights, std::span<const float> importance)
      : scheme(of),
        values(weights),
        importance_(importance.empty() ? nullptr : importance.data()),
        levels(weights.size()),
        restored(weights.size()),
        value_sums_(target_sums(weights.data(), importance_, static_cast<Index>(weights.size()))) {}

  Index size() const { return static_cast<Index>(values.size()); }
  const FormatOps& format() const { return scheme.format; }
  /// Null where all weights count alike.
  const float* importance() const { return importance_; }

  /// Sum of importance * |w - q|^norm on a grid; see power_sum for `enough`.
  double error(Affine a, float norm, double enough) {
    format().round(values.data(), size(), a, a, restored.data());
    return power_sum(restored.data(), values.data(), importance_, size(), norm, enough);
  }
  /// Fills `levels` with those around the zero point that the weights get on grid a.
  void round(Affine a) { format().round(values.data(), size(), a, {1, a.zero}, levels.data()); }
  /// The affine that suits the codes of grid a best.
  Refit refit(Affine a, bool free_zero) {
    round(a);
    return fit_line(values.data(), value_sums_, a, free_zero);
  }
  /// The same for other targets; `levels` are those of grid a.
  Affine refit_to(const float* targets, Affine a, bool free_zero) const {
    return fit_line(targets, target_sums(targets, importance_, size()), a, free_zero).affine;
  }

  const RoundingOps& scheme;
  std::span<const float> values;

 private:
  Refit fit_line(const float* targets, const TargetSums& sums, Affine a, bool free_zero) const {
    const float highest = format().zero_point && free_zero ? static_cast<float>((1 << format().bits) - 1) : 0.0f;
    return grid::refit(level_sums(levels.data(), targets, importance_, size(), highest > 0), sums, a, highest);
  }
  const float* importance_;

 public:
  std::vector<float> levels, restored;  ///< scratch of the searches

 private:
  TargetSums value_sums_;
};

/// The best grid so far, as the store gives it back, by the sum of |w - q|^norm.
class BestGrid {
 public:
  BestGrid(Trial& trial, Affine first, float norm)
      : trial_(trial),
        norm_(norm),
        affine_(trial.scheme.stored(first)),
        error_(trial.error(affine_, norm, std::numeric_limits<double>::infinity())) {}
  /// Whether `a` is better; then it is kept.
  bool take(Affine a) {
    a = trial_.scheme.stored(a);
    const double error = trial_.error(a, norm_, error_);
    if (!(error < error_)) return false;
    error_ = error;
    affine_ = a;
    return true;
  }
  Affine affine() const { return affine_; }

 private:
  Trial& trial_;
  float norm_;
  Affine affine_;
  double error_;
};

/// A grid from which a search by refits starts, and what speaks for it: less is better.
struct Start {
  double error = std::numeric_limits<double>::infinity();
  Affine affine;
};
/// The four best starts seen, best first.
struct Starts {
  Start best[4];
  void add(Start s) {
    for (Start& b : best)
      if (s.error < b.error) std::swap(s, b);
  }
  double worst() const { return best[3].error; }
};

/// A store of few scales has nothing to refine between them.
inline bool has_coarse_scales(const RoundingOps& scheme) { return std::fabs(scheme.stored({1.1f, 0}).scale - 1.1f) > 0.011f; }

}  // namespace ANYBIT_CODE
}  // namespace anybit::grid
