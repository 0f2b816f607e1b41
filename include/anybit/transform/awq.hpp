#pragma once
// AWQ (Lin et al., 2023): scales up the input channels that carry large activations before rounding, by as much as lowers the
// output error; then cuts off outlying weights where that lowers it further. See docs/awq.md.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <anybit/calibrate/group_grids.hpp>
#include <anybit/calibrate/objective.hpp>
#include <anybit/calibrate/siblings.hpp>

namespace anybit::awq::inline ANYBIT_CODE {

/// The grids that an algorithm will use, without its search: AWQ tries hundreds of candidates.
template <class Algorithm>
GridFit grid_of(const Algorithm& algorithm) {
  GridFit fit{};
  if constexpr (requires { algorithm.grid_fit(); }) fit = algorithm.grid_fit();
  fit.search = Search::none;
  return fit;
}

/// s = max(mean|x|^ratio, 1e-4), normalized so that the largest times the smallest is 1.
inline std::vector<float> scale_for(std::span<const float> mean_abs, float ratio) {
  std::vector<float> s(mean_abs.size());
  for (std::size_t j = 0; j < s.size(); ++j) s[j] = std::max(std::pow(mean_abs[j], ratio), 1e-4f);
  const auto [low, high] = std::minmax_element(s.begin(), s.end());
  const float norm = std::sqrt(*high * *low);
  for (float& v : s) v /= norm;
  return s;
}

/// What the layer computes with if W is rounded after scaling: Q(W diag(s)) diag(s)^-1.
template <AnyScheme S>
Matrix rounded_under(ConstMatrix w, std::span<const float> s, const GridFit& fit, ExecutorRef executor = {}) {
  Matrix scaled(w);
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c) scaled(r, c) *= s[static_cast<std::size_t>(c)];
  Matrix back = dequantize(calibrate::round_to_grid<S>(scaled.view(), fit, {}, executor));
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c) back(r, c) /= s[static_cast<std::size_t>(c)];
  return back;
}

struct ScaleChoice {
  std::vector<float> scale;  ///< of the best ratio
  float ratio = 0;
  std::vector<double> losses;  ///< of ratio 0, 1 / n, .., (n - 1) / n; of those that stopped early, what they had by then
};

/// Tries n ratios k / n. `loss(scale, least)` returns the error of whatever output counts; where that is above `least`, the
/// least so far, it may stop early and return anything above it. Of equal losses the smaller ratio wins. Ratios whose loss is
/// not finite are passed over; if all are, the choice is ratio 0 (scale 1).
template <class Loss>
ScaleChoice search_scale(std::span<const float> mean_abs, int ratios, Loss&& loss) {
  ScaleChoice choice{std::vector<float>(mean_abs.size(), 1.0f), 0, std::vector<double>(static_cast<std::size_t>(ratios))};
  double least = std::numeric_limits<double>::infinity();
  int best = ratios;
  // From the middle outwards: the best ratio is often near it, and then the others can stop early.
  for (int i = 0; i < ratios; ++i) {
    const int k = ratios / 2 + (i % 2 == 1 ? -(i + 1) / 2 : i / 2);
    const float ratio = static_cast<float>(k) / static_cast<float>(ratios);
    std::vector<float> s = scale_for(mean_abs, ratio);
    const double l = loss(std::span<const float>(s), least);
    choice.losses[static_cast<std::size_t>(k)] = l;
    if (!(l < least || (l == least && k < best)) || l == std::numeric_limits<double>::infinity()) continue;
    least = l;
    best = k;
    choice.scale = std::move(s);
    choice.ratio = ratio;
  }
  return choice;
}

/// Mean squared error of all outputs side by side, through H = 2/n X^T X, if the siblings are rounded under scale s.
/// Stops above `least`, with what it has by then.
template <AnyScheme S, class Real>
double linear_loss(std::span<const ConstMatrix> siblings, std::span<const float> s, const GridFit& fit,
                   MatrixView<const Real> hessian, double least = std::numeric_limits<double>::infinity(),
                   ExecutorRef executor = {}) {
  constexpr Index tile = 128;
  constexpr bool rows_are_independent = !std::is_same_v<typename S::granularity, PerTensor> && !S::scale_store::joint;
  Index outputs = 0;
  for (const ConstMatrix& w : siblings) outputs += w.rows;
  const double factor = 1 / (2 * static_cast<double>(outputs));
  double sum = 0;
  for (const ConstMatrix& w : siblings) {
    Matrix all;
    if constexpr (!rows_are_independent) all = rounded_under<S>(w, s, fit, executor);
    const Index at_once = tile * std::max<Index>(executor.concurrency(), 1);
    for (Index first = 0; first < w.rows; first += at_once) {
      const Index end = std::min(first + at_once, w.rows);
      std::vector<double> sums(static_cast<std::size_t>(ceil_div(end - first, tile)));
      executor.parallel_for(end - first, tile, [&](Index from, Index to) {
        for (Index r = first + from; r < first + to; r += tile) {
          const ConstMatrix rows = w.row_range(r, std::min(r + tile, first + to));
          const Matrix error = rows_are_independent ? calibrate::difference(rows, rounded_under<S>(rows, s, fit).view())
                                                    : calibrate::difference(rows, all.view().row_range(r, r + rows.rows));
          sums[static_cast<std::size_t>((r - first) / tile)] = calibrate::quadratic_trace<Real>(error.view(), hessian);
        }
      });
      for (const double part : sums) sum += part * factor;  // one by one: the same for any number of threads
      if (sum > least) return sum;
    }
  }
  return sum;
}

/// Per group of each row the magnitude to cut off at, (rows, groups): max|w| times 1 - i / steps, i = 0 .. steps / 2 - 1,
/// whichever gives the group's part of the output the least squared error, d H_gg d^T.
template <AnyScheme S, class Real>
Matrix clip_limits(ConstMatrix w, MatrixView<const Real> hessian, const GridFit& fit, int steps, ExecutorRef executor = {}) {
  using F = typename S::format;
  constexpr Index tile = 64;
  const Index width = S::granularity::group_cols(w.cols), groups = S::granularity::groups_per_row(w.cols);
  Matrix limits(w.rows, groups);
  executor.parallel_for(w.rows, tile, [&](Index begin, Index end) {
    std::vector<float> cut(static_cast<std::size_t>(width));
    std::vector<code_t<F>> codes(cut.size());
    std::vector<Real> products(static_cast<std::size_t>(tile * width)), errors(products.size());
    std::vector<double> least(static_cast<std::size_t>(tile));
    for (Index r0 = begin; r0 < end; r0 += tile) {
      const Index rows = std::min(tile, end - r0);
      for (Index g = 0; g < groups; ++g) {
        const Index first = g * width, count = std::min(width, w.cols - g * width);
        const auto n = static_cast<std::size_t>(count);
        const MatrixView<Real> product(products.data(), rows, count), error(errors.data(), rows, count);
        std::fill(least.begin(), least.end(), std::numeric_limits<double>::infinity());
        for (int i = 0; i < std::max(steps / 2, 1); ++i) {
          const float kept = static_cast<float>(1.0 - static_cast<double>(i) / steps);
          const auto limit_of = [&](Index r) {
            return abs_max(w.row(r0 + r).subspan(static_cast<std::size_t>(first), n)) * kept;
          };
          for (Index r = 0; r < rows; ++r) {
            const float* exact = w.row(r0 + r).data() + first;
            const float limit = limit_of(r);
            for (std::size_t j = 0; j < n; ++j) cut[j] = calibrate::clipped(exact[j], limit);
            const Affine a = stored<S>(fit.plain<F>(std::span(cut).first(n)));
            quantize_values<F>(std::span(cut).first(n), a, std::span(codes).first(n));
            decoding::dequantize_codes<F>(codes.data(), a, count, cut.data());
            for (std::size_t j = 0; j < n; ++j) error.row(r)[j] = cut[j] - exact[j];
          }
          std::fill_n(products.begin(), rows * count, Real{0});
          calibrate::add_product<Real>(error, hessian.row_range(first, first + count).col_range(first, first + count), product);
          for (Index r = 0; r < rows; ++r) {
            const Real *d = error.row(r).data(), *hd = product.row(r).data();
            const double loss = lane_sum(count, [d, hd](Index j) { return static_cast<double>(d[j] * hd[j]); });
            if (!(loss < least[static_cast<std::size_t>(r)])) continue;
            least[static_cast<std::size_t>(r)] = loss;
            limits(r0 + r, g) = limit_of(r);
          }
        }
      }
    }
  });
  return limits;
}

}  // namespace anybit::awq::inline ANYBIT_CODE

