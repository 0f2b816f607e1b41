#pragma once
// The searches of AWQ for the scale and the clip limits with the least error. See transform/awq.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/grid/group_grids.hpp>
#include <anybit/recipe/algorithm.hpp>
#include <anybit/recipe/objective.hpp>

namespace anybit::awq {
inline namespace ANYBIT_CODE {

/// The grids that an algorithm will use, without its search: AWQ tries hundreds of candidates.
template <class Algorithm>
GridFit grid_of(const Algorithm& algorithm) {
  GridFit fit = AlgorithmTraits<Algorithm>::grid_fit(algorithm);
  fit.search = Search::none;
  return fit;
}

/// Divides the scales of inputs whose statistic x is not 0 by sqrt(largest * smallest of them). The others, of which nothing is
/// known, get 1: the floor of their scales would multiply whatever they carry later by 1e4.
inline void normalize_alive(std::span<const float> x, std::span<float> s) {
  float low = std::numeric_limits<float>::infinity(), high = 0;
  for (std::size_t j = 0; j < s.size(); ++j)
    if (x[j] != 0) low = std::min(low, s[j]), high = std::max(high, s[j]);
  float norm = std::sqrt(high * low);
  if (!(norm > 0 && norm <= std::numeric_limits<float>::max())) norm = std::sqrt(high) * std::sqrt(low);  // the product overflows
  for (std::size_t j = 0; j < s.size(); ++j) s[j] = x[j] != 0 ? s[j] / norm : 1.0f;
}

/// s = max(mean|x|^ratio, 1e-4), normalized so that the largest times the smallest is 1; 1 where mean|x| is 0.
inline std::vector<float> scale_for(std::span<const float> mean_abs, float ratio) {
  std::vector<float> s(mean_abs.size());
  for (std::size_t j = 0; j < s.size(); ++j) s[j] = std::max(std::pow(mean_abs[j], ratio), 1e-4f);
  normalize_alive(mean_abs, s);
  return s;
}

/// Mean over the rows of all siblings of |w| / (largest |w| of its group), in 0 .. 1: which columns hold the groups' large
/// weights.
template <AnyScheme S>
std::vector<float> weight_share(std::span<const ConstMatrix> siblings) {
  constexpr float least = 1e-6f;
  const auto n = static_cast<std::size_t>(siblings[0].cols);
  const auto width = std::is_same_v<typename S::granularity, PerTensor>
                         ? n
                         : static_cast<std::size_t>(S::granularity::group_cols(siblings[0].cols));
  std::vector<double> sum(n);
  Index rows = 0;
  for (const ConstMatrix& w : siblings) {
    rows += w.rows;
    for (Index r = 0; r < w.rows; ++r)
      for (std::size_t first = 0; first < n; first += width) {
        const std::span<const float> group = w.row(r).subspan(first, std::min(width, n - first));
        const float largest = abs_max(group) + least;
        for (std::size_t j = 0; j < group.size(); ++j) sum[first + j] += static_cast<double>(std::fabs(group[j]) / largest);
      }
  }
  std::vector<float> share(n);
  for (std::size_t j = 0; j < n; ++j) share[j] = static_cast<float>(sum[j] / static_cast<double>(rows));
  return share;
}

/// The duo scaling of the authors' successors: s = max(x^ratio / (w^(1 - ratio) + 1e-4), 1e-4), normalized in the same way, 1
/// where that is no number. x is the statistic of activations, w the share of weights.
inline std::vector<float> duo_scale_for(std::span<const float> x, std::span<const float> w, float ratio) {
  std::vector<float> s(x.size());
  for (std::size_t j = 0; j < s.size(); ++j) s[j] = std::max(std::pow(x[j], ratio) / (std::pow(w[j], 1 - ratio) + 1e-4f), 1e-4f);
  normalize_alive(x, s);
  for (float& v : s)
    if (!is_finite(v)) v = 1;
  return s;
}

/// What the layer computes with if W is rounded after scaling: Q(W diag(s)) diag(s)^-1.
template <AnyScheme S>
Matrix rounded_under(ConstMatrix w, std::span<const float> s, const GridFit& fit, ExecutorRef executor = {}) {
  Matrix scaled(w);
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c) scaled(r, c) *= s[static_cast<std::size_t>(c)];
  Matrix back = dequantize(grid::round_to_grid<S>(scaled.view(), fit, {}, executor));
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c) back(r, c) /= s[static_cast<std::size_t>(c)];
  return back;
}

struct ScaleChoice {
  std::vector<float> scale;  ///< the best; all 1 if no loss was finite
  float ratio = 0;
  bool duo = false;
  /// Of ratio 0, 1 / n, .., (n - 1) / n, of the better mapping where both were tried; of those that stopped early, what they had
  /// by then.
  std::vector<double> losses;
  double loss = std::numeric_limits<double>::infinity();

  bool scales() const {
    return std::any_of(scale.begin(), scale.end(), [](float s) { return s != 1; });
  }
};

