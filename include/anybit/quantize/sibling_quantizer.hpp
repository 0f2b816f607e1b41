#pragma once
// The linears that share an input, quantized together: the step shared by one-shot and block-by-block runs.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
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
#include <anybit/quantize/model_stats.hpp>
#include <anybit/quantize/plan.hpp>
#include <anybit/quantize/sites.hpp>
#include <anybit/recipe/activation_scale.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The scheme of the embedding and the output head of every quantized model, and of what a recipe of fewer bits must leave
/// (WeightSpec::least_bits): 8.5 bits, as in llama.cpp's Q8_0.
using EmbeddingScheme = Scheme<SInt<8>, PerGroup<32>, ScaleF16>;

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
  SiblingQuantizer(Decoder& decoder, const ModelPlan& plan, const ModelStats& stats, const QuantizeOptions& options)
      : decoder_(decoder), plan_(plan), stats_(stats), options_(options) {}

  Status run(SiteId site) {
    const SiblingGroup group = sibling_group(decoder_, site);
    const std::span<const ModelRecipe* const> recipes =
        std::span(plan_.linears).subspan((*decoder_.blueprint)[site].first_reader, group.linears.size());
    auto done = quantize(group, recipes);
    if (!done) return done.error();
    for (std::size_t i = 0; i < group.linears.size(); ++i) {
      nn::Linear& linear = *group.linears[i].linear;
      const auto divided = std::find_if(divided_.begin(), divided_.end(), [&](const auto& d) { return d.first == &linear; });
      const ModelRecipe& recipe = *recipes[i];
      ActivationMode activations;
      if (recipe.compute == Compute::int8_static) {
        const auto scale = static_activation_scale(stats_.at(site, recipe.needs), done->input_scale);
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
      if (const kernel::Prepared& made = linear.packed()->prepared(); rounds_to_int8(activations.compute()) && !made)
        layers.back().report.remarks.push_back(io::detail::text("products with activations in 8 bits are slow: ", made.why_not));
    }
    if (done->input_scale.empty()) return Ok{};
    if (group.norm_gain) {
      group.fold_into_norm(done->input_scale);
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
  /// Siblings of one recipe together. Where recipes differ, nobody knows a scale of the input that suits all of them.
  Result<QuantizedSiblings> quantize(const SiblingGroup& group, std::span<const ModelRecipe* const> recipes) const {
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
      auto done = (judge ? *judge : recipe).quantize(upstream, weights, stats_.at(group.id, recipe.needs), options);
      if (!done) return named(done.error());
      for (std::size_t k = 0; k < members.size(); ++k) {
        Report& report = done->reports[k];
        if (mixed && recipe.transforms)
          report.fallbacks.push_back("its siblings have other recipes, so the transforms of " + recipe.name + " were left out");
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
  std::vector<std::pair<const nn::Linear*, std::vector<float>>> divided_;  ///< with the divisors of their rows
};

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
