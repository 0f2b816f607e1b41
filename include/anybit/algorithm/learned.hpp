#pragma once
// Learned rounding (SignRound, Cheng et al., 2023; AutoRound): offsets in front of rounding and the ends of grids move by the
// signs of the gradient of the layer's output error. See docs/methods/learned_rounding.md. Readable twin:
// reference/learned_rounding.hpp.

#include <anybit/core/macros_begin.hpp>

#include <string>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/learned_method.hpp>
#include <anybit/algorithm/nearest.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Learned<Scheme> or Learned<Format, Granularity, ScaleStore, Layout>.
template <class... Parts>
struct Learned {
  static_assert(sizeof...(Parts) > 0,
                "anybit: Learned needs a scheme: Learned<Scheme> or Learned<Format, Granularity, ScaleStore, Layout>");
  using scheme = scheme_of_t<Parts...>;
  static constexpr Needs needs = Needs::hessian;

  int iterations = 200;
  float rate = 0;       ///< of the first step, in distances of levels; falls to 0 linearly. 0: 1 / iterations
  float ends_rate = 0;  ///< the same for the factors of a grid's ends. 0: as `rate`
  bool learn_ends = true;
  /// Starts from Gptq::best() instead of rounding to nearest; range, search and shrink are not used then.
  bool from_gptq = false;
  /// The share of the difference between the inputs here and the float model's that is made up for, as Gptq's with `whole_drift`.
  /// Above 0 it wants Needs::input_drift.
  float drift = 0;
  Range range = Range::format;
  Search search = Search::none;
  ShrinkSearch shrink{};
  HalfQuadratic half_quadratic{};

  GridFit grid_fit() const { return from_gptq ? Gptq<scheme>::best().grid_fit() : options().fit; }
  std::string describe() const { return options().describe(); }

  /// Result: never worse than its start in tr(D H D^T), row by row.
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& asked = {}) const {
    const learned::Options mine = options();
    ANYBIT_TRY_STATUS(mine.check());
    ANYBIT_TRY_STATUS(recipe::check_stats(stats, AlgorithmTraits<Learned>::needs(*this), w.cols, "learned"));
    ANYBIT_TRY(Quantized<scheme> result, start(w, stats, asked));
    Report& report = result.report;
    const bool as_requested = report.as_requested();
    report.requested = describe() + " " + std::string(std::string_view(scheme::name));
    if (as_requested) report.done = report.requested;
    learned::Method<>(mine, w, AnyQuantized(result.matrix), asked.executor).learn(stats, report);
    result.matrix.provenance = describe();
    ANYBIT_TRY_STATUS(check_strict(report, asked));
    recipe::measure(w, AnyQuantized(result.matrix), result.matrix.column_order, asked.verify ? stats : Stats{}, report,
                    asked.executor);
    return result;
  }

 private:
  learned::Options options() const {
    return {iterations, rate, ends_rate, learn_ends, from_gptq, drift, {range, search, shrink, half_quadratic}};
  }
  Nearest<scheme> nearest() const {
    return {.range = range, .search = search, .shrink = shrink, .half_quadratic = half_quadratic};
  }
  Result<Quantized<scheme>> start(ConstMatrix w, const Stats& stats, const QuantizeOptions& asked) const {
    QuantizeOptions lenient = asked;
    lenient.strict = false;
    if (!from_gptq) return nearest().quantize(w, {}, lenient);
    Gptq<scheme> gptq = Gptq<scheme>::best();
    if (drift > 0) gptq.drift = drift, gptq.whole_drift = true;
    return gptq.quantize(w, stats, lenient);
  }
};

template <class... Parts>
struct AlgorithmTraits<Learned<Parts...>> : AlgorithmDefaults<Learned<Parts...>> {
  static Needs needs(const Learned<Parts...>& a) { return a.drift > 0 ? a.needs | Needs::input_drift : a.needs; }
  static GridFit grid_fit(const Learned<Parts...>& a) { return a.grid_fit(); }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
