#pragma once
// SparseGPT (Frantar and Alistarh, 2023): prunes one column after the other; later columns compensate, in the metric of the
// layer's inputs. See docs/methods/pruning.md. Readable twin: reference/sparse_gpt.hpp.

#include <anybit/core/macros_begin.hpp>

#include <string>

#include <anybit/prune/magnitude.hpp>
#include <anybit/prune/sparse_sweep.hpp>

namespace anybit::prune {
inline namespace ANYBIT_CODE {

/// The sweep without rounding. Errors are left to the caller.
template <class Real = float>
Pruned sweep_only(const gptq::Prepared& prepared, const Sparsity& sparsity, Index block, ExecutorRef executor) {
  Pruned p{Matrix(prepared.weights.rows(), prepared.weights.cols()), {}, {}};
  p.mask = SparseSweep<Real>(prepared, sparsity, block, executor)
               .run([&](Index begin, Index rows, Index k, const float* now, float* kept) {
                 for (Index r = 0; r < rows; ++r) p.weights(begin + r, k) = kept[r] = now[r];
               });
  return p;
}

inline std::vector<double> hessian_of(const Stats& stats) {
  std::vector<double> h(static_cast<std::size_t>(stats.inputs() * stats.inputs()));
  stats.hessian(MatrixView<double>(h.data(), stats.inputs(), stats.inputs()));
  return h;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::prune

namespace anybit {
inline namespace ANYBIT_CODE {

struct SparseGpt {
  static constexpr Needs needs = Needs::hessian;

  Sparsity sparsity{};
  float damp = 0.01f;       ///< as in Gptq
  Index block = 128;        ///< columns whose weights compete for a share of zeros, and between two updates of the rest
  float dead_diagonal = 0;  ///< as in Gptq

  std::string describe() const {
    return "sparsegpt(" + sparsity.describe() + ", damp=" + gptq::detail::number(static_cast<double>(damp)) + ")";
  }
  Status check(ConstMatrix w, const Stats& stats, const std::string& who) const {
    ANYBIT_TRY_STATUS(prune::check_sparsity(sparsity, who));
    ANYBIT_TRY_STATUS(gptq::check_options(who, static_cast<double>(damp), block, static_cast<double>(dead_diagonal)));
    ANYBIT_TRY_STATUS(grid::check_weights(w));
    return recipe::check_stats(stats, needs, w.cols, who);
  }

  /// Result: never worse than magnitude pruning in tr(D H D^T); where it would be, the report says that magnitudes decided.
  template <WeightsView W>
  Result<Pruned> prune(const W& weights, const Stats& stats, const QuantizeOptions& options = {}) const {
    const ConstMatrix w = weights;
    ANYBIT_TRY_STATUS(check(w, stats, "sparsegpt"));
    const std::vector<double> true_hessian = prune::hessian_of(stats);
    const MatrixView<const double> h{true_hessian.data(), w.cols, w.cols};
    Report report;
    report.requested = report.done = describe();
    const auto prepared = gptq::prepare<double>(w, h, static_cast<double>(damp), static_cast<double>(dead_diagonal),
                                                gptq::ColumnOrder::natural, w.cols, report);
    ANYBIT_TRY_STATUS(check_strict(report, options));
    ANYBIT_TRY(Pruned result, (Magnitude{sparsity}.prune(w, {}, {.executor = options.executor})));
    const recipe::OutputMetric<double> metric(w, h, options.executor);
    Pruned own;
    if (prepared) own = prune::sweep_only<>(*prepared, sparsity, block, options.executor);
    if (prune::no_worse(metric, own.weights.view(), result.weights.view())) {
      result = std::move(own);
    } else {
      report.done = Magnitude{sparsity}.describe();
      report.fallbacks.push_back(prepared ? "compensation gave a larger output error than pruning by magnitude, which was "
                                            "done instead"
                                          : "pruned by magnitude instead");
    }
    ANYBIT_TRY_STATUS(check_strict(report, options));
    report.weight_error = relative_error(w, result.weights.view());
    report.output_error = metric.relative_to_outputs(metric.error(result.weights.view()));
    result.report = std::move(report);
    return result;
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
