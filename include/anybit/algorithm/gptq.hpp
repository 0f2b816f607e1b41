#pragma once
// GPTQ (Frantar et al., 2022): rounds one column after the other and lets the columns still to come make up for the error,
// in the metric of the layer's inputs. See docs/gptq.md.

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <anybit/algorithm/algorithm.hpp>
#include <anybit/algorithm/gptq_drift.hpp>
#include <anybit/algorithm/gptq_refine.hpp>
#include <anybit/algorithm/gptq_sweep.hpp>
#include <anybit/calibrate/objective.hpp>
#include <anybit/calibrate/siblings.hpp>

namespace anybit::inline ANYBIT_CODE {

/// Gptq<Scheme> or Gptq<Format, Granularity, ScaleStore, Layout>, the latter with Scheme's defaults.
template <class... Parts>
struct Gptq {
  static_assert(sizeof...(Parts) > 0,
                "anybit: Gptq needs a scheme: Gptq<Scheme> or Gptq<Format, Granularity, ScaleStore, Layout>");
  using scheme = scheme_of_t<Parts...>;
  static constexpr Needs needs = Needs::hessian;
  /// Scales that are stored jointly must all be known before the first code is chosen; so must those of a whole row or tensor.
  static constexpr bool always_static = scheme::scale_store::joint || std::is_same_v<typename scheme::granularity, PerTensor> ||
                                        std::is_same_v<typename scheme::granularity, PerRow>;

  float damp = 0.01f;  ///< share of the Hessian's mean diagonal that is added to it; above 0, up to 1
  Index block = 128;   ///< columns between two updates of the rest of the matrix
  /// What the diagonal gets for inputs that were 0 on all tokens. 0 means the mean of the others, so that units do not matter;
  /// the published code uses 1.
  float dead_diagonal = 0;
  bool act_order = false;      ///< columns with the largest inputs first
  bool static_groups = false;  ///< grids of all groups before the sweep, on the original weights and columns
  Range range = Range::format;
  Search search = Search::none;
  ShrinkSearch shrink{};
  /// As act_order inside every group, and groups by their largest input: no column order has to be stored.
  bool group_aware = false;
  /// Grids see the compensation for all columns before their group, not only for those before the block.
  bool fresh_grids = false;
  /// The search multiplies squared errors by what they cost in the sweep's objective; wants shrink.norm = 2.
  bool weighted = false;
  /// Rounds of the joint search of scales, zero points and codes after the sweep, in the metric of the Hessian; 0 to 1000.
  int refine = 0;
  /// GPTAQ: the share of the difference between the inputs here and the float model's that is made up for; 0.25 as published.
  /// Above 0 it wants Needs::drift.
  float drift = 0;

  /// The least layer error at equal bits that this header knows how to get; several times the time of the defaults.
  static Gptq best() {
    Gptq g;
    g.search = Search::mse;
    g.shrink = {0.8f, 50, 2};
    g.group_aware = g.fresh_grids = g.weighted = true;
    g.refine = 10;
    return g;
  }

  GridFit grid_fit() const { return {range, search, shrink}; }
  std::string describe() const {
    std::string text = "gptq(damp=" + gptq::detail::number(damp);
    if (act_order) text += ", act_order";
    if (static_groups) text += ", static_groups";
    if (group_aware) text += ", group_aware";
    if (fresh_grids) text += ", fresh_grids";
    if (search == Search::mse) text += weighted ? ", weighted search" : ", search";
    if (refine > 0) text += ", refine=" + std::to_string(refine);
    if (drift > 0) text += ", drift=" + gptq::detail::number(drift);
    return text + ")";
  }

  /// Result: never worse than rounding to nearest on the same grids in tr(D H D^T); where it would be, the report says that
  /// rounding to nearest was used.
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& options = {}) const {
    ANYBIT_TRY_STATUS(check(w, stats, options));
    const Index n = w.cols;
    std::vector<double> true_hessian(static_cast<std::size_t>(n * n));
    stats.hessian(MatrixView<double>(true_hessian.data(), n, n));
    const MatrixView<const double> h{true_hessian.data(), n, n};

    std::vector<double> away;
    if (drift > 0) {
      away.resize(true_hessian.size());
      stats.drift(MatrixView<double>(away.data(), n, n));
    }
    const MatrixView<const double> d{away.data(), drift > 0 ? n : 0, n};

    Quantized<scheme> result{QuantizedMatrix<scheme>(w.extents()), {}};
    Report& report = result.report;
    report.requested = report.done = describe() + " " + std::string(std::string_view(scheme::name));
    const bool swept = run(w, h, d, options, result.matrix, report);
    ANYBIT_TRY_STATUS(check_strict(report, options));
    judge(w, h, d, swept, options, result);
    ANYBIT_TRY_STATUS(check_strict(report, options));
    return result;
  }