/// Tries n ratios k / n. `loss(scale, least)` returns the error of whatever output counts; where that is above `least`, the
/// least so far, it may stop early and return anything above it. Of equal losses the smaller ratio wins. Ratios whose loss is
/// not finite are passed over; if all are, the choice is scale 1. With a `share` (see weight_share) scales are duo scales. A
/// choice made `before` stays unless there is a better one.
template <class Loss>
ScaleChoice search_scale(std::span<const float> statistic, int ratios, Loss&& loss, std::span<const float> share = {},
                         const ScaleChoice* before = nullptr) {
  ScaleChoice choice{std::vector<float>(statistic.size(), 1.0f), 0, false, std::vector<double>(static_cast<std::size_t>(ratios))};
  double least = before ? before->loss : choice.loss;
  int best = ratios;
  // From the middle outwards: the best ratio is often near it, and then the others can stop early.
  for (int i = 0; i < ratios; ++i) {
    const int k = ratios / 2 + (i % 2 == 1 ? -(i + 1) / 2 : i / 2);
    const float ratio = static_cast<float>(k) / static_cast<float>(ratios);
    std::vector<float> s = share.empty() ? scale_for(statistic, ratio) : duo_scale_for(statistic, share, ratio);
    const double l = loss(std::span<const float>(s), least);
    choice.losses[static_cast<std::size_t>(k)] = l;
    if (!(l < least || (l == least && k < best && best < ratios)) || l == std::numeric_limits<double>::infinity()) continue;
    least = l;
    best = k;
    choice.scale = std::move(s);
    choice.ratio = ratio;
    choice.duo = !share.empty();
    choice.loss = l;
  }
  return before && best == ratios ? *before : choice;
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
      parallel_tiles(executor, end - first, tile, [&](Index from, Index to) {
        for (Index r = first + from; r < first + to; r += tile) {
          const ConstMatrix rows = w.row_range(r, std::min(r + tile, first + to));
          const Matrix error = rows_are_independent ? recipe::difference(rows, rounded_under<S>(rows, s, fit).view())
                                                    : recipe::difference(rows, all.view().row_range(r, r + rows.rows));
          sums[static_cast<std::size_t>((r - first) / tile)] = recipe::quadratic_trace<Real>(error.view(), hessian);
        }
      });
      for (const double part : sums) sum += part * factor;  // one by one: the same for any number of threads
      if (sum > least) return sum;
    }
  }
  return sum;
}

/// What an algorithm that moves errors on to later columns leaves, in units of its costs (one a column), if the siblings are
/// rounded under scale s: the sum of squared rounding errors, each times its column's cost. Its ranking of scales is that of
/// the errors that GPTQ ends with.
template <AnyScheme S>
double feedback_loss(std::span<const ConstMatrix> siblings, std::span<const float> s, const GridFit& fit,
                     std::span<const float> costs, double least = std::numeric_limits<double>::infinity(),
                     ExecutorRef executor = {}) {
  double sum = 0;
  for (const ConstMatrix& w : siblings) {
    const Matrix rounded = rounded_under<S>(w, s, fit, executor);
    for (Index r = 0; r < w.rows; ++r) {
      const float *exact = w.row(r).data(), *got = rounded.view().row(r).data(), *cost = costs.data();
      sum += lane_sum(w.cols, [=](Index j) {
        const double d = static_cast<double>(exact[j]) - static_cast<double>(got[j]);
        return d * d * static_cast<double>(cost[j]);
      });
    }
    if (sum > least) return sum;
  }
  return sum;
}

/// Per group of each row the magnitude to cut off at, (rows, groups): max|w| times 1 - i / steps, i = 0 .. steps / 2 - 1,
/// whichever gives the group's part of the output the least squared error, d H_gg d^T. Groups for which no limit has a finite
/// error are not cut; `unresolved`, where given, gets their number.
template <AnyScheme S, class Real>
Matrix clip_limits(ConstMatrix w, MatrixView<const Real> hessian, const GridFit& fit, int steps, ExecutorRef executor = {},
                   Index* unresolved = nullptr) {
  using F = typename S::format;
  constexpr Index tile = 64;
  const Index width = S::granularity::group_cols(w.cols), groups = S::granularity::groups_per_row(w.cols);
  Matrix limits(w.rows, groups);
  std::vector<Index> without(static_cast<std::size_t>(w.rows));
  parallel_tiles(executor, w.rows, tile, [&](Index begin, Index end) {
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
            for (std::size_t j = 0; j < n; ++j) cut[j] = grid::clipped(exact[j], limit);
            const Affine a = stored<S>(fit.plain<F>(std::span(cut).first(n)));
            quantize_values<F>(std::span(cut).first(n), a, std::span(codes).first(n));
            decoding::dequantize_codes<F>(codes.data(), a, count, cut.data());
            for (std::size_t j = 0; j < n; ++j) error.row(r)[j] = cut[j] - exact[j];
          }
          std::fill_n(products.begin(), rows * count, Real{0});
          dense::add_product<Real>(error, hessian.row_range(first, first + count).col_range(first, first + count), product);
          for (Index r = 0; r < rows; ++r) {
            const Real *d = error.row(r).data(), *hd = product.row(r).data();
            const double loss = lane_sum(count, [d, hd](Index j) { return static_cast<double>(d[j] * hd[j]); });
            if (!(loss < least[static_cast<std::size_t>(r)])) continue;
            least[static_cast<std::size_t>(r)] = loss;
            limits(r0 + r, g) = limit_of(r);
          }
        }
        for (Index r = 0; r < rows; ++r)
          if (!(least[static_cast<std::size_t>(r)] < std::numeric_limits<double>::infinity())) {
            limits(r0 + r, g) = abs_max(w.row(r0 + r).subspan(static_cast<std::size_t>(first), n));
            ++without[static_cast<std::size_t>(r0 + r)];
          }
      }
    }
  });
  if (unresolved)
    for (const Index n : without) *unresolved += n;
  return limits;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::awq

#include <anybit/core/macros_end.hpp>
