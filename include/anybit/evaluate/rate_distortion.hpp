#pragma once
// Rate-distortion bounds and optimal scalar quantizers for sources of variance 1, in mean square
// error. Rates are bits per value; docs/results/rate_distortion.md has the equations.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

/// Integrals of p(x), x p(x) and x^2 p(x) over an interval.
struct CellMoments {
  double mass = 0, first = 0, second = 0;
};

/// A scalar quantizer of a source: thresholds lie half way between its levels.
struct ScalarQuantizer {
  std::vector<double> levels;  ///< ascending
  double distortion = 0;       ///< mean square error
  double entropy = 0;          ///< of its codes, in bits
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// N(0, 1).
struct GaussianSource {
  /// p^(1/3) is the same density, this much wider: how far apart a good quantizer puts its levels (Panter and Dite 1951).
  static constexpr double companding = 1.7320508075688773;
  /// h(X) in bits.
  static double entropy() { return 0.5 * std::log2(2 * pi * std::exp(1.0)); }
  static double density(double x) { return is_infinite(x) ? 0 : std::exp(-0.5 * x * x) / std::sqrt(2 * pi); }
  static CellMoments moments(double low, double high) {
    if (low > 0 || (low == 0 && high > 0)) {  // complements keep their digits only on the negative side
      const CellMoments mirrored = moments(-high, -low);
      return {mirrored.mass, -mirrored.first, mirrored.second};
    }
    const double p = density(low), q = density(high);
    const double mass = below(high) - below(low);
    const auto edge = [](double x, double d) { return is_infinite(x) ? 0 : x * d; };
    return {mass, p - q, mass + edge(low, p) - edge(high, q)};
  }

 private:
  static constexpr double pi = 3.14159265358979323846;
  static double below(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
};

/// Two-sided exponential, p(x) = exp(-sqrt(2) |x|) / sqrt(2).
struct LaplaceSource {
  static constexpr double companding = 3;
  static double entropy() { return std::log2(std::sqrt(2.0) * std::exp(1.0)); }
  static double density(double x) { return std::exp(-std::sqrt(2.0) * std::abs(x)) / std::sqrt(2.0); }
  static CellMoments moments(double low, double high) {
    if (low >= 0) return add(beyond(low), beyond(high), -1);
    if (high <= 0) {
      const CellMoments m = moments(-high, -low);
      return {m.mass, -m.first, m.second};
    }
    const CellMoments right = moments(0, high), left = moments(0, -low);
    return {left.mass + right.mass, right.first - left.first, left.second + right.second};
  }

