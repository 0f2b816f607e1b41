#pragma once
// GPTQ (Frantar et al., 2022): rounds one column after the other and lets the columns still to come make up for the error,
// in the metric of the layer's inputs. See docs/gptq.md.

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <anybit/algorithm/algorithm.hpp>
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

  GridFit grid_fit() const { return {range, search, shrink}; }
  std::string describe() const {
    std::string text = "gptq(damp=" + gptq::detail::number(damp);
    if (act_order) text += ", act_order";
    if (static_groups) text += ", static_groups";
    if (search == Search::mse) text += ", search";
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

    Quantized<scheme> result{QuantizedMatrix<scheme>(w.extents()), {}};
    Report& report = result.report;
    report.requested = report.done = describe() + " " + std::string(std::string_view(scheme::name));
    const bool swept = run(w, h, options, result.matrix, report);
    ANYBIT_TRY_STATUS(check_strict(report, options));
    judge(w, h, swept, options, result);
    ANYBIT_TRY_STATUS(check_strict(report, options));
    return result;
  }

 private:
  using G = typename scheme::granularity;

  Status check(ConstMatrix w, const Stats& stats, const QuantizeOptions& options) const {
    ANYBIT_TRY_STATUS(gptq::check_options("gptq", static_cast<double>(damp), block, static_cast<double>(dead_diagonal)));
    ANYBIT_TRY_STATUS(check_range<typename scheme::format>(range));
    ANYBIT_TRY_STATUS(check_search(shrink));
    ANYBIT_TRY_STATUS(calibrate::check_weights(w));
    ANYBIT_TRY_STATUS(calibrate::check_stats(stats, needs, w.cols, "gptq"));
    return calibrate::check_limits<scheme>(w, options.clip_limits);
  }

  /// False if no factor was to be had; q is unfinished then.
  bool run(ConstMatrix w, MatrixView<const double> h, const QuantizeOptions& options, QuantizedMatrix<scheme>& q,
           Report& report) const {
    const Index n = w.cols;
    const auto prepared =
        gptq::prepare<double>(w, h, static_cast<double>(damp), static_cast<double>(dead_diagonal), act_order, report);
    if (!prepared) return false;
    const auto& order = prepared->order;

    gptq::SweepOptions sweep{block, !(always_static || static_groups), grid_fit(), options.clip_limits};
    std::vector<Index> position = order;
    if (sweep.dynamic_groups) {
      std::iota(position.begin(), position.end(), Index{0});
      if (act_order) {
        q.column_order.assign(order.begin(), order.end());
        if (sweep.limits.rows > 0)
          report.fallbacks.push_back(
              "clip limits of original groups do not fit groups of reordered columns and were not used; set static_groups");
        sweep.limits = {};
      }
    } else if (always_static && !scheme::scale_store::joint) {
      calibrate::fit_groups<scheme>(w, grid_fit(), options.clip_limits, {}, q, report,
                                    options.executor);  // dead weights included, as published
    } else {
      Matrix alive(w);
      for (Index r = 0; r < w.rows; ++r)
        for (Index j = 0; j < n; ++j)
          if (h(j, j) == 0) alive(r, j) = 0;
      calibrate::fit_groups<scheme>(alive.view(), grid_fit(), options.clip_limits, {}, q, report, options.executor);
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
    return true;
  }

  /// Errors into the report; replaces the result by rounding to nearest where that is closer, or the sweep did not happen.
  void judge(ConstMatrix w, MatrixView<const double> h, bool swept, const QuantizeOptions& options,
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
      keep = mine < 0.9 * by_nearest || metric.exact_error(own.view()) <= metric.exact_error(back.view());
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
    report.output_error = metric.relative_to_outputs(mine);
    report.remarks.push_back("output error of rounding to nearest: " +
                             gptq::detail::number(metric.relative_to_outputs(by_nearest)));
    report.bits_per_weight = calibrate::bits_per_weight(result.matrix);
    result.matrix.provenance = keep ? describe() : "nearest";
  }
};

}  // namespace anybit::inline ANYBIT_CODE
