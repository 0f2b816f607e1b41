#pragma once
// GPTAQ (Li et al., 2025): a layer gets the inputs x of the quantized layers before it, but should give the outputs for the
// float model's inputs x0. Later columns compensate that difference, too. Readable twin: reference/gptaq.hpp.
// The equations stand in algorithm/feedback/drift.hpp; see docs/methods/gptaq.md.

#include <string>
#include <vector>

#include <anybit/algorithm/gptq.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Gptaq<Scheme> or Gptaq<Format, Granularity, ScaleStore, Layout>. Statistics are accumulated from both inputs, token by token.
template <class... Parts>
struct Gptaq {
  static_assert(sizeof...(Parts) > 0,
                "anybit: Gptaq needs a scheme: Gptaq<Scheme> or Gptaq<Format, Granularity, ScaleStore, Layout>");
  using scheme = scheme_of_t<Parts...>;
  static constexpr Needs needs = Needs::hessian | Needs::input_drift;

  float alpha = 0.25f;    ///< share of the difference that is made up for; above 0, up to 1 (0.25 as published)
  Gptq<Parts...> gptq{};  ///< everything else; its `drift` is not used

  /// The same method in GPTQ's words.
  Gptq<Parts...> method() const {
    Gptq<Parts...> m = gptq;
    m.drift = alpha;
    return m;
  }
  std::string describe() const { return method().describe(); }
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& options = {}) const {
    return method().quantize(w, stats, options);
  }
};

template <class... Parts>
struct AlgorithmTraits<Gptaq<Parts...>> : AlgorithmDefaults<Gptaq<Parts...>> {
  using Method = AlgorithmTraits<Gptq<Parts...>>;
  static constexpr bool has_feedback = Method::has_feedback;
  static std::vector<float> column_costs(const Gptaq<Parts...>& a, const Stats& stats) {
    return Method::column_costs(a.method(), stats);
  }
  static GridFit grid_fit(const Gptaq<Parts...>& a) { return Method::grid_fit(a.method()); }
  static bool stores_column_order(const Gptaq<Parts...>& a) { return Method::stores_column_order(a.method()); }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit
