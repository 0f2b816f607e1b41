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
/// level, (w + s z)^2 or (w - s (top - z))^2. In order of size the weights of one k are neighbours, so that differences of
/// running sums serve every k and z, and a scale costs no pass over the weights.
class ZeroScan {
 public:
  ZeroScan(const Trial& trial, int bits)
      : top_((Index{1} << bits) - 1),
        borders_(static_cast<std::size_t>(2 * top_ + 2)),
        errors_(static_cast<std::size_t>(2 * top_ + 2)) {
    const std::size_t n = trial.values.size();
    std::vector<std::pair<float, float>> order(n);  // weight and importance
    for (std::size_t i = 0; i < n; ++i) order[i] = {trial.values[i], trial.importance() ? trial.importance()[i] : 1.0f};
    std::sort(order.begin(), order.end());
    sorted_.reserve(n), sums_.reserve(n + 1);
    sums_.emplace_back();
    for (const auto& [value, importance] : order) {
      const double w = static_cast<double>(value), h = static_cast<double>(importance);
      sorted_.push_back(value);
      sums_.push_back({sums_.back().weight + h, sums_.back().first + h * w, sums_.back().second + h * w * w});
    }
  }

  struct Found {
    double error = std::numeric_limits<double>::infinity();
    float zero = 0;
  };
  /// The best zero point for a scale above 0; of equally good ones the lowest.
  Found best(float scale) {
    const double s = static_cast<double>(scale);
    // borders_[j]: how many weights have k < j - top; errors_[j]: the sum of their (w - s k)^2, from k = -top on.
    for (std::size_t j = 0; j < borders_.size(); ++j)
      borders_[j] = below((static_cast<float>(static_cast<Index>(j) - top_) - 0.5f) * scale);
    errors_[0] = 0;
    for (std::size_t j = 0; j + 1 < borders_.size(); ++j)
      errors_[j + 1] =
          errors_[j] + error(sums_[borders_[j + 1]] - sums_[borders_[j]], s * static_cast<double>(static_cast<Index>(j) - top_));
    Found found;
    for (Index z = 0; z <= top_; ++z) {
      const auto low = static_cast<std::size_t>(top_ - z), high = static_cast<std::size_t>(2 * top_ + 1 - z);
      const double sum = errors_[high] - errors_[low] + error(sums_[borders_[low]], -s * static_cast<double>(z)) +
                         error(sums_.back() - sums_[borders_[high]], s * static_cast<double>(top_ - z));
      if (sum < found.error) found = {sum, static_cast<float>(z)};
    }
    return found;
  }

 private:
  struct Sums {
    double weight = 0, first = 0, second = 0;  ///< of h, h w, h w^2
    friend Sums operator-(const Sums& a, const Sums& b) { return {a.weight - b.weight, a.first - b.first, a.second - b.second}; }
  };
  /// Sum of h (w - q)^2.
  static double error(const Sums& s, double q) { return s.second - q * (2 * s.first - q * s.weight); }
  /// Weights below a border, by halving without a branch that could be foretold wrong.
  std::size_t below(float border) const {
    std::size_t at = 0;
    for (std::size_t left = sorted_.size(); left > 0;) {
      const std::size_t half = (left + 1) / 2;
      at += sorted_[at + half - 1] < border ? half : 0;
      left -= half;
    }
    return at;
  }

  Index top_;
  std::vector<float> sorted_;
  std::vector<Sums> sums_;  ///< of the weights before each place
  std::vector<std::size_t> borders_;
  std::vector<double> errors_;
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
