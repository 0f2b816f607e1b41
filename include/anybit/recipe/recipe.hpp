#pragma once
// transforms | algorithm: how the codes are chosen, as a value.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include <anybit/grid/group_grids.hpp>
#include <anybit/recipe/algorithm.hpp>
#include <anybit/recipe/objective.hpp>
#include <anybit/recipe/siblings.hpp>
#include <anybit/recipe/transform.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/rounding_ops.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Transforms that still lack their algorithm.
template <class... Transforms>
struct TransformChain {
  std::tuple<Transforms...> transforms;
};

template <class A, class... Transforms>
struct Recipe {
  using algorithm_type = A;
  using scheme = typename A::scheme;
  static constexpr Needs needs = (A::needs | ... | Transforms::needs);

  std::tuple<Transforms...> transforms;
  A algorithm;

  std::string describe() const {
    std::string text;
    std::apply([&](const auto&... t) { ((text += t.describe() + " | "), ...); }, transforms);
    return text + algorithm.describe();
  }
};

template <class T>
constexpr bool is_recipe_v = false;
template <class A, class... Ts>
constexpr bool is_recipe_v<Recipe<A, Ts...>> = true;
template <class T>
concept AnyRecipe = is_recipe_v<T>;
template <class T>
constexpr bool is_chain_v = false;
template <class... Ts>
constexpr bool is_chain_v<TransformChain<Ts...>> = true;

namespace detail {
template <class T>
concept RecipePart = Transform<T> || Algorithm<T> || is_chain_v<T> || AnyRecipe<T>;

template <class T>
std::tuple<T> as_tuple(T t) {
  return {std::move(t)};
}
template <class... Ts>
std::tuple<Ts...> as_tuple(TransformChain<Ts...> c) {
  return std::move(c.transforms);
}

/// Two neighbours in a recipe, by their stages.
template <class Last, class Next>
constexpr void check_order() {
  static_assert(Last::stage != Next::stage,
                "anybit: a recipe applies each transform once; this one stands in it twice (combine their options in one)");
  static_assert(Last::stage <= Next::stage,
                "anybit: these two transforms stand in the wrong order: SmoothQuant goes before Awq, whose clip limits hold only "
                "for the scales they were found with");
}
}  // namespace detail

template <detail::RecipePart Left, detail::RecipePart Right>
auto operator|(Left left, Right right) {
  if constexpr (Algorithm<Left> || AnyRecipe<Left>) {
    static_assert(!(Algorithm<Left> || AnyRecipe<Left>),
                  "anybit: a recipe has one algorithm and it stands last: transforms go before it, and a second algorithm would "
                  "undo the first");
  } else {
    auto before = detail::as_tuple(std::move(left));
    constexpr std::size_t count = std::tuple_size_v<decltype(before)>;
    if constexpr (Algorithm<Right>) {
      return std::apply(
          [&](auto&... t) { return Recipe<Right, std::remove_reference_t<decltype(t)>...>{std::move(before), std::move(right)}; },
          before);
    } else if constexpr (AnyRecipe<Right>) {
      detail::check_order<std::tuple_element_t<count - 1, decltype(before)>,
                          std::tuple_element_t<0, decltype(right.transforms)>>();
      auto all = std::tuple_cat(std::move(before), std::move(right.transforms));
      return std::apply(
          [&](auto&... t) {
            return Recipe<typename Right::algorithm_type, std::remove_reference_t<decltype(t)>...>{std::move(all),
                                                                                                   std::move(right.algorithm)};
          },
          all);
    } else {
      auto after = detail::as_tuple(std::move(right));
      detail::check_order<std::tuple_element_t<count - 1, decltype(before)>, std::tuple_element_t<0, decltype(after)>>();
      auto all = std::tuple_cat(std::move(before), std::move(after));
      return std::apply([&](auto&... t) { return TransformChain<std::remove_reference_t<decltype(t)>...>{std::move(all)}; }, all);
    }
  }
}

