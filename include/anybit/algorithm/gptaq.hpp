#pragma once
// GPTAQ (Li et al., 2025): a layer gets the inputs x of the quantized layers before it, but should give the outputs for the
// float model's inputs x0. Later columns compensate that difference, too. Readable twin: reference/gptaq.hpp.
// The equations stand in algorithm/feedback/drift.hpp; see docs/methods/gptaq.md.

#include <string>

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
struct AlgorithmTraits<Gptaq<Parts...>> : TraitsByGptq<Gptaq<Parts...>> {};

}  // namespace ANYBIT_CODE
}  // namespace anybit