 private:
  using G = typename scheme::granularity;

  Status check(ConstMatrix w, const Stats& stats, const QuantizeOptions& options) const {
    ANYBIT_TRY_STATUS(gptq::check_options("gptq", static_cast<double>(damp), block, static_cast<double>(dead_diagonal)));
    if (act_order && group_aware)
      return Error{ErrorCode::invalid_argument, "gptq: act_order and group_aware are two orders of the columns; choose one"};
    if (refine < 0 || refine > 1000)
      return Error{ErrorCode::invalid_argument, "gptq: refine is " + std::to_string(refine) + "; it must be 0 to 1000"};
    if (weighted && (search != Search::mse || shrink.norm != 2))
      return Error{ErrorCode::invalid_argument, "gptq: weighted is for search = Search::mse with shrink.norm = 2; the norm is " +
                                                    gptq::detail::number(shrink.norm) +
                                                    (search == Search::mse ? "" : ", the search off")};
    ANYBIT_TRY_STATUS(check_range<typename scheme::format>(range));
    ANYBIT_TRY_STATUS(check_search(shrink));
    ANYBIT_TRY_STATUS(calibrate::check_weights(w));
    if (!(drift >= 0 && drift <= 1))
      return Error{ErrorCode::invalid_argument,
                   "gptq: drift is " + gptq::detail::number(drift) + "; it must be 0 to 1 (0.25 is usual)"};
    ANYBIT_TRY_STATUS(calibrate::check_stats(stats, drift > 0 ? needs | Needs::drift : needs, w.cols, "gptq"));
    return calibrate::check_limits<scheme>(w, options.clip_limits);
  }

  /// False if no factor was to be had; q is unfinished then.
  bool run(ConstMatrix w, MatrixView<const double> h, MatrixView<const double> away, const QuantizeOptions& options,
           QuantizedMatrix<scheme>& q, Report& report) const {
    const Index n = w.cols;
    auto prepared = gptq::prepare<double>(w, h, static_cast<double>(damp), static_cast<double>(dead_diagonal),
                                          act_order     ? gptq::ColumnOrder::act
                                          : group_aware ? gptq::ColumnOrder::group_aware
                                                        : gptq::ColumnOrder::natural,
                                          G::group_cols(n), report);
    if (!prepared) return false;
    const auto& order = prepared->order;

    if (drift > 0 && !gptq::find_drift(away, order, static_cast<double>(drift), prepared->factor, options.executor))
      report.fallbacks.push_back("the drift of the inputs is too large next to the Hessian and was not made up for");

    gptq::SweepOptions sweep{.block = block,
                             .dynamic_groups = !(always_static || static_groups),
                             .fresh_grids = fresh_grids,
                             .fit = grid_fit(),
                             .limits = options.clip_limits};
    if (weighted) sweep.importance = prepared->factor.weight;
    std::vector<Index> position = order;
    if (sweep.dynamic_groups && act_order) {
      std::iota(position.begin(), position.end(), Index{0});
      q.column_order.assign(order.begin(), order.end());
      if (sweep.limits.rows > 0)
        report.fallbacks.push_back(
            "clip limits of original groups do not fit groups of reordered columns and were not used; set static_groups");
      sweep.limits = {};
    }
    if (!sweep.dynamic_groups) {
      std::vector<float> importance(sweep.importance.size());
      for (std::size_t k = 0; k < importance.size(); ++k) importance[static_cast<std::size_t>(order[k])] = sweep.importance[k];
      if (always_static && !scheme::scale_store::joint) {
        calibrate::fit_groups<scheme>(w, grid_fit(), options.clip_limits, importance, q, report,
                                      options.executor);  // dead weights included, as published
      } else {
        Matrix alive(w);
        for (Index r = 0; r < w.rows; ++r)
          for (Index j = 0; j < n; ++j)
            if (h(j, j) == 0) alive(r, j) = 0;
        calibrate::fit_groups<scheme>(alive.view(), grid_fit(), options.clip_limits, importance, q, report, options.executor);
      }
    }

    std::vector<calibrate::StoreLoss> losses(static_cast<std::size_t>(ceil_div(w.rows, gptq::row_tile)));
    options.executor.parallel_for(w.rows, gptq::row_tile, [&](Index begin, Index end) {
      for (Index r = begin; r < end; r += gptq::row_tile)
        gptq::sweep<scheme>(prepared->weights.view(), r, std::min(r + gptq::row_tile, end), prepared->factor, position, sweep, q,
                            losses[static_cast<std::size_t>(r / gptq::row_tile)]);
    });
    calibrate::StoreLoss total;
    for (const auto& l : losses) total += l;
    total.tell(report, static_cast<Index>(q.affines.size()));
    if (refine > 0) search_jointly(*prepared, position, h, away, q, options);
    return true;
  }

