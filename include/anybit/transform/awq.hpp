#pragma once
// AWQ (Lin et al., 2023): scales up the input channels with large activations before rounding, to minimize the output error;
// then clips outlying weights where that lowers it further. See docs/methods/awq.md. Readable twin: reference/awq.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/recipe/transform.hpp>
#include <anybit/transform/awq_search.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// How a ratio makes scales of statistics, x of the activations and w of the weights.
enum class AwqScaling {
  activations,  ///< x^r, as published
  duo,          ///< x^r / w^(1 - r), as in the follow-up code
  both,         ///< whichever is better
};

struct Awq {
  static constexpr Needs needs = Needs::mean_abs | Needs::hessian;
  static constexpr Stage stage = Stage::scaling;

  int ratios = 20;  ///< r = k / ratios for k = 0 .. ratios - 1
  AwqScaling scaling = AwqScaling::activations;
  bool clip = true;     ///< also search clip limits; QuantizeOptions::clip excludes single siblings
  int clip_steps = 20;  ///< limits tried: 1 - i / clip_steps of the largest weight, down to one half (not included)
  /// In front of an algorithm that compensates errors (AlgorithmTraits::has_feedback) scales are chosen for the error that
  /// remains after its feedback; a scale is kept only if no sibling gets worse. False: always for rounding to nearest, as
  /// published.
  bool for_algorithm = true;
  /// In a model, choose the scale of q, k and v by the error of the attention's output, that of gate and up by the MLP's, as
  /// published, on the first model::sequence_tokens tokens of calibration: model::quantize_model and quantize_layer_wise then
  /// give `block_loss`. Other linears stay with their own outputs.
  bool block_output = false;
  /// Error of what the siblings feed, given their effective weights (those that meet the inputs as they were before any
  /// transform), where the linear outputs side by side are not what counts (gate and up of an MLP: down(silu(gate x) * up x)).
  /// Empty: the linear outputs.
  BlockLoss block_loss{};

  std::string describe() const {
    std::string text;
    if (scaling != AwqScaling::activations) text += scaling == AwqScaling::duo ? ", duo" : ", duo or not";
    if (!for_algorithm) text += ", for rounding";
    if (block_output) text += ", block output";
    if (!clip) text += ", no clip";
    if (ratios != 20) text += ", ratios=" + std::to_string(ratios);
    if (clip && clip_steps != 20) text += ", clip_steps=" + std::to_string(clip_steps);
    return text.empty() ? "awq" : "awq(" + text.substr(2) + ")";
  }

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
    ANYBIT_TRY_STATUS(recipe::check_siblings(siblings));
    ANYBIT_TRY_STATUS(recipe::check_tied(options.tied, siblings[0].cols));
    ANYBIT_TRY_STATUS(recipe::check_stats(*set.stats, needs, siblings[0].cols, "awq"));
    if constexpr (AlgorithmTraits<Algorithm>::has_feedback) {
      if (for_algorithm && !block_loss) {
        const std::vector<float> costs = AlgorithmTraits<Algorithm>::column_costs(algorithm, *set.stats);
        if (!costs.empty()) return apply_for(algorithm, costs, set, options);
      }
    }

