#pragma once
// The concept of a transform: it rewrites matrices that share an input, and that input's statistics, before they are quantized.

#include <anybit/core/macros_begin.hpp>

#include <concepts>
#include <functional>
#include <span>
#include <string>

#include <anybit/format/integer.hpp>
#include <anybit/recipe/algorithm.hpp>
#include <anybit/recipe/siblings.hpp>
#include <anybit/scheme/scheme.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Where a transform stands in a recipe: in ascending order, each stage at most once. Numbers in between are free for stages of
/// one's own: static_cast<Stage>(15).
enum class Stage : int {
  smoothing = 10,  ///< moves range from activations to weights (SmoothQuant)
  scaling = 20,    ///< scales what matters and clips what does not (AWQ); clip limits hold for the scales they were found with
};

namespace detail {
/// An algorithm that a concept can call transforms with; it quantizes nothing.
struct SampleAlgorithm {
  using scheme = Scheme<SInt<8>, PerRow, ScaleF32, BitStream>;
  static constexpr Needs needs = Needs::none;
  std::string describe() const { return "sample"; }
  Result<Quantized<scheme>> quantize(ConstMatrix, const Stats&, const QuantizeOptions&) const;
};
}  // namespace detail

/// needs       the statistics it reads; it carries them all along
/// stage       its place among other transforms
/// describe()  name and options
/// apply       rewrites the siblings for the scheme and grids of the algorithm at the end. It changes weights by
///             recipe::scale_inputs or Siblings::own, keeps outputs what they were, and says in remarks and fallbacks what it
///             did. template <Algorithm A> Status apply(Siblings&, const A&, const QuantizeOptions&) const
/// Everything else a transform may say of itself stands in TransformTraits, with defaults.
template <class T>
concept Transform =
    requires(const T t, Siblings& siblings, const detail::SampleAlgorithm& algorithm, const QuantizeOptions& options) {
      { T::needs } -> std::convertible_to<Needs>;
      { T::stage } -> std::convertible_to<Stage>;
      { t.describe() } -> std::convertible_to<std::string>;
      { t.apply(siblings, algorithm, options) } -> std::same_as<Status>;
    };

/// The error of what siblings feed, given their effective weights: those that meet the inputs as they were before any transform.
using BlockLoss = std::function<double(std::span<const ConstMatrix>)>;

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit {
inline namespace ANYBIT_CODE {

/// The defaults of TransformTraits. A specialization of TransformTraits derives from it and hides what differs.
template <class T>
struct TransformDefaults {
  /// Its input scales may be folded into a linear upstream, not only into a norm.
  static constexpr bool folds_into_linear = true;
  /// It can choose by the error of what the siblings feed (attention, MLP) instead of their own outputs.
  static constexpr bool takes_block_loss = false;
  /// It wants to, with the options it has; then with_block_loss() gives the transform that does.
  static bool wants_block_loss(const T&) { return false; }
  static T with_block_loss(const T& t, const BlockLoss&) { return t; }
};

template <class T>
struct TransformTraits : TransformDefaults<T> {};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