  /// Lowers tr(D (H + damping) D^T) (+ 2 drift tr(W away D^T)) from where the sweep ended.
  void search_jointly(const gptq::Prepared& prepared, std::span<const Index> position, MatrixView<const double> h,
                      MatrixView<const double> away, QuantizedMatrix<scheme>& q, const QuantizeOptions& options) const {
    const Index n = h.rows;
    const auto& order = prepared.order;
    Matrix weights(prepared.weights.rows(), n), hessian(n, n), shift(prepared.factor.drift.empty() ? 0 : n, n);
    double largest = 0;
    for (Index j = 0; j < n; ++j) largest = std::max(largest, h(j, j) + prepared.factor.damping);
    for (std::size_t k = 0; k < order.size(); ++k) {
      for (std::size_t j = 0; j < order.size(); ++j) {
        const double damping = k == j ? prepared.factor.damping : 0;
        hessian(position[k], position[j]) = static_cast<float>((h(order[k], order[j]) + damping) / largest);
        if (shift.rows() > 0)
          shift(position[k], position[j]) = static_cast<float>(static_cast<double>(drift) * away(order[k], order[j]) / largest);
      }
      for (Index r = 0; r < weights.rows(); ++r) weights(r, position[k]) = prepared.weights(r, static_cast<Index>(k));
    }
    gptq::refine<scheme>({weights.view(), hessian.view(), shift.view()}, refine, range != Range::symmetric, q, options.executor);
  }

  /// drift W away.
  Matrix pull_of(ConstMatrix w, MatrixView<const double> away) const {
    Matrix narrow(away.rows, away.cols), pull(w.rows, w.cols);
    for (Index i = 0; i < away.rows; ++i)
      for (Index j = 0; j < away.cols; ++j) narrow(i, j) = static_cast<float>(static_cast<double>(drift) * away(i, j));
    calibrate::add_product<float>(w, std::as_const(narrow).view(), pull.view());
    return pull;
  }
  /// 2 tr(pull (W - Q)^T): what drift adds to the objective.
  static double missed(ConstMatrix w, ConstMatrix q, const Matrix& pull) {
    double sum = 0;
    for (Index r = 0; r < pull.rows(); ++r)
      for (Index c = 0; c < pull.cols(); ++c) sum += 2 * double{pull(r, c)} * (double{w(r, c)} - double{q(r, c)});
    return sum;
  }
  /// Errors into the report; replaces the result by rounding to nearest where that is closer, or the sweep did not happen.
  void judge(ConstMatrix w, MatrixView<const double> h, MatrixView<const double> away, bool swept, const QuantizeOptions& options,
             Quantized<scheme>& result) const {
    Report& report = result.report;
    const calibrate::OutputMetric<> metric(w, h, options.executor);
    QuantizedMatrix<scheme> nearest = calibrate::round_to_grid<scheme>(w, grid_fit(), options.clip_limits, options.executor);
    Matrix back = dequantize(nearest);
    const double by_nearest = metric.error(back.view());
    double mine = by_nearest;
    bool keep = false;
    if (swept) {
      Matrix own = dequantize(result.matrix);
      mine = metric.error(own.view());
      // With drift the outputs to reproduce are those of other inputs; what both miss of them alike does not matter.
      const Matrix pull = drift > 0 ? pull_of(w, away) : Matrix();
      const double mine_apart = missed(w, own.view(), pull), nearest_apart = missed(w, back.view(), pull);
      keep = mine + mine_apart < 0.9 * (by_nearest + nearest_apart) ||
             metric.exact_error(own.view()) + mine_apart <= metric.exact_error(back.view()) + nearest_apart;
      if (keep)
        back = std::move(own);
      else
        report.fallbacks.push_back("error feedback gave a larger output error than rounding to nearest");
    }
    if (!keep) {
      mine = by_nearest;
      result.matrix = std::move(nearest);
      report.done = "nearest " + std::string(std::string_view(scheme::name));
      report.fallbacks.push_back("rounded to nearest instead");
    }
    report.weight_error = relative_error(w, back.view());
    if (const double relative = metric.relative_to_outputs(mine); std::isfinite(relative)) {
      report.output_error = relative;
      report.remarks.push_back("output error of rounding to nearest: " +
                               gptq::detail::number(metric.relative_to_outputs(by_nearest)));
    } else {
      report.remarks.push_back("the Hessian is indefinite on these weights: there is no relative output error");
    }
    report.bits_per_weight = calibrate::bits_per_weight(result.matrix);
    result.matrix.provenance = keep ? describe() : "nearest";
  }
};

}  // namespace anybit::inline ANYBIT_CODE
