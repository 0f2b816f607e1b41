#pragma once
// The concept of an algorithm: a small aggregate whose type names a scheme and whose members change only quality.

#include <concepts>
#include <string>

#include <anybit/calibrate/stats.hpp>
#include <anybit/recipe/quantized.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// scheme      the bytes it fills
/// needs       the statistics it reads (Needs::none for rounding to nearest)
/// describe()  its name and options for reports and provenance: "gptq(damp=0.01)"
/// quantize    chooses codes and affines, the latter as stored. Bad data is an error that names the place.
template <class A>
concept Algorithm =
    AnyScheme<typename A::scheme> && requires(const A a, ConstMatrix w, const Stats& stats, const QuantizeOptions& options) {
      { A::needs } -> std::convertible_to<Needs>;
      { a.describe() } -> std::convertible_to<std::string>;
      { a.quantize(w, stats, options) } -> std::same_as<Result<Quantized<typename A::scheme>>>;
    };

}  // namespace ANYBIT_ABI
}  // namespace anybit
