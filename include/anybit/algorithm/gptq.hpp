#pragma once
// GPTQ (Frantar et al., 2022): rounds one column after the other; later columns compensate its error in the metric of the
// layer's inputs. See docs/methods/gptq.md. Readable twin: reference/gptq.hpp.

#include <string>

#include <anybit/algorithm/gptq_method.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Gptq<Scheme> or Gptq<Format, Granularity, ScaleStore, Layout>, the latter with Scheme's defaults.
template <class... Parts>
struct Gptq {
  static_assert(sizeof...(Parts) > 0,
                "anybit: Gptq needs a scheme: Gptq<Scheme> or Gptq<Format, Granularity, ScaleStore, Layout>");
  using scheme = scheme_of_t<Parts...>;
  static constexpr Needs needs = Needs::hessian;

  float damp = 0.01f;  ///< share of the Hessian's mean diagonal that is added to it; above 0, up to 1
  Index block = 128;   ///< columns between two updates of the rest of the matrix
  /// The diagonal entry of inputs that were 0 on all tokens. 0 means the mean of the others, so that units do not matter;
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
  /// Rounds of the joint search of scales, zero points and codes after the sweep, in the metric of the Hessian; 0 to 1000. Above
  /// 0 the other options are never worse than their defaults: those are swept too and kept, and refined, where they leave less
  /// error.
  int refine = 0;
  /// GPTAQ: the share of the difference between the inputs here and the float model's that is made up for; 0.25 as published.
  /// Above 0 it wants Needs::input_drift.
  float drift = 0;
  /// Qronos: the sweep aims at the best weights without a grid for that difference, instead of GPTAQ's step by step; wants drift
  /// above 0, 1 as published.
  bool whole_drift = false;

  /// The least layer error at equal bits that this header knows how to get; several times the time of the defaults.
  static Gptq best() {
    Gptq g;
    g.search = Search::mse;
    g.shrink = {0.8f, 50, 2};
    g.group_aware = g.fresh_grids = g.weighted = true;
    g.refine = 10;
    return g;
  }

  bool stores_column_order() const { return act_order && options().dynamic_groups(rounding_ops_v<scheme>); }
  GridFit grid_fit() const { return {range, search, shrink}; }
  /// See AlgorithmDefaults. Empty if the Hessian has no factor. `stats` hold what `needs` says.
  std::vector<float> column_costs(const Stats& stats) const {
    return gptq::column_costs<>(options(), stats, scheme::granularity::group_cols(stats.inputs()));
  }
  std::string describe() const { return options().describe(); }

  /// Result: never worse than rounding to nearest on the same grids in tr(D H D^T); where it would be, the report says that
  /// rounding to nearest was used.
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& asked = {}) const {
    Quantized<scheme> result{QuantizedMatrix<scheme>(w.extents()), {}};
    const gptq::Options mine = options();
    const AnyQuantized codes(result.matrix);
    const gptq::Target target{codes, result.matrix.column_order, result.matrix.provenance, result.report};
    ANYBIT_TRY_STATUS(gptq::Method<>(mine, w, asked, target).quantize(stats));
    return result;
  }

 private:
  gptq::Options options() const {
    return {damp,        block,       dead_diagonal, act_order, static_groups, grid_fit(),
            group_aware, fresh_grids, weighted,      refine,    drift,         whole_drift};
  }
};

template <class... Parts>
struct AlgorithmTraits<Gptq<Parts...>> : AlgorithmDefaults<Gptq<Parts...>> {
  static constexpr bool has_feedback = true;
  static std::vector<float> column_costs(const Gptq<Parts...>& a, const Stats& stats) { return a.column_costs(stats); }
  static Needs needs(const Gptq<Parts...>& a) { return a.drift > 0 ? a.needs | Needs::input_drift : a.needs; }
  static GridFit grid_fit(const Gptq<Parts...>& a) { return a.grid_fit(); }
  static bool stores_column_order(const Gptq<Parts...>& a) { return a.stores_column_order(); }
};

/// Traits of an algorithm A whose method() is a Gptq with options of its own.
template <class A>
struct TraitsByGptq : AlgorithmDefaults<A> {
  using Method = AlgorithmTraits<decltype(std::declval<const A&>().method())>;
  static constexpr bool has_feedback = Method::has_feedback;
  static std::vector<float> column_costs(const A& a, const Stats& stats) { return Method::column_costs(a.method(), stats); }
  static GridFit grid_fit(const A& a) { return Method::grid_fit(a.method()); }
  static bool stores_column_order(const A& a) { return Method::stores_column_order(a.method()); }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit
