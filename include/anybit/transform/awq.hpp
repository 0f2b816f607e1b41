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
  std::vector<double> losses;  ///< of ratio 0, 1 / n, .., (n - 1) / n
};

/// Tries n ratios k / n; `loss` gets the effective weights of all siblings and returns the error of whatever output counts.
/// Ratios whose loss is not finite are passed over; if all are, the choice is ratio 0 (scale 1).
template <AnyScheme S, class Loss>
ScaleChoice search_scale(std::span<const ConstMatrix> siblings, std::span<const float> mean_abs, const GridFit& fit, int ratios,
                         Loss&& loss, ExecutorRef executor = {}) {
  ScaleChoice choice{std::vector<float>(mean_abs.size(), 1.0f), 0, {}};
  double least = std::numeric_limits<double>::infinity();
  for (int k = 0; k < ratios; ++k) {
    const float ratio = static_cast<float>(k) / static_cast<float>(ratios);
    std::vector<float> s = scale_for(mean_abs, ratio);
    std::vector<Matrix> rounded;
    std::vector<ConstMatrix> views;
    rounded.reserve(siblings.size());
    for (const ConstMatrix& w : siblings) views.push_back(rounded.emplace_back(rounded_under<S>(w, s, fit, executor)).view());
    const double l = loss(std::span<const ConstMatrix>(views));
    choice.losses.push_back(l);
    if (l < least) {
      least = l;
      choice.scale = std::move(s);
      choice.ratio = ratio;
    }
  }
  return choice;
}

/// Mean squared error of all outputs side by side, for linear outputs: through H = 2/n X^T X.
inline double linear_loss(std::span<const ConstMatrix> exact, std::span<const ConstMatrix> rounded,
                          MatrixView<const float> hessian, ExecutorRef executor = {}) {
  double sum = 0;
  Index outputs = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    sum += calibrate::quadratic_trace<float>(calibrate::difference(exact[i], rounded[i]).view(), hessian, executor);
    outputs += exact[i].rows;
  }
  return sum / 2 / static_cast<double>(outputs);
}

/// d_r H_gg d_r^T of every row r of d, for the columns of H that start at `first`.
inline void row_errors(const RowMatrix& d, MatrixView<const float> hessian, Index first, std::span<double> errors) {
  const Eigen::Map<const RowMatrix, 0, Eigen::OuterStride<>> h(hessian.data, hessian.rows, hessian.cols,
                                                               Eigen::OuterStride<>(hessian.stride));
  const RowMatrix product = d * h.block(first, first, d.cols(), d.cols());
  for (Index r = 0; r < d.rows(); ++r)
    errors[static_cast<std::size_t>(r)] = d.row(r).cwiseProduct(product.row(r)).cast<double>().sum();
}

/// Per group of each row the magnitude to cut off at, (rows, groups): max|w| times 1 - i / steps, i = 0 .. steps / 2 - 1,
/// whichever gives the group's part of the output the least squared error, d H_gg d^T.
template <AnyScheme S>
Matrix clip_limits(ConstMatrix w, MatrixView<const float> hessian, const GridFit& fit, int steps, ExecutorRef executor = {}) {
  using F = typename S::format;
  constexpr Index tile = 64;
  const Index width = S::granularity::group_cols(w.cols), groups = S::granularity::groups_per_row(w.cols);
  Matrix limits(w.rows, groups);
  executor.parallel_for(w.rows, tile, [&](Index begin, Index end) {
    for (Index r0 = begin; r0 < end; r0 += tile) {
      const Index rows = std::min(tile, end - r0);
      for (Index g = 0; g < groups; ++g) {
        const Index first = g * width, count = std::min(width, w.cols - first);
        for (Index r = 0; r < rows; ++r)
          limits(r0 + r, g) = abs_max(w.row(r0 + r).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
        RowMatrix d(rows, count);
        std::vector<float> cut(static_cast<std::size_t>(count));
        std::vector<double> least(static_cast<std::size_t>(rows), std::numeric_limits<double>::infinity()), errors(least.size());
        for (int i = 0; i < std::max(steps / 2, 1); ++i) {
          const float kept = static_cast<float>(1.0 - static_cast<double>(i) / steps);
          for (Index r = 0; r < rows; ++r) {
            const auto exact = w.row(r0 + r).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
            const float limit = abs_max(exact) * kept;
            for (std::size_t j = 0; j < cut.size(); ++j) cut[j] = calibrate::clipped(exact[j], limit);
            const Affine a = stored<S>(fit.plain<F>(cut));
            for (std::size_t j = 0; j < cut.size(); ++j)
              d(r, static_cast<Index>(j)) = dequantize_value<F>(quantize_value<F>(cut[j], a), a) - exact[j];
          }
          row_errors(d, hessian, first, errors);
          for (Index r = 0; r < rows; ++r) {
            const double error = errors[static_cast<std::size_t>(r)];
            if (!(error < least[static_cast<std::size_t>(r)])) continue;
            least[static_cast<std::size_t>(r)] = error;
            const auto exact = w.row(r0 + r).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
            limits(r0 + r, g) = abs_max(exact) * kept;
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
    const auto linear = [&](std::span<const ConstMatrix> rounded) {
      return awq::linear_loss(siblings, rounded, view(), options.executor);
    };
    const auto mean_abs = set.stats.mean_abs();
    const auto choice = block_loss ? awq::search_scale<S>(siblings, mean_abs, fit, ratios, block_loss, options.executor)
                                   : awq::search_scale<S>(siblings, mean_abs, fit, ratios, linear, options.executor);
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