namespace anybit::inline ANYBIT_CODE {

struct Awq {
  static constexpr bool is_transform = true;
  static constexpr Needs needs = Needs::mean_abs | Needs::hessian;
  static constexpr int order = 20;

  int ratios = 20;      ///< scales tried: mean|x|^(k / ratios) for k = 0 .. ratios - 1
  bool clip = true;     ///< also search clip limits; QuantizeOptions::clip excludes single siblings
  int clip_steps = 20;  ///< limits tried: 1 - i / clip_steps of the largest weight, down to one half (not included)
  /// Error of what the siblings feed, given their effective weights, where the linear outputs side by side are not what
  /// counts (gate and up of an MLP: down(silu(gate x) * up x)). Empty: the linear outputs.
  std::function<double(std::span<const ConstMatrix>)> block_loss{};

  std::string describe() const { return clip ? "awq" : "awq(no clip)"; }

  template <class Algorithm>
  Status apply(Siblings& set, const Algorithm& algorithm, const QuantizeOptions& options) const {
    using S = typename Algorithm::scheme;
    if (ratios < 1 || ratios > 1000)
      return Error{ErrorCode::invalid_argument,
                   "awq: ratios is " + std::to_string(ratios) + "; it must be 1 to 1000 (20 is usual)"};
    if (clip_steps < 1 || clip_steps > 1000)
      return Error{ErrorCode::invalid_argument,
                   "awq: clip_steps is " + std::to_string(clip_steps) + "; it must be 1 to 1000 (20 is usual)"};
    const auto siblings = set.views();
    ANYBIT_TRY_STATUS(calibrate::check_siblings(siblings));
    ANYBIT_TRY_STATUS(calibrate::check_stats(set.stats, needs, siblings[0].cols, "awq"));
    const GridFit fit = awq::grid_of(algorithm);

    Matrix hessian = set.stats.hessian();
    const auto view = [&hessian] { return MatrixView<const float>(hessian.data(), hessian.rows(), hessian.cols()); };
    const auto choice = awq::search_scale(set.stats.mean_abs(), ratios, [&](std::span<const float> s, double least) {
      if (!block_loss) return awq::linear_loss<S>(siblings, s, fit, view(), least, options.executor);
      std::vector<Matrix> rounded;
      for (const ConstMatrix& w : siblings) rounded.push_back(awq::rounded_under<S>(w, s, fit, options.executor));
      std::vector<ConstMatrix> views;
      for (const Matrix& m : rounded) views.push_back(m.view());
      return block_loss(views);
    });
    if (std::none_of(choice.losses.begin(), choice.losses.end(), [](double l) { return std::isfinite(l); }))
      set.fallbacks.push_back("awq: no ratio gave a finite loss; the inputs were not scaled");
    set.remarks.push_back("awq: ratio " + std::to_string(choice.ratio).substr(0, 5));
    if (choice.ratio > 0) {
      calibrate::scale_inputs(set, choice.scale);
      hessian = set.stats.hessian();
    }
    if (!clip) return Ok{};
    if constexpr (std::is_same_v<typename S::granularity, PerTensor>) {
      set.remarks.push_back("awq: one scale a tensor has no groups to clip");
    } else {
      for (std::size_t i = 0; i < set.weights.size(); ++i) {
        const bool wanted = options.clip.empty() || options.clip[i];
        set.clip_limits.push_back(wanted ? awq::clip_limits<S>(set.weights[i].view(), view(), fit, clip_steps, options.executor)
                                         : Matrix());
      }
    }
    return Ok{};
  }
};

}  // namespace anybit::inline ANYBIT_CODE
