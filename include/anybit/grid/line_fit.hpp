#pragma once
// The affine that suits given codes best: a line through (level, weight).

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <anybit/core/distance.hpp>
#include <anybit/format/format.hpp>

namespace anybit::grid {
inline namespace ANYBIT_CODE {

/// Sums over a group of h, h t and h t^2: importance h (null stands for 1 each), target t.
struct TargetSums {
  double h = 0, t = 0, tt = 0;
};
inline TargetSums target_sums(const float* t, const float* h, Index n) {
  const auto of = [](float v) { return static_cast<double>(v); };
  if (!h)
    return {static_cast<double>(n), lane_sum(n, [=](Index i) { return of(t[i]); }),
            lane_sum(n, [=](Index i) { return of(t[i]) * of(t[i]); })};
  return {lane_sum(n, [=](Index i) { return of(h[i]); }), lane_sum(n, [=](Index i) { return of(h[i]) * of(t[i]); }),
          lane_sum(n, [=](Index i) { return of(h[i]) * of(t[i]) * of(t[i]); })};
}

/// Sums of h l, h l^2 and h l t: level l around the zero point. The first is only needed where the zero point may move.
struct LevelSums {
  double l = 0, ll = 0, lt = 0;
};
inline LevelSums level_sums(const float* l, const float* t, const float* h, Index n, bool with_first) {
  const auto of = [](float v) { return static_cast<double>(v); };
  if (!h)
    return {with_first ? lane_sum(n, [=](Index i) { return of(l[i]); }) : 0.0,
            lane_sum(n, [=](Index i) { return of(l[i]) * of(l[i]); }), lane_sum(n, [=](Index i) { return of(l[i]) * of(t[i]); })};
  return {with_first ? lane_sum(n, [=](Index i) { return of(h[i]) * of(l[i]); }) : 0.0,
          lane_sum(n, [=](Index i) { return of(h[i]) * of(l[i]) * of(l[i]); }),
          lane_sum(n, [=](Index i) { return of(h[i]) * of(l[i]) * of(t[i]); })};
}

/// A refitted affine and the sum h (scale (l - zero) - t)^2 that it leaves while codes stay as they are.
struct Refit {
  Affine affine;
  double error = 0;
};

/// `a` is the affine that the levels in `s` were chosen on. Its zero point moves to the whole number from 0 to `highest_zero`
/// next to the best line's, or stays if that is 0. Where no scale above 0 fits, `a` is returned.
inline Refit refit(const LevelSums& s, const TargetSums& to, Affine a, float highest_zero) {
  Affine b = a;
  if (highest_zero > 0) {
    const double spread = to.h * s.ll - s.l * s.l, slope = (to.h * s.lt - s.l * to.t) / spread;
    if (spread > 0 && slope > 0) {
      const double zero = static_cast<double>(a.zero) - (to.t - slope * s.l) / (to.h * slope);
      b.zero = static_cast<float>(std::clamp(std::nearbyint(zero), 0.0, static_cast<double>(highest_zero)));
    }
  }
  const double moved = static_cast<double>(a.zero) - static_cast<double>(b.zero);  // what is added to each level
  const double ll = s.ll + moved * (2 * s.l + moved * to.h), lt = s.lt + moved * to.t, scale = lt / ll;
  b.scale = static_cast<float>(scale);
  if (!(ll > 0) || !(b.scale > 0) || !(scale <= static_cast<double>(std::numeric_limits<float>::max()))) {
    const double given = static_cast<double>(a.scale);
    return {a, to.tt + given * (given * s.ll - 2 * s.lt)};
  }
  return {b, to.tt - lt * scale};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::grid

#include <anybit/core/macros_end.hpp>
