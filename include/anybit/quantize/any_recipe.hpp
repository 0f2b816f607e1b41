#pragma once
// A recipe for the linears of a model, without its type, so that a program can hold a list of recipes.

#include <anybit/core/macros_begin.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <anybit/kernel/any_packed.hpp>
#include <anybit/model/decoder.hpp>
#include <anybit/model/rotation.hpp>
#include <anybit/recipe/recipe.hpp>

namespace anybit::model {
inline namespace ANYBIT_ABI {

/// The maker of the siblings' input, which can divide its channels for free.
enum class Upstream {
  norm,     ///< the gains of a norm
  linear,   ///< the rows of one linear, whose outputs reach the siblings channel by channel (up to down, v to o)
  nothing,  ///< neither: transforms that scale inputs are left out there
};

/// Siblings after quantization, in their order.
struct QuantizedSiblings {
  std::vector<AnyPacked> packed;
  std::vector<Report> reports;
  std::vector<float> input_scale;  ///< what upstream must divide by; empty: nothing
};

/// What the transforms of a recipe found for linears that share one input, to be applied to some of them at a time: those of
/// experts, each of which has statistics of its own tokens.
struct FittedTransforms {
  std::vector<float> input_scale;    ///< empty: nothing
  std::vector<Matrix> clip_limits;   ///< one per linear, or none at all
  std::vector<std::string> remarks;  ///< of every linear
  std::vector<std::string> fallbacks;
};

/// The codes of a packed tensor, to be changed in place and packed again.
struct OpenedCodes {
  std::shared_ptr<const AnyQuantized> codes;
  bool column_order = false;  ///< columns are stored in another order than the weights'
  std::function<AnyPacked()> pack{};
};

/// A block of a decoder whose linears are quantized, with what enters it and what the float model makes of its own input there.
struct BlockToLearn {
  struct Layer {
    nn::Linear* linear;  ///< packed; what is learned takes its place
    WeightId id;
    Matrix weights;  ///< in floats, with the scales of transforms on them: what the codes stand for
    const struct ModelRecipe* recipe;
  };
  const Decoder& decoder;  ///< the block is quantized, blocks behind it are not
  Index block;
  std::vector<Layer> layers{};
  std::vector<ConstMatrix> inputs{}, targets{};  ///< of every calibration window, (tokens, dim)
  ExecutorRef executor{};
};

struct ModelRecipe {
  std::string name;                           ///< "gptq-int4-g128": what the user types
  std::string description;                    ///< the recipe's own, with its options
  const kernel::PackedOps* scheme = nullptr;  ///< of the packed weights
  std::string provenance;                     ///< that packed weights carry
  bool column_order = false;                  ///< packed weights carry one
  Needs needs = Needs::none;
  Needs algorithm_needs = Needs::none;  ///< of these, without what the transforms need
  /// How activations enter the products. int8_static: with one scale for what siblings share, static_activation_scale() of the
  /// statistics that they are quantized with.
  Compute compute = Compute::f32;
  std::optional<RotationOptions> rotation{};  ///< the recipe is for rotate(model, *rotation) and statistics of that
  bool transforms = false;                    ///< siblings are rewritten together before they are quantized
  bool folds_into_linear = false;             ///< input scales may be folded into the linear upstream, not only into norms
  std::function<Result<QuantizedSiblings>(Upstream, std::span<const ConstMatrix>, const Stats&, const QuantizeOptions&)> quantize;
  /// Finds the transforms that quantize() would apply with that upstream, without the algorithm; null where the recipe has none.
  std::function<Result<FittedTransforms>(Upstream, std::span<const ConstMatrix>, const Stats&, const QuantizeOptions&)> fit{};
  /// The algorithm alone, for linears whose columns are first multiplied by what fit() found. `clip_limits` are theirs.
  std::function<Result<QuantizedSiblings>(const FittedTransforms&, std::span<const ConstMatrix>, const Stats&,
                                          const QuantizeOptions&)>
      finish{};
  /// This recipe choosing by such an error, for siblings that a norm feeds; null where it does not want one (Awq::block_output).
  std::function<ModelRecipe(BlockLoss)> with_block_loss{};
  /// The codes of what quantize() gave; null where weights have no codes of their own.
  std::function<OpenedCodes(const AnyPacked&)> open_codes{};
  /// Changes the layers of a block together after all of them are quantized, and says how it went; null: nothing. Block-by-block
  /// calibration alone can do it; such a recipe needs Needs::input_drift.
  std::function<Result<std::string>(const BlockToLearn&)> learn_block{};

  ANYBIT_INLINE double bits_per_weight(Extents e) const { return scheme->bits_per_weight(e); }
  /// Of the size that quantize() gives, or the most that it may give where the weights decide (SectionSize::at_most), all zeros.
  ANYBIT_INLINE AnyPacked blank(Extents e) const { return AnyPacked::blank(*scheme, e, column_order, provenance); }
  /// What quantize() gave, from its bytes.
  ANYBIT_INLINE Result<AnyPacked> open(PackedBytes bytes) const { return AnyPacked::open(*scheme, std::move(bytes)); }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::model

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// A recipe without its type. What a ModelRecipe does is compiled once over these functions, of which the first argument is the
/// recipe.
struct RecipeFunctions {
  /// Of the recipe with the transforms that are used behind an upstream.
  std::string (*describe)(const void*, Upstream);
  Needs (*needs)(Upstream);
  bool (*transforms)(Upstream);  ///< there are any
  Status (*transform)(const void*, Upstream, Siblings&, const QuantizeOptions&);
  /// Appends one sibling.
  Status (*quantize)(const void*, const recipe::SiblingTask&, QuantizedSiblings& out);
};

class TypelessRecipe {
 public:
  TypelessRecipe(std::shared_ptr<const void> recipe, const RecipeFunctions& functions)
      : recipe_(std::move(recipe)), functions_(functions) {}

  std::string describe(Upstream upstream) const { return functions_.describe(recipe_.get(), upstream); }
  Result<QuantizedSiblings> quantize(Upstream upstream, std::span<const ConstMatrix> weights, const Stats& stats,
                                     const QuantizeOptions& options) const {
    QuantizeOptions own = options;
    if (!functions_.transforms(upstream)) own.clip = {}, own.tied = {};
    ANYBIT_TRY(Siblings set, transform(upstream, weights, stats, own));
    return run_algorithm(set, weights, describe(upstream), own);
  }
  Result<FittedTransforms> fit(Upstream upstream, std::span<const ConstMatrix> weights, const Stats& stats,
                               const QuantizeOptions& options) const {
    if (upstream == Upstream::nothing) return FittedTransforms{};
    ANYBIT_TRY(Siblings set, transform(upstream, weights, stats, options));
    return FittedTransforms{std::move(set.input_scale), std::move(set.clip_limits), std::move(set.remarks),
                            std::move(set.fallbacks)};
  }
  Result<QuantizedSiblings> finish(const FittedTransforms& fitted, std::span<const ConstMatrix> weights, const Stats& stats,
                                   const QuantizeOptions& options) const {
    Siblings set(weights, stats);
    if (!fitted.input_scale.empty()) recipe::scale_inputs(set, fitted.input_scale);
    set.clip_limits = fitted.clip_limits, set.remarks = fitted.remarks, set.fallbacks = fitted.fallbacks;
    return run_algorithm(set, weights, describe(Upstream::norm), options);
  }

  /// Sets what a ModelRecipe says of itself and the functions that quantize. `own_needs` are the algorithm's.
  static void describe_in(ModelRecipe& m, TypelessRecipe made, const kernel::PackedOps& scheme, Compute compute,
                          Needs own_needs) {
    const auto recipe = std::make_shared<const TypelessRecipe>(std::move(made));
    m.description = m.provenance = recipe->describe(Upstream::norm);
    m.scheme = &scheme;
    m.algorithm_needs = own_needs;
    m.needs = own_needs | recipe->functions_.needs(Upstream::norm);
    m.compute = compute;
    if (compute == Compute::int8_static) m.needs = m.needs | Needs::abs_max;
    m.transforms = recipe->functions_.transforms(Upstream::norm);
    m.folds_into_linear = recipe->functions_.transforms(Upstream::linear);
    m.quantize = [recipe](Upstream upstream, std::span<const ConstMatrix> weights, const Stats& stats,
                          const QuantizeOptions& options) { return recipe->quantize(upstream, weights, stats, options); };
    if (!m.transforms) return;
    m.fit = [recipe](Upstream upstream, std::span<const ConstMatrix> weights, const Stats& stats,
                     const QuantizeOptions& options) { return recipe->fit(upstream, weights, stats, options); };
    m.finish = [recipe](const FittedTransforms& fitted, std::span<const ConstMatrix> weights, const Stats& stats,
                        const QuantizeOptions& options) { return recipe->finish(fitted, weights, stats, options); };
  }

 private:
  Result<Siblings> transform(Upstream upstream, std::span<const ConstMatrix> weights, const Stats& stats,
                             const QuantizeOptions& options) const {
    ANYBIT_TRY_STATUS(recipe::check_request(weights, stats, options, functions_.needs(upstream), describe(upstream)));
    Siblings set(weights, stats);
    ANYBIT_TRY_STATUS(functions_.transform(recipe_.get(), upstream, set, options));
    return set;
  }
  Result<QuantizedSiblings> run_algorithm(Siblings& set, std::span<const ConstMatrix> originals, const std::string& name,
                                          const QuantizeOptions& options) const {
    QuantizedSiblings out;
    for (std::size_t i = 0; i < originals.size(); ++i)
      ANYBIT_TRY_STATUS(functions_.quantize(recipe_.get(), {set, i, originals[i], name, options}, out));
    out.input_scale = std::move(set.input_scale);
    return out;
  }

  std::shared_ptr<const void> recipe_;
  const RecipeFunctions& functions_;
};

template <class T>
auto if_folds_into_linear(const T& transform) {
  if constexpr (TransformTraits<T>::folds_into_linear)
    return std::tuple<T>(transform);
  else
    return std::tuple<>();
}

/// A recipe, and what is left of it where a linear makes the input.
template <class A, class... Ts>
struct TypedRecipe {
  static auto kept(const Recipe<A, Ts...>& recipe) {
    return std::apply([](const Ts&... t) { return std::tuple_cat(if_folds_into_linear(t)...); }, recipe.transforms);
  }
  template <class Tuple>
  struct WithTransforms;
  template <class... Kept>
  struct WithTransforms<std::tuple<Kept...>> {
    using type = Recipe<A, Kept...>;
  };
  using BehindLinear = typename WithTransforms<decltype(kept(std::declval<Recipe<A, Ts...>>()))>::type;

  Recipe<A, Ts...> whole;
  BehindLinear behind_linear;
  explicit TypedRecipe(const Recipe<A, Ts...>& recipe) : whole(recipe), behind_linear{kept(recipe), recipe.algorithm} {}

  static const TypedRecipe& of(const void* self) { return *static_cast<const TypedRecipe*>(self); }
  static constexpr bool transforms_behind_linear = !std::is_same_v<BehindLinear, Recipe<A>>;

  static std::string describe(const void* self, Upstream upstream) {
    if (upstream == Upstream::norm) return of(self).whole.describe();
    return upstream == Upstream::linear ? of(self).behind_linear.describe() : of(self).whole.algorithm.describe();
  }
  static Needs needs(Upstream upstream) {
    if (upstream == Upstream::norm) return Recipe<A, Ts...>::needs;
    return upstream == Upstream::linear ? BehindLinear::needs : A::needs;
  }
  static bool transforms(Upstream upstream) {
    return upstream == Upstream::norm ? sizeof...(Ts) > 0 : upstream == Upstream::linear && transforms_behind_linear;
  }
  static Status transform(const void* self, Upstream upstream, Siblings& set, const QuantizeOptions& options) {
    if constexpr (sizeof...(Ts) > 0)
      if (upstream == Upstream::norm) return recipe::apply_transforms(of(self).whole, set, options);
    if constexpr (transforms_behind_linear)
      if (upstream == Upstream::linear) return recipe::apply_transforms(of(self).behind_linear, set, options);
    return Ok{};
  }
  static Status quantize(const void* self, const recipe::SiblingTask& task, QuantizedSiblings& out) {
    auto q = of(self).whole.algorithm.quantize(task.weights(), *task.set.stats, task.own_options());
    if (!q) return task.error(q.error());
    ANYBIT_TRY_STATUS(task.complete(q->report, AnyQuantized(q->matrix), q->matrix.column_order, q->matrix.provenance));
    ANYBIT_TRY_STATUS(check_packable(q->matrix));
    out.packed.emplace_back(pack(q->matrix));
    out.reports.push_back(std::move(q->report));
    return Ok{};
  }
  static constexpr RecipeFunctions functions{&describe, &needs, &transforms, &transform, &quantize};
};

/// The same for an algorithm whose results are bytes, and no transform stands before it.
template <PackedAlgorithm A>
struct TypedPackedAlgorithm {
  static std::string describe(const void* self, Upstream) { return static_cast<const A*>(self)->describe(); }
  static Needs needs(Upstream) { return A::needs; }
  static bool transforms(Upstream) { return false; }
  static Status transform(const void*, Upstream, Siblings&, const QuantizeOptions&) { return Ok{}; }
  static Status quantize(const void* self, const recipe::SiblingTask& task, QuantizedSiblings& out) {
    auto q = static_cast<const A*>(self)->quantize(task.weights(), *task.set.stats, task.own_options());
    if (!q) return task.error(q.error());
    out.packed.emplace_back(std::move(q->tensor));
    out.reports.push_back(std::move(q->report));
    return Ok{};
  }
  static constexpr RecipeFunctions functions{&describe, &needs, &transforms, &transform, &quantize};
};

template <AnyScheme S>
OpenedCodes open_codes(const AnyPacked& packed) {
  const auto q = std::make_shared<QuantizedMatrix<S>>(
      unpack(PackedTensor<S>(typename PackedTensor<S>::Checked{}, PackedBytes(packed.bytes()))));
  OpenedCodes out;
  out.codes = std::make_shared<const AnyQuantized>(*q);  // `pack` keeps q alive
  out.column_order = !q->column_order.empty();
  out.pack = [q] { return AnyPacked(anybit::pack(*q)); };
  return out;
}

}  // namespace detail

/// `recipe` applied to every linear of a model's blocks. Transforms are used where what they do to the input can be folded into
/// what makes it; elsewhere the algorithm works alone. With Compute::int8_static it needs statistics, whatever the algorithm.
template <class A, class... Ts>
ModelRecipe model_recipe(std::string name, const Recipe<A, Ts...>& recipe, Compute compute = Compute::f32) {
  using S = typename A::scheme;
  using Typed = detail::TypedRecipe<A, Ts...>;
  ModelRecipe m;
  m.name = std::move(name);
  detail::TypelessRecipe::describe_in(m, {std::make_shared<const Typed>(recipe), Typed::functions}, kernel::packed_ops_v<S>,
                                      compute, A::needs | AlgorithmTraits<A>::needs(recipe.algorithm));
  m.column_order = AlgorithmTraits<A>::stores_column_order(recipe.algorithm);
  m.open_codes = &detail::open_codes<S>;
  if constexpr ((TransformTraits<Ts>::takes_block_loss || ...)) {
    if (std::apply([](const Ts&... t) { return (TransformTraits<Ts>::wants_block_loss(t) || ...); }, recipe.transforms)) {
      m.needs = m.needs | Needs::sequences;
      m.with_block_loss = [recipe, compute, own_name = m.name](const BlockLoss& loss) {
        auto judged = recipe;
        const auto give = [&]<class T>(T& t) {
          if (TransformTraits<T>::wants_block_loss(t)) t = TransformTraits<T>::with_block_loss(t, loss);
        };
        std::apply([&](Ts&... t) { (give(t), ...); }, judged.transforms);
        return model_recipe(own_name, judged, compute);
      };
    }
  }
  return m;
}

template <Algorithm A>
ModelRecipe model_recipe(std::string name, const A& algorithm, Compute compute = Compute::f32) {
  return model_recipe(std::move(name), Recipe<A>{{}, algorithm}, compute);
}

/// An algorithm whose results are bytes: every linear by itself.
template <PackedAlgorithm A>
ModelRecipe model_recipe(std::string name, const A& algorithm, Compute compute = Compute::f32) {
  ModelRecipe m;
  m.name = std::move(name);
  detail::TypelessRecipe::describe_in(m, {std::make_shared<const A>(algorithm), detail::TypedPackedAlgorithm<A>::functions},
                                      kernel::packed_ops_v<typename A::scheme>, compute, A::needs);
  return m;
}

/// The same recipe for the rotated model.
inline ModelRecipe rotated(std::string name, ModelRecipe recipe, const RotationOptions& options = {}) {
  recipe.name = std::move(name);
  recipe.description = describe(options) + " | " + recipe.description;
  recipe.rotation = options;
  return recipe;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
