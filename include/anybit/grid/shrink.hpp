#pragma once
// GPTQ's search (`mse` in its code): the group's range is cut step by step, and the cut with the least sum |w - q|^norm wins.

#include <anybit/core/macros_begin.hpp>

#include <limits>
#include <string>

#include <anybit/core/finite.hpp>
#include <anybit/grid/full_range.hpp>
#include <anybit/grid/trial.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Candidates are the full range times 1 - i / steps for i = 0 .. shrink * steps - 1 (GPTQ's defaults).
struct ShrinkSearch {
  float shrink = 0.8f;
  int steps = 100;
  float norm = 2.4f;
  int candidates() const { return static_cast<int>(static_cast<double>(shrink) * steps + 1e-6); }
  /// The share of the range that candidate i keeps; a negative i widens it.
  float kept(int i) const { return static_cast<float>(1.0 - static_cast<double>(i) / steps); }
};

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

namespace anybit::grid {
inline namespace ANYBIT_CODE {

/// The affine as stored.
inline Affine shrink(Trial& trial, const FullRange& full, const ShrinkSearch& search) {
  Affine best = trial.scheme.stored(full.affine());
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < search.candidates(); ++i) {
    const Affine a = trial.scheme.stored(full.times(search.kept(i)));
    const double error = trial.error(a, search.norm, least);
    if (error < least) {
      least = error;
      best = a;
    }
  }
  return best;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::grid

#include <anybit/core/macros_end.hpp>
