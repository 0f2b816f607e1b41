#pragma once
// The linears that share an input, quantized together: the step shared by one-shot and block-by-block runs.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/algorithm/nearest.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/quantize/block_output.hpp>
#include <anybit/quantize/guided.hpp>
#include <anybit/quantize/model_stats.hpp>
#include <anybit/quantize/plan.hpp>
#include <anybit/quantize/sites.hpp>
#include <anybit/recipe/activation_scale.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The scheme of the embedding and the output head of every quantized model, and of what a recipe of fewer bits must leave
/// (WeightSpec::least_bits): 8.5 bits, as in llama.cpp's Q8_0.
using EmbeddingScheme = Scheme<SInt<8>, PerGroup<32>, ScaleF16>;
/// An expert that saw less than this share of the calibration tokens is rounded to nearest, and its report says so (GPTQModel's
/// own threshold).
inline constexpr float default_expert_share = 0.005f;

/// One quantized linear, and how its outputs compare with the original's: W x is approximated by
/// output_scale * (Q (x / input_scale)), empty scales meaning 1.
struct QuantizedLayer {
  std::string name;
  SiteId site{};
  std::size_t sibling = 0;  ///< its place among the site's readers
  Report report;
  std::vector<float> input_scale, output_scale;
};

namespace detail {

/// Quantizes some sites of a block one after the other, in an order of Blueprint::quantization_order(): `o` before `q`, `k`, `v`,
/// because its input scale is folded into rows of `v`; likewise `down` before `gate`, `up`.
class SiblingQuantizer {
 public:
  /// `decoder` is the model whose linears are replaced. `options` serve every linear; what to clip is decided here.
  /// `guided`: Hessians that take the place of those in `stats`, or null.
  SiblingQuantizer(Decoder& decoder, const ModelPlan& plan, const ModelStats& stats, const QuantizeOptions& options,
                   float expert_share = default_expert_share, const GuidedHessians* guided = nullptr)
      : decoder_(decoder), plan_(plan), stats_(stats), options_(options), expert_share_(expert_share), guided_(guided) {}

  Status run(SiteId site) {
    const SiblingGroup group = sibling_group(decoder_, site);
    const std::span<const ModelRecipe* const> recipes = recipes_of(site);
    if (!group.experts.empty()) ANYBIT_TRY_STATUS(fit_mixture(group));
    auto done = group.mixture || !group.experts.empty() ? quantize_in_mixture(group, recipes) : quantize(group, recipes);
    if (!done) return done.error();
    for (std::size_t i = 0; i < group.linears.size(); ++i) {
      nn::Linear& linear = *group.linears[i].linear;
      const auto divided = std::find_if(divided_.begin(), divided_.end(), [&](const auto& d) { return d.first == &linear; });
      const ModelRecipe& recipe = *recipes[i];
      ActivationMode activations;
      if (recipe.compute == Compute::int8_static) {
        const auto scale = activation_scale(site, recipe, done->input_scale);
        if (!scale) return in_context(scale.error(), "recipe " + recipe.name + ": " + group.linears[i].name);
        activations = ActivationMode::int8_static(*scale);
        done->reports[i].remarks.push_back(
            io::detail::text("activations in 8 bits: one scale, for magnitudes up to ", 127 * *scale));
      } else {
        activations = recipe.compute;
      }
      layers.push_back({group.linears[i].name, site, i, std::move(done->reports[i]), done->input_scale,
                        divided != divided_.end() ? divided->second : std::vector<float>{}});
      linear = linear.with_weights(nn::Linear(std::move(done->packed[i]), activations));
      if (const kernel::Prepared& made = linear.packed()->prepared();
          rounds_to_int8(activations.compute()) && !made && !made.in_place)
        layers.back().report.remarks.push_back(io::detail::text("products with activations in 8 bits are slow: ", made.why_not));
    }
    if (done->input_scale.empty() || group.mixture) return Ok{};
    if (group.norm_gain) {
      group.fold_into_norm(done->input_scale);
      for (nn::Linear* const linear : group.float_readers) scale_columns(*linear, done->input_scale);
    } else {
      std::vector<float> divisor = upstream_divisor(group, done->input_scale);
      Matrix rows(group.upstream->dense()->view());
      fold_rows(divisor, rows.view());
      std::vector<float> bias = group.upstream->bias();
      for (std::size_t r = 0; r < bias.size(); ++r) bias[r] /= divisor[r];
      *group.upstream = group.upstream->with_weights(nn::Linear(std::move(rows)));
      group.upstream->set_bias(std::move(bias));
      divided_.emplace_back(group.upstream, std::move(divisor));
    }
    return Ok{};
  }

