#pragma once
// SmoothQuant (Xiao et al., 2022): moves part of the activations' range into the weights, channel by channel, so that both
// can be rounded to 8 bits. See docs/methods/smoothquant.md. Readable twin: reference/smooth_quant.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/grid/group_grids.hpp>
#include <anybit/recipe/transform.hpp>

namespace anybit::smooth_quant {
inline namespace ANYBIT_CODE {

/// Largest |w| of every column over all rows of all siblings, at least 1e-5, as published.
inline std::vector<float> column_maxima(std::span<const ConstMatrix> siblings) {
  std::vector<float> largest(static_cast<std::size_t>(siblings[0].cols), 1e-5f);
  for (const ConstMatrix& w : siblings)
    for (Index r = 0; r < w.rows; ++r)
      for (std::size_t j = 0; j < largest.size(); ++j) largest[j] = std::max(largest[j], std::fabs(w.row(r)[j]));
  return largest;
}

/// s_j = x_j^alpha / w_j^(1 - alpha), at least 1e-5. 1 where x_j is 0: nothing is known of such an input, and the floor would
/// multiply whatever it carries later by 1e5.
inline std::vector<float> scale_for(std::span<const float> x, std::span<const float> w, float alpha) {
  std::vector<float> s(x.size(), 1.0f);
  for (std::size_t j = 0; j < s.size(); ++j)
    if (x[j] != 0) s[j] = std::max(std::pow(x[j], alpha) / std::pow(w[j], 1 - alpha), 1e-5f);
  return s;
}

/// The values that 8 bits make of x: a scale of largest / 127 for each token, or `fixed` for all of them.
template <class = void>
Matrix rounded_to_int8(ConstMatrix x, float fixed = 0) {
  Matrix out(x);
  std::vector<code_t<SInt<8>>> codes(static_cast<std::size_t>(x.cols));
  for (Index t = 0; t < x.rows; ++t) {
    const Affine a{fixed > 0 ? fixed : abs_max(x.row(t)) / 127, 0};
    float* row = out.data() + t * x.cols;
    quantize_values<SInt<8>>(x.row(t), a, codes);
    for (std::size_t j = 0; j < codes.size(); ++j)
      row[j] = std::max(a.scale * SInt<8>::decode(codes[j]), -127 * a.scale);  // both signs alike
  }
  return out;
}

/// ||X W^T - Q(X / s) Q(W s)^T||^2 over all siblings: activations in 8 bits, weights as the scheme has them. Stops above `least`.
template <AnyScheme S>
double product_error(ConstMatrix x, std::span<const ConstMatrix> siblings, std::span<const float> s, const GridFit& fit,
                     bool static_activations, float largest_input, double least, ExecutorRef executor) {
  Matrix divided(x);
  for (Index t = 0; t < x.rows; ++t)
    for (Index j = 0; j < x.cols; ++j) divided(t, j) /= s[static_cast<std::size_t>(j)];
  const Matrix rounded = rounded_to_int8(divided.view(), static_activations ? largest_input / 127 : 0);
  Matrix exact(x.cols, x.rows), minus(x.cols, x.rows);  // inputs x tokens
  for (Index t = 0; t < x.rows; ++t)
    for (Index j = 0; j < x.cols; ++j) exact(j, t) = x(t, j), minus(j, t) = -rounded(t, j);
  constexpr Index tile = 64;
  double sum = 0;
  for (const ConstMatrix& w : siblings) {
    Matrix scaled(w);
    for (Index r = 0; r < w.rows; ++r)
      for (Index j = 0; j < w.cols; ++j) scaled(r, j) *= s[static_cast<std::size_t>(j)];
    const Matrix q = dequantize(grid::round_to_grid<S>(scaled.view(), fit, {}, executor));
    std::vector<double> sums(static_cast<std::size_t>(ceil_div(w.rows, tile)));  // one a tile: equal for any number of threads
    parallel_tiles(executor, w.rows, tile, [&](Index begin, Index end) {
      for (Index r = begin; r < end; r += tile) {
        const Index last = std::min(r + tile, end);
        Matrix d(last - r, x.rows);
        dense::add_product<float>(w.row_range(r, last), std::as_const(exact).view(), d.view());
        dense::add_product<float>(q.view().row_range(r, last), std::as_const(minus).view(), d.view());
        sums[static_cast<std::size_t>(r / tile)] = lane_sum(
            d.extents().size(), [p = d.data()](Index i) { return static_cast<double>(p[i]) * static_cast<double>(p[i]); });
      }
    });
    for (const double part : sums) sum += part;
    if (sum > least) return sum;
  }
  return sum;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::smooth_quant

namespace anybit {
inline namespace ANYBIT_CODE {

/// s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), the second maximum over all rows of all siblings; both the weight maximum and
/// s are at least 1e-5, as published. Inputs that were always 0 keep s = 1, which the report says. The weights become W diag(s),
/// the inputs X / s.
struct SmoothQuant {
  static constexpr Needs needs = Needs::abs_max;
  static constexpr Stage stage = Stage::smoothing;

  float alpha = 0.5f;  ///< 0 to 1: how much of the difficulty goes to the weights (0.5 OPT and BLOOM, 0.85 Llama 2 and 3)

  std::string describe() const {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f", static_cast<double>(alpha));
    if (std::strtof(text, nullptr) != alpha) std::snprintf(text, sizeof text, "%.9g", static_cast<double>(alpha));
    return "smooth_quant(alpha=" + std::string(text) + ")";
  }

  Result<std::vector<float>> fit(std::span<const ConstMatrix> siblings, const Stats& stats,
                                 std::span<const Index> tied = {}) const {
    if (!is_within(alpha, 0, 1))
      return Error{ErrorCode::invalid_argument, "smooth_quant: alpha is " + std::to_string(alpha) + "; it must lie in 0 to 1"};
    ANYBIT_TRY_STATUS(recipe::check_siblings(siblings));
    ANYBIT_TRY_STATUS(recipe::check_tied(tied, siblings[0].cols));
    ANYBIT_TRY_STATUS(recipe::check_stats(stats, needs, siblings[0].cols, "smooth_quant"));
    const auto inputs = stats.abs_max();
    return smooth_quant::scale_for(recipe::max_of_tied({inputs.begin(), inputs.end()}, tied),
                                   recipe::max_of_tied(smooth_quant::column_maxima(siblings), tied), alpha);
  }

  template <class Algorithm>
  Status apply(Siblings& set, const Algorithm&, const QuantizeOptions& options) const {
    ANYBIT_TRY(const std::vector<float> s, fit(set.views(), *set.stats, options.tied));
    const auto maxima = set.stats->abs_max();
    recipe::report_unscaled("smooth_quant", recipe::max_of_tied({maxima.begin(), maxima.end()}, options.tied), set);
    recipe::scale_inputs(set, s);
    return Ok{};
  }
};

/// Only what a norm feeds is smoothed, as published.
template <>
struct TransformTraits<SmoothQuant> : TransformDefaults<SmoothQuant> {
  static constexpr bool folds_into_linear = false;
};

/// SmoothQuant with the alpha for each group of siblings that leaves their outputs the least error on the samples, with
/// activations in 8 bits and weights as the algorithm has them; or no smoothing, where that is better than any. It is folded into
/// linears (o, down) too: nothing is smoothed that is not better for it.
struct SmoothQuantSearch {
  static constexpr Needs needs = Needs::abs_max | Needs::samples;
  static constexpr Stage stage = Stage::smoothing;

  int steps = 20;                   ///< alpha = k / steps for k = 0 .. steps
  Index tokens = 128;               ///< samples that judge, evenly taken from those there are
  bool static_activations = false;  ///< one scale of activations for all tokens, largest / 127, instead of one a token

  std::string describe() const {
    std::string text = "smooth_quant(searched";
    if (static_activations) text += ", static";
    if (steps != 20) text += ", steps=" + std::to_string(steps);
    if (tokens != 128) text += ", tokens=" + std::to_string(tokens);
    return text + ")";
  }

  template <class Algorithm>
  Status apply(Siblings& set, const Algorithm& algorithm, const QuantizeOptions& options) const {
    if (steps < 1 || steps > 1000)
      return Error{ErrorCode::invalid_argument,
                   "smooth_quant: steps is " + std::to_string(steps) + "; it must be 1 to 1000 (20 is usual)"};
    if (tokens < 1)
      return Error{ErrorCode::invalid_argument,
                   "smooth_quant: tokens is " + std::to_string(tokens) + "; at least 1 is needed (128 is usual)"};
    const auto siblings = set.views();
    ANYBIT_TRY_STATUS(recipe::check_siblings(siblings));
    ANYBIT_TRY_STATUS(recipe::check_tied(options.tied, siblings[0].cols));
    ANYBIT_TRY_STATUS(recipe::check_stats(*set.stats, needs, siblings[0].cols, "smooth_quant"));
    const ConstMatrix samples = set.stats->samples();
    const Index count = std::min(tokens, samples.rows);
    Matrix x(count, samples.cols);
    for (Index t = 0; t < count; ++t)
      std::copy_n(samples.row(t * samples.rows / count).data(), x.cols(), x.data() + t * x.cols());

    GridFit fit = AlgorithmTraits<Algorithm>::grid_fit(algorithm);
    fit.search = Search::none;
    const auto maxima = set.stats->abs_max();
    const std::vector<float> inputs = recipe::max_of_tied({maxima.begin(), maxima.end()}, options.tied),
                             weights = recipe::max_of_tied(smooth_quant::column_maxima(siblings), options.tied);
    const auto error = [&](std::span<const float> s, double least) {
      float largest = 0;
      for (std::size_t j = 0; j < s.size(); ++j) largest = std::max(largest, maxima[j] / s[j]);
      return smooth_quant::product_error<typename Algorithm::scheme>(x.view(), siblings, s, fit, static_activations, largest,
                                                                     least, options.executor);
    };
    const double without = error(std::vector<float>(inputs.size(), 1.0f), std::numeric_limits<double>::infinity());
    double least = is_finite(without) ? without : std::numeric_limits<double>::infinity();
    std::vector<float> best;
    float alpha = 0;
    for (int k = 0; k <= steps; ++k) {
      const float a = static_cast<float>(k) / static_cast<float>(steps);
      std::vector<float> s = smooth_quant::scale_for(inputs, weights, a);
      if (const double e = error(s, least); e < least) least = e, alpha = a, best = std::move(s);
    }
    if (best.empty()) {
      set.remarks.push_back("smooth_quant: not smoothed, no alpha lowered the error of the outputs");
      return Ok{};
    }
    set.remarks.push_back("smooth_quant: alpha " + std::to_string(alpha).substr(0, 4) + ", squared error of outputs " +
                          std::to_string(least / without).substr(0, 5) + " times that without");
    recipe::report_unscaled("smooth_quant", inputs, set);
    recipe::scale_inputs(set, best);
    return Ok{};
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