template <AnyScheme S>
struct SiblingResult {
  std::vector<Quantized<S>> matrices;  ///< one a sibling, in the order given
  /// Whoever makes the input must divide channel j by input_scale[j]: fold() does it for a norm, fold_rows() for a linear
  /// layer. Empty: nothing to do.
  std::vector<float> input_scale;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit::recipe {
inline namespace ANYBIT_CODE {

/// What every recipe asks of its matrices, statistics and options.
inline Status check_request(std::span<const ConstMatrix> weights, const Stats& stats, const QuantizeOptions& options, Needs needs,
                            const std::string& who) {
  ANYBIT_TRY_STATUS(check_siblings(weights));
  if (!options.clip.empty() && options.clip.size() != weights.size())
    return Error{ErrorCode::invalid_argument, "QuantizeOptions::clip has " + std::to_string(options.clip.size()) +
                                                  " entries for " + std::to_string(weights.size()) +
                                                  " siblings; give one each, or none"};
  ANYBIT_TRY_STATUS(check_tied(options.tied, weights[0].cols));
  ANYBIT_TRY_STATUS(check_stats(stats, needs, weights[0].cols, who));
  for (std::size_t i = 0; i < weights.size(); ++i)
    if (auto ok = grid::check_weights(weights[i]); !ok) return in_context(ok.error(), "sibling " + std::to_string(i));
  return Ok{};
}

/// One sibling after the transforms, before the algorithm.
struct SiblingTask {
  const Siblings& set;
  std::size_t sibling;
  ConstMatrix original;            ///< its weights before the transforms
  const std::string& name;         ///< of the recipe, for reports and provenance
  const QuantizeOptions& options;  ///< of all siblings

  ConstMatrix weights() const { return set.weights[sibling].view(); }
  QuantizeOptions own_options() const {
    QuantizeOptions own = options;
    own.clip = {}, own.tied = {};
    if (!set.clip_limits.empty()) own.clip_limits = set.clip_limits[sibling].view();
    return own;
  }
  /// ||W - Q diag(1 / input_scale)||_F / ||W||_F of the original weights.
  double original_weight_error(const AnyQuantized& codes, std::span<const std::uint32_t> column_order) const {
    Matrix back(1, original.cols);
    RelativeError error;
    for (Index r = 0; r < original.rows; ++r) {
      dequantize_rows(codes, column_order, r, r + 1, back.view());
      for (Index c = 0; c < back.cols(); ++c) back(0, c) /= set.input_scale[static_cast<std::size_t>(c)];
      error.add(original.row(r), std::as_const(back).view().row(0));
    }
    return error.value();
  }
  Error error(const Error& e) const { return in_context(e, "sibling " + std::to_string(sibling)); }
  /// Adds to a report of `codes` what the transforms have to say, and lets report and provenance speak of the recipe and the
  /// original weights.
  Status complete(Report& report, const AnyQuantized& codes, std::span<const std::uint32_t> column_order,
                  std::string& provenance) const {
    provenance = name;
    report.requested = name + " " + std::string(codes.scheme.name);
    if (report.as_requested()) report.done = report.requested;
    report.remarks.insert(report.remarks.begin(), set.remarks.begin(), set.remarks.end());
    report.fallbacks.insert(report.fallbacks.begin(), set.fallbacks.begin(), set.fallbacks.end());
    ANYBIT_TRY_STATUS(check_strict(report, options));
    if (!set.input_scale.empty()) report.weight_error = original_weight_error(codes, column_order);
    return Ok{};
  }
};

/// Lets the transforms of a recipe rewrite siblings, each those that the ones before it left.
template <class A, class... Transforms>
Status apply_transforms(const Recipe<A, Transforms...>& recipe, Siblings& set, const QuantizeOptions& options) {
  Status status = Ok{};
  std::apply([&](const auto&... t) { (void)((status = t.apply(set, recipe.algorithm, options), status.ok()) && ...); },
             recipe.transforms);
  return status;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::recipe

namespace anybit {
inline namespace ANYBIT_CODE {

/// What the transforms of a recipe make of siblings. `weights` and `stats` must outlive the result.
template <class A, class... Transforms>
Result<Siblings> transform_siblings(const Recipe<A, Transforms...>& recipe, std::span<const ConstMatrix> weights,
                                    const Stats& stats, const QuantizeOptions& options = {}) {
  ANYBIT_TRY_STATUS(recipe::check_request(weights, stats, options, Recipe<A, Transforms...>::needs, recipe.describe()));
  Siblings set(weights, stats);
  ANYBIT_TRY_STATUS(recipe::apply_transforms(recipe, set, options));
  return set;
}

/// The algorithm of a recipe on what its transforms made of `originals`.
template <class A, class... Transforms>
Result<SiblingResult<typename A::scheme>> quantize_transformed(const Recipe<A, Transforms...>& recipe, Siblings& set,
                                                               std::span<const ConstMatrix> originals,
                                                               const QuantizeOptions& options = {}) {
  SiblingResult<typename A::scheme> result;
  const std::string name = recipe.describe();
  for (std::size_t i = 0; i < set.weights.size(); ++i) {
    const recipe::SiblingTask task{set, i, originals[i], name, options};
    auto q = recipe.algorithm.quantize(task.weights(), *set.stats, task.own_options());
    if (!q) return task.error(q.error());
    ANYBIT_TRY_STATUS(task.complete(q->report, AnyQuantized(q->matrix), q->matrix.column_order, q->matrix.provenance));
    result.matrices.push_back(*std::move(q));
  }
  result.input_scale = std::move(set.input_scale);
  return result;
}

/// Quantizes matrices that share one input (query, key and value; gate and up), for which a transform must find one common
/// rewriting. `stats` are those of the shared input and hold at least Recipe::needs.
template <class A, class... Transforms>
Result<SiblingResult<typename A::scheme>> quantize_siblings(const Recipe<A, Transforms...>& recipe,
                                                            std::span<const ConstMatrix> weights, const Stats& stats,
                                                            const QuantizeOptions& options = {}) {
  ANYBIT_TRY(Siblings set, transform_siblings(recipe, weights, stats, options));
  return quantize_transformed(recipe, set, weights, options);
}

/// The statistics that a recipe wants with the options it has.
template <class A, class... Transforms>
Needs needs_of(const Recipe<A, Transforms...>& recipe) {
  return Recipe<A, Transforms...>::needs | AlgorithmTraits<A>::needs(recipe.algorithm);
}

/// The same for a bare algorithm: each matrix by itself, no input_scale.
template <Algorithm A>
Result<SiblingResult<typename A::scheme>> quantize_siblings(const A& algorithm, std::span<const ConstMatrix> weights,
                                                            const Stats& stats, const QuantizeOptions& options = {}) {
  return quantize_siblings(Recipe<A>{{}, algorithm}, weights, stats, options);
}

/// Divides the gain of the norm that makes the input. Call it for the norm's bias too. Norms that multiply by 1 + gain
/// (Gemma) pass unit_offset = 1, for the gain only.
inline void fold(std::span<const float> input_scale, std::span<float> norm_gain, float unit_offset = 0) {
  ANYBIT_CHECK(input_scale.empty() || input_scale.size() == norm_gain.size(),
               "fold: the norm has another width than the input scale");
  for (std::size_t j = 0; j < input_scale.size(); ++j) norm_gain[j] = (norm_gain[j] + unit_offset) / input_scale[j] - unit_offset;
}

/// Divides the last input_scale.size() rows of the linear layer that makes the input (fused layers have others before them).
inline void fold_rows(std::span<const float> input_scale, MutableMatrix upstream_weight) {
  const auto n = static_cast<Index>(input_scale.size());
  ANYBIT_CHECK(n <= upstream_weight.rows, "fold_rows: the upstream layer has fewer outputs than the input scale");
  for (Index j = 0; j < n; ++j)
    for (float& v : upstream_weight.row(upstream_weight.rows - n + j)) v /= input_scale[static_cast<std::size_t>(j)];
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
