#pragma once
// The concept of an algorithm: a small aggregate whose type names a scheme and whose members change only quality.

#include <concepts>
#include <string>
#include <vector>

#include <anybit/calibrate/stats.hpp>
#include <anybit/grid/grid_fit.hpp>
#include <anybit/recipe/quantized.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// scheme      the bytes it fills
/// needs       the statistics it reads (Needs::none for rounding to nearest)
/// describe()  its name and options for reports and provenance: "gptq(damp=0.01)"
/// quantize    chooses codes and affines, the latter as stored, of w (outputs, inputs). `stats` are those of the inputs and hold
///             at least AlgorithmTraits<A>::needs(a). Bad data is an error that names the place.
/// Everything else an algorithm may say of itself stands in AlgorithmTraits, with defaults.
template <class A>
concept Algorithm =
    AnyScheme<typename A::scheme> && requires(const A a, ConstMatrix w, const Stats& stats, const QuantizeOptions& options) {
      { A::needs } -> std::convertible_to<Needs>;
      { a.describe() } -> std::convertible_to<std::string>;
      { a.quantize(w, stats, options) } -> std::same_as<Result<Quantized<typename A::scheme>>>;
    };

/// The same for a scheme whose weights have no codes of their own: its result is bytes, and no transform goes before it, as those
/// look at codes. The provenance of the bytes is describe().
template <class A>
concept PackedAlgorithm =
    PackedScheme<typename A::scheme> && requires(const A a, ConstMatrix w, const Stats& stats, const QuantizeOptions& options) {
      { A::needs } -> std::convertible_to<Needs>;
      { a.describe() } -> std::convertible_to<std::string>;
      { a.quantize(w, stats, options) } -> std::same_as<Result<QuantizedTensor<typename A::scheme>>>;
    };

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit {
inline namespace ANYBIT_CODE {

/// The defaults of AlgorithmTraits. A specialization of AlgorithmTraits derives from it and hides what differs.
template <class A>
struct AlgorithmDefaults {
  /// It makes up for the error of a column in later ones, and column_costs() says how well.
  static constexpr bool has_feedback = false;
  /// The cost of a squared rounding error of each column, in the outputs, after later columns have made up for what they can:
  /// a transform in front weighs its choices by it. Empty where these statistics give none.
  static std::vector<float> column_costs(const A&, const Stats&) { return {}; }
  /// The statistics that it wants with the options it has.
  static Needs needs(const A&) { return A::needs; }
  /// The grids that it will round to, on which a transform tries scales and clip limits.
  static GridFit grid_fit(const A&) { return {}; }
  /// The packed tensors that it makes carry a column order: 32 bits a column.
  static bool stores_column_order(const A&) { return false; }
};

template <class A>
struct AlgorithmTraits : AlgorithmDefaults<A> {};

}  // namespace ANYBIT_CODE
}  // namespace anybit