  std::vector<QuantizedLayer> layers;

 private:
  std::span<const ModelRecipe* const> recipes_of(SiteId site) const {
    const SiteSpec& s = (*decoder_.blueprint)[site];
    return std::span(plan_.linears).subspan(s.first_reader, s.readers.size());
  }

  /// Finds one scale for all that reads a mixture's input, by statistics of all tokens. Routers are left out of the search: they
  /// are not rounded.
  Status fit_mixture(const SiblingGroup& group) {
    fitted_.clear();
    const Blueprint& b = *decoder_.blueprint;
    std::vector<const ModelRecipe*> recipes(recipes_of(group.id).begin(), recipes_of(group.id).end());
    for (const SiteId e : group.experts) recipes.insert(recipes.end(), recipes_of(e).begin(), recipes_of(e).end());
    const bool mixed = std::any_of(recipes.begin(), recipes.end(), [&](const ModelRecipe* r) { return r != recipes[0]; });
    const ModelRecipe& recipe = *recipes[0];
    if (mixed || !recipe.fit || !group.norm_gain) return Ok{};
    const std::vector<WeightId> readers = b.scaled_readers(group.id);
    std::vector<ConstMatrix> weights;
    for (const WeightId id : readers) weights.push_back(decoder_[id].linear.dense()->view());
    const auto named = [&](const Error& e) {
      return in_context(e, io::detail::text("recipe ", recipe.name, ": the experts of block ", group.block));
    };
    std::optional<ModelRecipe> judge;
    if (recipe.with_block_loss) {
      auto made = judged(recipe, group);
      if (!made) return named(made.error());
      judge = *std::move(made);
    }
    auto fitted = (judge ? *judge : recipe).fit(Upstream::norm, weights, stats_.at(group.id, recipe.needs), options_);
    if (!fitted) return named(fitted.error());
    for (std::size_t i = 0; i < readers.size(); ++i) {
      FittedTransforms& of = fitted_[readers[i]];
      of = {fitted->input_scale, {}, fitted->remarks, fitted->fallbacks};
      if (!fitted->clip_limits.empty()) of.clip_limits.push_back(std::move(fitted->clip_limits[i]));
    }
    // A mixture of routed experts alone has no linears of its own whose scale would be folded.
    if (group.linears.empty() && !fitted->input_scale.empty()) {
      group.fold_into_norm(fitted->input_scale);
      for (nn::Linear* const linear : group.float_readers) scale_columns(*linear, fitted->input_scale);
    }
    return Ok{};
  }

  /// Linear by linear, under the scale that the mixture has.
  Result<QuantizedSiblings> quantize_in_mixture(const SiblingGroup& group, std::span<const ModelRecipe* const> recipes) {
    QuantizedSiblings all;
    for (std::size_t i = 0; i < group.linears.size(); ++i) {
      const ModelRecipe& recipe = *recipes[i];
      const auto named = [&](const Error& e) { return in_context(e, "recipe " + recipe.name + ": " + group.linears[i].name); };
      const ConstMatrix weights[] = {group.linears[i].linear->dense()->view()};
      const Stats& stats = stats_of(group.id, recipe);
      const auto fitted = fitted_.find((*decoder_.blueprint)[group.id].readers[i]);
      QuantizeOptions options = options_;
      const FittedTransforms* const found = fitted != fitted_.end() ? &fitted->second : nullptr;
      auto done = is_guided(group.id, recipe) ? quantize_guided(recipe, found, weights[0], stats,
                                                                (*guided_)[(*decoder_.blueprint)[group.id].readers[i]], options)
                  : found                     ? recipe.finish(*found, weights, stats, options)
                                              : recipe.quantize(Upstream::nothing, weights, stats, options);
      if (!done) return named(done.error());
      Report& report = done->reports[0];
      if (fitted == fitted_.end() && recipe.transforms)
        report.fallbacks.push_back("other linears of the mixture have other recipes, so the transforms of " + recipe.name +
                                   " were left out");
      report_tokens(group.id, recipe, report);
      if (auto strict = check_strict(report, options); !strict) return named(strict.error());
      all.packed.push_back(std::move(done->packed[0])), all.reports.push_back(std::move(report));
      if (fitted != fitted_.end()) all.input_scale = fitted->second.input_scale;
    }
    return all;
  }

