#pragma once
// Least sum (w - q)^2 over scale, zero point and codes: each is refitted to the others in turn until nothing moves.

#include <cmath>

#include <anybit/core/finite.hpp>
#include <anybit/grid/full_range.hpp>
#include <anybit/grid/shrink.hpp>
#include <anybit/grid/trial.hpp>

namespace anybit::grid {
inline namespace ANYBIT_CODE {

/// Ranges from a quarter more than the full one down to the least of `ranges`, each judged by the error that one refit leaves.
/// The best four are refined, and compared as stored. The full range takes part, so the result is never worse.
inline Affine least_squares(Trial& trial, const FullRange& full, const ShrinkSearch& ranges) {
  constexpr int rounds = 20;
  const bool free_zero = full.free_zero(), coarse = has_coarse_scales(trial.scheme);
  BestGrid best(trial, full.affine(), 2.0f);
  Starts starts;
  for (int i = -ranges.steps / 4; i < ranges.candidates(); ++i) {
    const Affine a = full.times(ranges.kept(i));
    if (coarse) {
      best.take(a);
      continue;
    }
    const Refit fitted = trial.refit(a, free_zero);
    starts.add({fitted.error, fitted.affine});
  }
  for (const Start& start : starts.best) {
    if (!is_finite(start.error)) continue;
    Affine a = start.affine;
    best.take(a);
    for (int round = 0; round < rounds; ++round) {
      const Affine b = trial.refit(a, free_zero).affine;
      if (b == a) break;
      a = b;
    }
    best.take(a);
  }
  return best.affine();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::grid
