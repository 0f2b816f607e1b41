#pragma once
// HQQ (Badri and Shaji, 2023): half-quadratic quantization, without data. Least sum |w - q|^p with p below 1, which lets outliers
// go: errors are split into outliers, which are left alone, and the rest, which is fitted by least squares.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include <anybit/core/finite.hpp>
#include <anybit/grid/full_range.hpp>
#include <anybit/grid/shrink.hpp>
#include <anybit/grid/trial.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Half-quadratic splitting as in the authors' code. The outlier part of an error e is |e| - |e|^(norm - 1) / beta where that is
/// above 0, in units of the mean distance between levels.
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

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit::grid {
inline namespace ANYBIT_CODE {

/// The least-squares fit to the weights without the outlier part of their errors on grid a.
inline Affine refit_without_outliers(Trial& trial, Affine a, bool free_zero, float norm, float beta) {
  trial.round(a);
  const float unit = a.scale * trial.format().level_distance(), per_unit = 1 / unit;
  if (!(per_unit > 0 && per_unit <= std::numeric_limits<float>::max())) return a;
  const float *const values = trial.values.data(), *const levels = trial.levels.data();
  float* const inliers = trial.restored.data();
  for (Index i = 0; i < trial.size(); i += power_lanes) {
    float e[power_lanes] = {};
    double p[power_lanes];
    const Index count = std::min(power_lanes, trial.size() - i);
    for (Index j = 0; j < count; ++j) e[j] = (values[i + j] - a.scale * levels[i + j]) * per_unit;
    powers(e, norm, p);
    for (Index j = 0; j < count; ++j) {
      const double size = std::fabs(static_cast<double>(e[j])), outlier = size - p[j] / (size * static_cast<double>(beta));
      const auto kept = static_cast<float>(outlier > 0 ? outlier : 0) * unit;
      inliers[i + j] = values[i + j] - std::copysign(kept, e[j]);
    }
  }
  return trial.refit_to(inliers, a, free_zero);
}

/// Starts from the best four of the ranges that least_squares() tries; every grid on the way is compared as stored. The full
/// range takes part, so the result is never worse.
inline Affine hqq(Trial& trial, const FullRange& full, const ShrinkSearch& ranges, const HalfQuadratic& search) {
  const bool free_zero = full.free_zero(), coarse = has_coarse_scales(trial.scheme);
  BestGrid best(trial, full.affine(), search.norm);
  Starts starts;
  for (int i = -ranges.steps / 4; i < ranges.candidates(); ++i) {
    const Affine a = full.times(ranges.kept(i));
    if (coarse)
      best.take(a);
    else
      starts.add({trial.error(a, search.norm, starts.worst()), a});
  }
  for (const Start& start : starts.best) {
    if (!is_finite(start.error)) continue;
    Affine a = start.affine;
    best.take(a);
    float beta = search.beta;
    int idle = 0;
    for (int round = 0; round < search.rounds && idle < 3; ++round) {
      const Affine b = refit_without_outliers(trial, a, free_zero, search.norm, beta);
      if (b == a) break;
      a = b;
      idle = best.take(a) ? 0 : idle + 1;
      beta *= search.growth;
    }
  }
  return best.affine();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::grid

#include <anybit/core/macros_end.hpp>
