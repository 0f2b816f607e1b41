#pragma once
// SparseGPT and GPTQ in one sweep: the remaining weights of a column are rounded, and later columns compensate both errors.

#include <anybit/core/macros_begin.hpp>

#include <string>

#include <anybit/prune/sparse_gpt.hpp>
#include <anybit/recipe/algorithm.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// SparseGptq<Scheme> or SparseGptq<Format, Granularity, ScaleStore, Layout>: an algorithm for recipes.
template <class... Parts>
struct SparseGptq {
  static_assert(sizeof...(Parts) > 0,
                "anybit: SparseGptq needs a scheme: SparseGptq<Scheme> or SparseGptq<Format, Granularity, ScaleStore, Layout>");
  using scheme = scheme_of_t<Parts...>;
  using F = typename scheme::format;
  static_assert(keeps_zero_v<F>, "anybit: pruned weights must stay 0, and this format has no level 0; choose another");
  static constexpr Needs needs = Needs::hessian;

  SparseGpt pruner{};
  Range range = Range::format;
  Search search = Search::none;
  ShrinkSearch shrink{};
  /// Grids from the result of a first sweep that prunes without rounding, which takes twice the time. Otherwise from the weights
  /// before pruning, as published: what is left has grown a little by then, and its largest weights may be clipped.
  bool pruned_grids = false;

  GridFit grid_fit() const { return {range, search, shrink}; }
  std::string describe() const {
    std::string text =
        "sparsegptq(" + pruner.sparsity.describe() + ", damp=" + gptq::detail::number(static_cast<double>(pruner.damp));
    if (pruned_grids) text += ", pruned_grids";
    if (const std::string grids = grid_fit().describe(); !grids.empty()) text += ", " + grids;
    return text + ")";
  }

  /// Result: never worse than magnitude pruning and rounding to nearest, in tr(D H D^T); where it would be, the report says that
  /// this was done. The number of zeros is at least what the sparsity asks for: weights that are left may round to 0.
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& options = {}) const {
    ANYBIT_TRY_STATUS(check_range<F>(range));
    ANYBIT_TRY_STATUS(check_search(shrink));
    ANYBIT_TRY_STATUS(pruner.check(w, stats, "sparsegptq"));
    ANYBIT_TRY_STATUS(grid::check_limits(rounding_ops_v<scheme>, w, options.clip_limits));
    const std::vector<double> true_hessian = prune::hessian_of(stats);
    const MatrixView<const double> h{true_hessian.data(), w.cols, w.cols};

    Quantized<scheme> result{QuantizedMatrix<scheme>(w.extents()), {}};
    Report& report = result.report;
    report.requested = report.done = describe() + " " + std::string(std::string_view(scheme::name));
    const auto prepared = gptq::prepare<double>(w, h, static_cast<double>(pruner.damp), static_cast<double>(pruner.dead_diagonal),
                                                gptq::ColumnOrder::natural, w.cols, report);
    ANYBIT_TRY_STATUS(check_strict(report, options));
    if (prepared) run(w, *prepared, options, result.matrix, report);
    ANYBIT_TRY_STATUS(check_strict(report, options));

    const recipe::OutputMetric<double> metric(w, h, options.executor);
    ANYBIT_TRY(const Pruned plain, (Magnitude{pruner.sparsity}.prune(w, {}, {.executor = options.executor})));
    QuantizedMatrix<scheme> nearest =
        grid::round_to_grid<scheme>(plain.weights.view(), grid_fit(), options.clip_limits, options.executor);
    Matrix back = dequantize(nearest), own = prepared ? dequantize(result.matrix) : Matrix();
    const bool keep = prune::no_worse(metric, own.view(), back.view());
    report.remarks.push_back("output error of pruning by magnitude and rounding to nearest: " +
                             gptq::detail::number(metric.relative_to_outputs(metric.error(back.view()))));
    if (keep) {
      back = std::move(own);
    } else {
      const std::string instead = Magnitude{pruner.sparsity}.describe() + " then nearest";
      report.fallbacks.push_back(prepared ? "error feedback gave a larger output error than pruning by magnitude and rounding to "
                                            "nearest, which was done instead"
                                          : "pruned by magnitude and rounded to nearest instead");
      report.done = instead + " " + std::string(std::string_view(scheme::name));
      result.matrix = std::move(nearest);
    }
    ANYBIT_TRY_STATUS(check_strict(report, options));
    result.matrix.provenance = keep ? describe() : Magnitude{pruner.sparsity}.describe() + " then nearest";
    report.weight_error = relative_error(w, back.view());
    report.output_error = metric.relative_to_outputs(metric.error(back.view()));
    report.bits_per_weight = recipe::bits_per_weight(rounding_ops_v<scheme>, w.extents(), false);
    return result;
  }

 private:
  void run(ConstMatrix w, const gptq::Prepared& prepared, const QuantizeOptions& options, QuantizedMatrix<scheme>& q,
           Report& report) const {
    const auto fit = [&](ConstMatrix from) {
      grid::fit_groups(from, grid_fit(), options.clip_limits, {}, AnyQuantized(q), report, options.executor);
    };
    if (pruned_grids)
      fit(prune::sweep_only<>(prepared, pruner.sparsity, pruner.block, options.executor).weights.view());
    else
      fit(w);  // weights of dead inputs included, as published
    const Index group = scheme::granularity::group_cols(w.cols);
    prune::SparseSweep<>(prepared, pruner.sparsity, pruner.block, options.executor)
        .run([&](Index begin, Index rows, Index k, const float* now, float* kept) {
          for (Index r = 0; r < rows; ++r) {
            const Affine a = q.affine(begin + r, k / group);
            const Code code = quantize_value<F>(now[r], a);
            q.row(begin + r)[static_cast<std::size_t>(k)] = static_cast<typename scheme::code>(code);
            kept[r] = dequantize_value<F>(code, a);
          }
        });
  }
};

template <class... Parts>
struct AlgorithmTraits<SparseGptq<Parts...>> : AlgorithmDefaults<SparseGptq<Parts...>> {
  static GridFit grid_fit(const SparseGptq<Parts...>& a) { return a.grid_fit(); }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