  /// Whether calibration sent an expert too few tokens to learn from.
  bool starved(SiteId site) const {
    const SiteSpec& s = (*decoder_.blueprint)[site];
    return s.routed && static_cast<double>(stats_.at(site, Needs::none).tokens()) <
                           std::max(1.0, static_cast<double>(expert_share_) * static_cast<double>(stats_.tokens()));
  }
  /// Of what enters a site; neutral ones where an expert has seen too few tokens.
  const Stats& stats_of(SiteId site, const ModelRecipe& recipe) {
    const Stats& own = stats_.at(site, recipe.needs);
    if (!starved(site)) return own;
    if (neutral_.inputs() != own.inputs() || neutral_.needs() != own.needs())
      neutral_ = Stats::neutral(own.inputs(), own.needs());
    return neutral_;
  }
  /// Whether rows are quantized by the Hessians that gradients weight. Those of a starved expert say too little, too.
  bool is_guided(SiteId site, const ModelRecipe& recipe) const {
    return guided_ != nullptr && takes_guidance(recipe) && !starved(site);
  }
  /// Says what an expert could not learn. The scale of a mixture is learned from all tokens.
  void report_tokens(SiteId site, const ModelRecipe& recipe, Report& report) const {
    const SiteSpec& s = (*decoder_.blueprint)[site];
    if (recipe.needs == Needs::none || !s.routed) return;
    const Index tokens = stats_.at(site, recipe.needs).tokens();
    if (starved(site) && (recipe.algorithm_needs != Needs::none || (!s.mixture && recipe.folds_into_linear))) {
      report.output_error.reset();
      report.fallbacks.push_back(io::detail::text("the expert saw ", tokens, " of ", stats_.tokens(),
                                                  " calibration tokens: rounded to nearest, nothing of its own was learned"));
      return;
    }
    report.remarks.push_back(io::detail::text("the expert saw ", tokens, " of ", stats_.tokens(), " calibration tokens"));
    if (covers(recipe.needs, Needs::input_drift))
      report.fallbacks.push_back("experts see other tokens in the quantized model: the drift of their inputs was left out");
  }
  /// The scale of int8_static; of an expert without tokens that of what it takes its tokens from, or of the other experts.
  Result<float> activation_scale(SiteId site, const ModelRecipe& recipe, std::span<const float> input_scale) const {
    const Blueprint& b = *decoder_.blueprint;
    if (!starved(site)) return static_activation_scale(stats_.at(site, recipe.needs), input_scale);
    if (b[site].mixture) return static_activation_scale(stats_.at(*b[site].mixture, recipe.needs), input_scale);
    float largest = 0;
    for (const SiteId other : b.sites_of(b[site].block))
      if (b[other].point == b[site].point && stats_.at(other, recipe.needs).tokens() > 0) {
        ANYBIT_TRY(const float scale, static_activation_scale(stats_.at(other, recipe.needs)));
        largest = std::max(largest, scale);
      }
    return largest;
  }