    const GridFit fit = awq::grid_of(algorithm);
    recipe::ScaledHessian hessian(*set.stats);
    const std::vector<float> sizes = recipe::mean_of_tied(set.stats->mean_abs(), options.tied);
    const auto choice = choose<S>(sizes, siblings, options, [&](std::span<const float> s, double least) {
      if (!block_loss)
        return hessian.unit * awq::linear_loss<S>(siblings, s, fit, hessian.view(), least / hessian.unit, options.executor);
      std::vector<Matrix> rounded;
      for (const ConstMatrix& w : siblings) {
        rounded.push_back(awq::rounded_under<S>(w, s, fit, options.executor));
        take_off(set.input_scale, rounded.back());
      }
      std::vector<ConstMatrix> views;
      for (const Matrix& m : rounded) views.push_back(m.view());
      return block_loss(views);
    });
    tell(choice, set);
    if (choice.scales()) {
      recipe::report_unscaled("awq", sizes, set);
      recipe::scale_inputs(set, choice.scale);
      hessian = recipe::ScaledHessian(*set.stats);
    }
    if (!clip) return Ok{};
    if constexpr (std::is_same_v<typename S::granularity, PerTensor>) {
      set.remarks.push_back("awq: one scale a tensor has no groups to clip");
    } else {
      Index unresolved = 0;
      for (std::size_t i = 0; i < set.weights.size(); ++i) {
        const bool wanted = options.clip.empty() || options.clip[i];
        set.clip_limits.push_back(wanted ? limits<S>(set.weights[i].view(), hessian, fit, options, &unresolved) : Matrix());
      }
      if (unresolved > 0)
        set.fallbacks.push_back("awq: no clip limit of " + std::to_string(unresolved) +
                                " groups gave a finite loss; they were not clipped");
    }
    return Ok{};
  }

 private:
  /// Undoes the column scales of a transform before this one.
  static void take_off(std::span<const float> input_scale, Matrix& w) {
    if (input_scale.empty()) return;
    for (Index r = 0; r < w.rows(); ++r)
      for (Index c = 0; c < w.cols(); ++c) w(r, c) /= input_scale[static_cast<std::size_t>(c)];
  }

  template <AnyScheme S>
  Matrix limits(ConstMatrix w, const recipe::ScaledHessian& hessian, const GridFit& fit, const QuantizeOptions& options,
                Index* unresolved) const {
    return awq::clip_limits<S>(w, hessian.view(), fit, clip_steps, options.executor, unresolved);
  }

  template <AnyScheme S, class Loss>
  awq::ScaleChoice choose(std::span<const float> statistic, std::span<const ConstMatrix> siblings, const QuantizeOptions& options,
                          Loss&& loss) const {
    std::optional<awq::ScaleChoice> plain;
    if (scaling != AwqScaling::duo) plain = awq::search_scale(statistic, ratios, loss);
    if (scaling == AwqScaling::activations) return *plain;
    const std::vector<float> share = recipe::mean_of_tied(awq::weight_share<S>(siblings), options.tied);
    return awq::search_scale(statistic, ratios, loss, share, plain ? &*plain : nullptr);
  }

  static void tell(const awq::ScaleChoice& choice, Siblings& set) {
    if (std::none_of(choice.losses.begin(), choice.losses.end(), [](const double& l) { return is_finite(l); }))
      set.fallbacks.push_back("awq: no ratio gave a finite loss; the inputs were not scaled");
    set.remarks.push_back("awq: ratio " + std::to_string(choice.ratio).substr(0, 5) + (choice.duo ? ", duo" : ""));
  }

  /// What an algorithm made of the siblings under one scale, each with or without clip limits, whichever left less.
  struct Trial {
    Siblings set;
    std::vector<double> unclipped, error;  ///< relative errors of outputs
    double size() const {                  ///< sum of logarithms
      double sum = 0;
      for (const double e : error) sum += std::log(std::max(e, 1e-30));
      return sum;
    }
  };

  template <class Algorithm>
  Result<Trial> attempt(const Algorithm& algorithm, const Siblings& set, const awq::ScaleChoice* choice,
                        const QuantizeOptions& options) const {
    using S = typename Algorithm::scheme;
    constexpr double none = std::numeric_limits<double>::infinity();
    Trial trial{set, {}, {}};
    if (choice) recipe::scale_inputs(trial.set, choice->scale);
    std::optional<recipe::ScaledHessian> hessian;
    if (clip) hessian.emplace(*trial.set.stats);
    QuantizeOptions own = options;
    own.clip = {}, own.tied = {}, own.strict = false;
    for (std::size_t i = 0; i < set.weights.size(); ++i) {
      const ConstMatrix w = trial.set.weights[i].view();
      own.clip_limits = {};
      ANYBIT_TRY(const auto plain, algorithm.quantize(w, *trial.set.stats, own));
      trial.unclipped.push_back(plain.report.output_error.value_or(none));
      trial.error.push_back(trial.unclipped.back());
      if (!clip) continue;
      trial.set.clip_limits.emplace_back();
      if constexpr (!std::is_same_v<typename S::granularity, PerTensor>) {
        if (!options.clip.empty() && !options.clip[i]) continue;
        Matrix found = limits<S>(w, *hessian, awq::grid_of(algorithm), options, nullptr);
        own.clip_limits = found.view();
        ANYBIT_TRY(const auto clipped, algorithm.quantize(w, *trial.set.stats, own));
        const double error = clipped.report.output_error.value_or(none);
        if (!(error < trial.error.back())) continue;
        trial.error.back() = error;
        trial.set.clip_limits.back() = std::move(found);
      }
    }
    return trial;
  }

  /// The statistic is the root of a column's cost: how far an input reaches past what later inputs tell of it.
  template <class Algorithm>
  Status apply_for(const Algorithm& algorithm, std::span<const float> costs, Siblings& set,
                   const QuantizeOptions& options) const {
    using S = typename Algorithm::scheme;
    const auto siblings = set.views();
    const GridFit fit = awq::grid_of(algorithm);
    std::vector<float> reach = recipe::mean_of_tied({costs.begin(), costs.end()}, options.tied);
    for (float& r : reach) r = std::sqrt(r);
    const auto choice = choose<S>(reach, siblings, options, [&](std::span<const float> s, double least) {
      return awq::feedback_loss<S>(siblings, s, fit, costs, least, options.executor);
    });
    ANYBIT_TRY(Trial kept, attempt(algorithm, set, nullptr, options));
    bool scaled = false;
    if (choice.scales()) {
      ANYBIT_TRY(Trial trial, attempt(algorithm, set, &choice, options));
      scaled = trial.size() < kept.size();
      for (std::size_t i = 0; i < trial.error.size(); ++i) scaled = scaled && trial.error[i] <= kept.unclipped[i];
      if (scaled) kept = std::move(trial);
    }
    set = std::move(kept.set);
    if (scaled)
      tell(choice, set);
    else
      set.remarks.push_back("awq: inputs not scaled, no ratio lowered the error of every sibling");
    return Ok{};
  }
};

template <>
struct TransformTraits<Awq> : TransformDefaults<Awq> {
  static constexpr bool takes_block_loss = true;
  static bool wants_block_loss(const Awq& t) { return t.block_output; }
  static Awq with_block_loss(Awq t, const BlockLoss& loss) {
    t.block_loss = loss;
    return t;
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
