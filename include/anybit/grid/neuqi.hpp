#pragma once
// NeUQI (arXiv:2505.17595): near-optimal uniform grids. For every scale of a coarse, then a fine list the zero point with the
// least weighted squared error is found exactly. Readable twin, with a real zero point: reference/neuqi.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/grid/full_range.hpp>
#include <anybit/grid/shrink.hpp>
#include <anybit/grid/trial.hpp>

namespace anybit::grid {
inline namespace ANYBIT_CODE {

/// Errors of one group on the grids of one scale, for all whole zero points 0 .. 2^bits - 1 at once. With k = round(w / s), which
/// no whole zero point z changes, a weight has the error (w - s k)^2 where 0 <= k + z <= top, and otherwise that of the outermost
/// level, (w + s z)^2 or (w - s (top - z))^2: sums over weights of one k serve every z.
class ZeroScan {
 public:
  ZeroScan(const Trial& trial, int bits) : trial_(trial), top_((Index{1} << bits) - 1) {}

  struct Found {
    double error = std::numeric_limits<double>::infinity();
    float zero = 0;
  };
  /// The best zero point for a scale above 0; of equally good ones the lowest.
  Found best(float scale) {
    // In sums_[k + top + 2] the weights of one k, those further out at both ends; then in each all that are below it.
    sums_.assign(static_cast<std::size_t>(2 * top_ + 4), {});
    const double s = static_cast<double>(scale);
    const float most = static_cast<float>(top_ + 1);
    for (std::size_t i = 0; i < trial_.values.size(); ++i) {
      const float w = trial_.values[i], k = std::nearbyint(std::clamp(w / scale, -most, most));
      const double h = trial_.importance() ? static_cast<double>(trial_.importance()[i]) : 1.0, x = static_cast<double>(w),
                   off = x - s * static_cast<double>(k);
      sums_[static_cast<std::size_t>(static_cast<Index>(k) + top_ + 2)] += {h, h * x, h * x * x, h * off * off};
    }
    for (std::size_t i = 1; i < sums_.size(); ++i) sums_[i] += sums_[i - 1];
    Found found;
    const Sums& all = sums_.back();
    for (Index z = 0; z <= top_; ++z) {
      const Sums &below = sums_[static_cast<std::size_t>(top_ + 1 - z)],
                 &within = sums_[static_cast<std::size_t>(2 * top_ + 2 - z)];
      const double low = s * static_cast<double>(z), high = s * static_cast<double>(top_ - z);
      const double error = within.error - below.error + below.second + low * (2 * below.first + low * below.weight) +
                           (all.second - within.second) -
                           high * (2 * (all.first - within.first) - high * (all.weight - within.weight));
      if (error < found.error) found = {error, static_cast<float>(z)};
    }
    return found;
  }

 private:
  struct Sums {
    double weight = 0, first = 0, second = 0, error = 0;  ///< of h, h w, h w^2, h (w - s k)^2
    Sums& operator+=(const Sums& o) {
      weight += o.weight, first += o.first, second += o.second, error += o.error;
      return *this;
    }
  };
  const Trial& trial_;
  Index top_;
  std::vector<Sums> sums_;
};

/// The affine as stored. Coarse scales are those of least_squares(); between the neighbours of the best four follow 16 to a step.
/// Each is judged as stored. The full range takes part, so the result is never worse. Formats without a zero point, or with one
/// that stays in the middle, and those of more than 8 bits, for which a step of the zero point is nothing, get a scale.
inline Affine neuqi(Trial& trial, const FullRange& full, const ShrinkSearch& ranges) {
  constexpr int fine = 16;
  const FormatOps& format = trial.format();
  const bool scans_zeros = format.zero_point && full.free_zero() && format.bits <= 8;
  ZeroScan zeros(trial, scans_zeros ? format.bits : 0);
  BestGrid best(trial, full.affine(), 2.0f);
  struct Candidate {
    double error = std::numeric_limits<double>::infinity();
    int place = 0;  ///< the range keeps 1 - place / (fine * steps)
    Affine affine{};
  };
  const auto at = [&](int place) -> Candidate {
    const double kept = 1.0 - static_cast<double>(place) / (static_cast<double>(fine) * ranges.steps);
    Affine a = trial.scheme.stored(full.times(static_cast<float>(kept)));
    if (!is_finite(a.scale) || !(a.scale > 0)) return {.place = place};
    if (!scans_zeros) return {trial.error(a, 2.0f, std::numeric_limits<double>::infinity()), place, a};
    const ZeroScan::Found found = zeros.best(a.scale);
    a.zero = found.zero;
    return {found.error, place, a};
  };
  Candidate starts[4];
  for (int i = -ranges.steps / 4; i < ranges.candidates(); ++i) {
    Candidate c = at(fine * i);
    for (Candidate& s : starts)
      if (c.error < s.error) std::swap(c, s);
  }
  const bool refines = !has_coarse_scales(trial.scheme);
  for (const Candidate& start : starts) {
    if (!is_finite(start.error)) continue;
    Candidate found = start;
    for (int step = 1 - fine; refines && step < fine; ++step)
      if (const Candidate c = at(start.place + step); c.error < found.error) found = c;
    best.take(found.affine);
  }
  return best.affine();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::grid

#include <anybit/core/macros_end.hpp>
