#pragma once
// Qronos (Zhang et al., 2025): GPTQ whose target is the float model's outputs, for the inputs x of the quantized layers before.
// Unlike GPTAQ it solves for that target before the sweep. Readable twin: reference/qronos.hpp. See docs/methods/qronos.md.

#include <string>

#include <anybit/algorithm/gptq.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Qronos<Scheme> or Qronos<Format, Granularity, ScaleStore, Layout>. Statistics are accumulated from both inputs, token by
/// token.
template <class... Parts>
struct Qronos {
  static_assert(sizeof...(Parts) > 0,
                "anybit: Qronos needs a scheme: Qronos<Scheme> or Qronos<Format, Granularity, ScaleStore, Layout>");
  using scheme = scheme_of_t<Parts...>;
  static constexpr Needs needs = Needs::hessian | Needs::input_drift;

  float share = 1;        ///< of the difference that is made up for; above 0, up to 1 (1 as published; QEP takes 0.5)
  Gptq<Parts...> gptq{};  ///< everything else; its `drift` and `whole_drift` are not used

  /// The same method in GPTQ's words.
  Gptq<Parts...> method() const {
    Gptq<Parts...> m = gptq;
    m.drift = share, m.whole_drift = true;
    return m;
  }
  std::string describe() const { return method().describe(); }
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& options = {}) const {
    return method().quantize(w, stats, options);
  }
};

template <class... Parts>
struct AlgorithmTraits<Qronos<Parts...>> : TraitsByGptq<Qronos<Parts...>> {};

}  // namespace ANYBIT_CODE
}  // namespace anybit