 private:
  /// Over [x, infinity), x >= 0.
  static CellMoments beyond(double x) {
    if (is_infinite(x)) return {};
    const double rate = std::sqrt(2.0), tail = 0.5 * std::exp(-rate * x);
    return {tail, tail * (x + 1 / rate), tail * (x * x + 2 * x / rate + 2 / (rate * rate))};
  }
  static CellMoments add(CellMoments a, CellMoments b, double sign) {
    return {a.mass + sign * b.mass, a.first + sign * b.first, a.second + sign * b.second};
  }
};

/// The distribution of given values, at least one, which must be finite. Not scaled to variance 1: distortions are of the values.
class SampleSource {
 public:
  explicit SampleSource(std::span<const float> values) : sorted_(values.begin(), values.end()) {
    ANYBIT_CHECK(!values.empty(), "SampleSource: at least one value");
    std::sort(sorted_.begin(), sorted_.end());
    first_.resize(sorted_.size() + 1);
    second_.resize(sorted_.size() + 1);
    for (std::size_t i = 0; i < sorted_.size(); ++i) {
      const double x = double{sorted_[i]};
      first_[i + 1] = first_[i] + x;
      second_[i + 1] = second_[i] + x * x;
    }
  }
  /// Of low < x <= high.
  CellMoments moments(double low, double high) const {
    const std::size_t from = at_or_below(low), to = at_or_below(high);
    const double n = static_cast<double>(sorted_.size());
    return {static_cast<double>(to - from) / n, (first_[to] - first_[from]) / n, (second_[to] - second_[from]) / n};
  }
  double variance() const {
    const CellMoments all = moments(-infinity, infinity);
    return all.second - all.first * all.first;
  }
  /// Levels as dense as the cube root of the values' density (Panter and Dite 1951): near the best where there are many.
  std::vector<double> companded(int count) const {
    // The density is that of runs of values, each as many, so that it is known in the tails too.
    const std::size_t last = sorted_.size() - 1, runs = std::min<std::size_t>(last, 4096);
    const auto end_of = [&](std::size_t run) { return double{sorted_[last * run / runs]}; };
    std::vector<double> reached{0};
    for (std::size_t r = 0; r < runs; ++r) reached.push_back(reached.back() + std::pow(end_of(r + 1) - end_of(r), 2.0 / 3));
    std::vector<double> levels;
    for (std::size_t r = 0; r < runs && levels.size() < static_cast<std::size_t>(count);) {
      const double wanted = (static_cast<double>(levels.size()) + 0.5) / count * reached.back();
      if (reached[r + 1] <= wanted)
        ++r;
      else
        levels.push_back(end_of(r) + (end_of(r + 1) - end_of(r)) * (wanted - reached[r]) / (reached[r + 1] - reached[r]));
    }
    levels.resize(static_cast<std::size_t>(count), double{sorted_.back()});
    return levels;
  }

 private:
  static constexpr double infinity = std::numeric_limits<double>::infinity();
  std::size_t at_or_below(double x) const {
    const auto greater = [](double value, float element) { return value < double{element}; };
    return static_cast<std::size_t>(std::upper_bound(sorted_.begin(), sorted_.end(), x, greater) - sorted_.begin());
  }
  std::vector<float> sorted_;
  std::vector<double> first_, second_;
};

/// D in dB below a variance of 1: 6.02 dB are one bit.
inline double decibels(double distortion) { return -10 * std::log10(distortion); }

/// D(R) of a Gaussian of variance 1: no quantizer of any kind gets below it.
inline double gaussian_distortion(double bits) { return std::exp2(-2 * bits); }
/// R(D) of a Gaussian of variance 1.
inline double gaussian_rate(double distortion) { return distortion < 1 ? -0.5 * std::log2(distortion) : 0; }
/// Shannon's lower bound 2^(2 h(X)) / (2 pi e) 2^(-2 R): D(R) itself for a Gaussian; for others below D(R), and tight at high
/// rates.
template <class Source>
double shannon_lower_bound(const Source& source, double bits) {
  return std::exp2(2 * (source.entropy() - GaussianSource::entropy() - bits));
}

/// Distortion and entropy of a source that is cut at `thresholds` (ascending) and restored by the means of the cells, which
/// become the levels.
template <class Source>
ScalarQuantizer cell_means(const Source& source, std::span<const double> thresholds) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  ScalarQuantizer q;
  double low = -infinity;
  for (std::size_t i = 0; i <= thresholds.size(); ++i) {
    const double high = i < thresholds.size() ? thresholds[i] : infinity;
    const CellMoments m = source.moments(low, high);
    if (m.mass > 0) {
      q.levels.push_back(m.first / m.mass);
      q.distortion += m.second - m.first * m.first / m.mass;
      q.entropy -= m.mass * std::log2(m.mass);
    } else {
      q.levels.push_back(is_infinite(low) ? high : is_infinite(high) ? low : 0.5 * (low + high));
    }
    low = high;
  }
  return q;
}

namespace detail {

inline std::vector<double> middles(std::span<const double> levels) {
  std::vector<double> t(levels.empty() ? 0 : levels.size() - 1);
  for (std::size_t i = 0; i < t.size(); ++i) t[i] = 0.5 * (levels[i] + levels[i + 1]);
  return t;
}

/// Newton's method for "every level is the mean of its cell". The Jacobian is tridiagonal: a level moves the two thresholds
/// beside it by half its way. False, and levels as they were, if the step breaks their order.
template <class Source>
bool newton_step(const Source& source, std::vector<double>& levels, double& largest_step) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const std::size_t n = levels.size();
  const std::vector<double> t = middles(levels);
  std::vector<double> diagonal(n), above(n), rest(n);  // of I - d(means)/d(levels); `below` is used at once
  for (std::size_t i = 0; i < n; ++i) {
    const double low = i > 0 ? t[i - 1] : -infinity, high = i + 1 < n ? t[i] : infinity;
    const CellMoments m = source.moments(low, high);
    if (!(m.mass > 0)) return false;
    const double mean = m.first / m.mass;
    const double by_low = i > 0 ? 0.5 * source.density(low) * (mean - low) / m.mass : 0,
                 by_high = i + 1 < n ? 0.5 * source.density(high) * (high - mean) / m.mass : 0;
    diagonal[i] = 1 - by_low - by_high;
    above[i] = -by_high;
    rest[i] = mean - levels[i];
    if (i > 0) {
      const double factor = -by_low / diagonal[i - 1];
      diagonal[i] -= factor * above[i - 1];
      rest[i] -= factor * rest[i - 1];
    }
    if (!(diagonal[i] > 0)) return false;
  }
  std::vector<double> moved(n);
  for (std::size_t i = n; i-- > 0;) moved[i] = (rest[i] - (i + 1 < n ? above[i] * moved[i + 1] : 0)) / diagonal[i];
  largest_step = 0;
  for (std::size_t i = 0; i < n; ++i) {
    largest_step = std::max(largest_step, std::abs(moved[i]));
    moved[i] += levels[i];
  }
  if (!std::is_sorted(moved.begin(), moved.end()) || !is_finite(largest_step)) return false;
  levels = std::move(moved);
  return true;
}

}  // namespace detail