  /// Siblings of one recipe together. Where recipes differ, nobody knows a scale of the input that suits all of them.
  Result<QuantizedSiblings> quantize(const SiblingGroup& group, std::span<const ModelRecipe* const> recipes) {
    const std::size_t count = group.linears.size();
    const bool mixed = std::any_of(recipes.begin(), recipes.end(), [&](const ModelRecipe* r) { return r != recipes[0]; });
    const Upstream upstream = mixed             ? Upstream::nothing
                              : group.norm_gain ? Upstream::norm
                              : group.upstream  ? Upstream::linear
                                                : Upstream::nothing;
    const std::vector<Index> tied = tied_inputs(group);
    const ClipFlags clip(group);
    QuantizedSiblings all;
    all.packed.resize(count), all.reports.resize(count);
    std::vector<bool> finished(count, false);
    for (std::size_t i = 0; i < count; ++i) {
      const WeightSpec& spec = (*decoder_.blueprint)[(*decoder_.blueprint)[group.id].readers[i]];
      if (!is_kept_at_eight_bits(plan_, *recipes[i], spec)) continue;
      auto kept = at_eight_bits(*recipes[i], spec, *group.linears[i].linear);
      if (!kept) return in_context(kept.error(), "recipe " + recipes[i]->name + ": " + spec.name);
      all.packed[i] = std::move(kept->first), all.reports[i] = std::move(kept->second), finished[i] = true;
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (finished[i]) continue;
      const ModelRecipe& recipe = *recipes[i];
      std::vector<std::size_t> members;
      std::vector<ConstMatrix> weights;
      for (std::size_t j = i; j < count; ++j)
        if (recipes[j] == &recipe && !finished[j])
          members.push_back(j), weights.push_back(group.linears[j].linear->dense()->view());
      QuantizeOptions options = options_;
      options.tied = tied;
      if (!mixed) options.clip = clip.view();
      const auto named = [&](const Error& e) {
        return in_context(
            e, "recipe " + recipe.name + ": " + group.linears[i].name + (members.size() > 1 ? " and its siblings" : ""));
      };
      std::optional<ModelRecipe> judge;
      if (recipe.with_block_loss && upstream == Upstream::norm && BlockOutput::is_of((*decoder_.blueprint)[group.id])) {
        auto made = judged(recipe, group);
        if (!made) return named(made.error());
        judge = *std::move(made);
      }
      const ModelRecipe& used = judge ? *judge : recipe;
      const Upstream from = starved(group.id) ? Upstream::nothing : upstream;
      std::vector<const GuidedHessian*> guides;
      if (is_guided(group.id, recipe))
        for (const std::size_t j : members) guides.push_back(&(*guided_)[(*decoder_.blueprint)[group.id].readers[j]]);
      auto done = guides.empty() ? used.quantize(from, weights, stats_of(group.id, recipe), options)
                                 : quantize_guided(used, from, weights, stats_of(group.id, recipe), guides, options);
      if (!done) return named(done.error());
      for (std::size_t k = 0; k < members.size(); ++k) {
        Report& report = done->reports[k];
        if (mixed && recipe.transforms)
          report.fallbacks.push_back("its siblings have other recipes, so the transforms of " + recipe.name + " were left out");
        report_tokens(group.id, recipe, report);
        if (auto strict = check_strict(report, options); !strict) return named(strict.error());
        all.packed[members[k]] = std::move(done->packed[k]);
        all.reports[members[k]] = std::move(report);
        finished[members[k]] = true;
      }
      all.input_scale = std::move(done->input_scale);
    }
    return all;
  }

  /// A weight that no recipe of so few bits may have.
  Result<std::pair<AnyPacked, Report>> at_eight_bits(const ModelRecipe& recipe, const WeightSpec& spec,
                                                     const nn::Linear& linear) const {
    ANYBIT_TRY(auto q, Nearest<EmbeddingScheme>{}.quantize(linear.dense()->view()));
    q.report.fallbacks.push_back(io::detail::text("kept at 8 bits: the architecture wants at least ", spec.least_bits,
                                                  " bits here, ", recipe.name, " has fewer"));
    ANYBIT_TRY_STATUS(check_strict(q.report, options_));
    return std::pair(AnyPacked(pack(q.matrix)), std::move(q.report));
  }

  /// The recipe for what feeds on a norm, choosing by what attention or MLP make of it.
  Result<ModelRecipe> judged(const ModelRecipe& recipe, const SiblingGroup& group) const {
    const std::span<const Matrix> inputs = stats_.sequences(group.id);
    if (inputs.empty())
      return Error{ErrorCode::insufficient_data,
                   "it chooses by what the block makes of whole sequences, and the statistics hold none: make them with "
                   "Needs::sequences, and add tokens"};
    const auto output = std::make_shared<BlockOutput>(decoder_, decoder_.block(group.block), group.id, inputs, options_.executor);
    return recipe.with_block_loss([output](std::span<const ConstMatrix> weights) { return output->error(weights); });
  }

  Decoder& decoder_;
  const ModelPlan& plan_;
  const ModelStats& stats_;
  QuantizeOptions options_;
  float expert_share_;
  const GuidedHessians* guided_;
  std::map<WeightId, FittedTransforms> fitted_;  ///< of the mixture at work
  Stats neutral_;
  std::vector<std::pair<const nn::Linear*, std::vector<float>>> divided_;  ///< with the divisors of their rows
};

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