/// x with P(X <= x) = fraction, 0 < fraction < 1.
template <class Source>
double quantile(const Source& source, double fraction) {
  double low = -64, high = 64;
  for (int i = 0; i < 64; ++i) {
    const double middle = 0.5 * (low + high);
    (source.moments(-std::numeric_limits<double>::infinity(), middle).mass < fraction ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

/// The quantizer of `count` levels with the least distortion (Lloyd 1957, Max 1960): thresholds half way between levels, levels
/// the means of their cells. Gaussian and Laplace densities are log-concave, so there is only one; for samples it is the one that
/// Lloyd's iteration reaches from a Gaussian's or from Panter and Dite's levels, whichever are better to begin with.
template <class Source>
ScalarQuantizer lloyd_max(const Source& source, int count) {
  ANYBIT_CHECK(count >= 1 && count <= 4096, "lloyd_max: 1 to 4096 levels");
  constexpr bool has_density = requires { source.density(0.0); };
  std::vector<double> levels(static_cast<std::size_t>(count));
  double size = 1;
  if constexpr (has_density) {
    for (std::size_t i = 0; i < levels.size(); ++i)
      levels[i] = Source::companding * quantile(source, (static_cast<double>(i) + 0.5) / static_cast<double>(count));
  } else {
    size = std::sqrt(source.variance());
    levels = lloyd_max(GaussianSource{}, count).levels;
    for (double& l : levels) l *= size;
    std::vector<double> companded = source.companded(count);
    if (cell_means(source, detail::middles(companded)).distortion < cell_means(source, detail::middles(levels)).distortion)
      levels = std::move(companded);
  }
  for (int round = 0; round < (has_density ? 300 : 3000); ++round) {
    double moved = 0;
    bool done = false;
    if constexpr (has_density) done = round >= 4 && detail::newton_step(source, levels, moved);
    if (!done) {
      std::vector<double> means = cell_means(source, detail::middles(levels)).levels;
      moved = 0;
      for (std::size_t i = 0; i < means.size(); ++i) moved = std::max(moved, std::abs(means[i] - levels[i]));
      levels = std::move(means);
    }
    if (moved <= (has_density ? 1e-13 : 1e-6) * size) break;
  }
  return cell_means(source, detail::middles(levels));
}

/// The same between whole numbers of levels: dB linear in bits from one count to the next.
template <class Source>
double lloyd_max_distortion(const Source& source, double bits) {
  const double count = std::exp2(bits), below = std::max(1.0, std::floor(count + 1e-9));
  const double d = lloyd_max(source, static_cast<int>(below)).distortion;
  const double part = (bits - std::log2(below)) / std::log2((below + 1) / below);
  if (part < 1e-9) return d;
  return d * std::pow(lloyd_max(source, static_cast<int>(below) + 1).distortion / d, part);
}

/// Levels (lowest + i) * step, i = 0 .. count - 1, with the step that has the least distortion. A lowest of -(count - 1) / 2 is
/// the optimal uniform quantizer; two's complement of b bits has -2^(b-1) and 2^b, Superfloat 1 - 2^(b-1) and 2^b - 1.
template <class Source>
ScalarQuantizer best_uniform(const Source& source, double lowest, int count) {
  ANYBIT_CHECK(count >= 2 && count <= 65536, "best_uniform: 2 to 65536 levels");
  const auto quantizer = [&](double step) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    ScalarQuantizer q;
    for (int i = 0; i < count; ++i) {
      const double level = (lowest + i) * step;
      const CellMoments m = source.moments(i > 0 ? level - 0.5 * step : -infinity, i + 1 < count ? level + 0.5 * step : infinity);
      q.levels.push_back(level);
      q.distortion += m.second - 2 * level * m.first + level * level * m.mass;
      if (m.mass > 0) q.entropy -= m.mass * std::log2(m.mass);
    }
    return q;
  };
  // Golden section, over the logarithm of the step: from the largest level at 0.4 deviations to at 40.
  const double reach = std::max(std::abs(lowest), std::abs(lowest + count - 1)), ratio = 0.5 * (std::sqrt(5.0) - 1);
  double low = std::log(0.4 / reach), high = std::log(40 / reach);
  double a = high - ratio * (high - low), b = low + ratio * (high - low);
  double at_a = quantizer(std::exp(a)).distortion, at_b = quantizer(std::exp(b)).distortion;
  while (high - low > 1e-9) {
    if (at_a < at_b) {
      high = b, b = a, at_b = at_a;
      a = high - ratio * (high - low);
      at_a = quantizer(std::exp(a)).distortion;
    } else {
      low = a, a = b, at_a = at_b;
      b = low + ratio * (high - low);
      at_b = quantizer(std::exp(b)).distortion;
    }
  }
  return quantizer(std::exp(0.5 * (low + high)));
}

/// Uniform thresholds on both sides of a cell around 0, means as levels, and codes of as many bits as their entropy: the least D
/// for an entropy of `bits`, 0 < bits <= 10. 1.53 dB above D(R) at high rates, closer below.
template <class Source>
ScalarQuantizer entropy_coded_uniform(const Source& source, double bits) {
  ANYBIT_CHECK(bits > 0 && bits <= 10, "entropy_coded_uniform: above 0 and up to 10 bits");
  constexpr double end = 26;  // beyond it both densities have less than 1e-15 of their mass
  const auto quantizer = [&](double step) {
    std::vector<double> thresholds;
    const int cells = static_cast<int>(end / step) + 1;
    for (int i = -cells; i < cells; ++i) thresholds.push_back((i + 0.5) * step);
    return cell_means(source, thresholds);
  };
  double low = std::log(1e-3), high = std::log(2 * end);
  while (high - low > 1e-9) {
    const double middle = 0.5 * (low + high);
    (quantizer(std::exp(middle)).entropy > bits ? low : high) = middle;
  }
  return quantizer(std::exp(0.5 * (low + high)));
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
