#pragma once
// Quantizes a whole decoder by one recipe: every linear of its blocks, the scaling of inputs folded into the norms and
// linears before them. The embedding goes to 8 bits, whatever the recipe, and so does the head unless it gets a recipe of its
// own.

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/algorithm/nearest.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/model/decoder.hpp>
#include <anybit/model/model_plan.hpp>
#include <anybit/model/model_recipe.hpp>
#include <anybit/model/siblings.hpp>

namespace anybit::model::inline ANYBIT_CODE {

inline constexpr Index site_count = 4;

/// The scheme of the embedding and the output head of every quantized model: 8.5 bits, as in llama.cpp's Q8_0.
using EmbeddingScheme = Scheme<SInt<8>, PerGroup<32>, ScaleF16>;

/// What calibration saw at every site of every block. Recipes that need no Hessian get the sums without it, because
/// with it an algorithm would also measure output errors, which takes longer than rounding.
class ModelStats {
 public:
  ModelStats() = default;
  /// Room for `needs` at each site of the decoder. A Hessian takes 4 n^2 bytes for n inputs.
  ModelStats(const Decoder& d, Needs needs, Index sample_cap = Stats::default_sample_cap) : blocks_(d.config.blocks) {
    const Needs sums = Needs::abs_max | Needs::mean_abs | Needs::mean_square;
    for (Index i = 0; i < blocks_; ++i)
      for (const Index inputs : {d.config.dim, d.config.query_width(), d.config.dim, d.config.hidden}) {
        light_.emplace_back(inputs, sums | without_hessian(needs), sample_cap);
        if (covers(needs, Needs::hessian)) full_.emplace_back(inputs, sums | needs, sample_cap);
      }
  }

  const Stats& at(Index block, Site site, Needs needs) const {
    const auto i = static_cast<std::size_t>(block * site_count + static_cast<Index>(site));
    return covers(needs, Needs::hessian) ? full_[i] : light_[i];
  }
  Index tokens() const { return light_.empty() ? 0 : light_.front().tokens(); }
  Index blocks() const { return blocks_; }

  /// Runs `ids` through the decoder from an empty context, adds what enters each site, and gives back what hidden_states() does.
  Result<Matrix> accumulate(const Decoder& d, std::span<const TokenId> ids, ExecutorRef executor) {
    std::vector<Matrix> inputs(light_.size());
    KvCache cache(d.config, static_cast<Index>(ids.size()));
    ForwardOptions options;
    options.executor = executor;
    options.capture = [&](Index block, Site site, ConstMatrix x) {
      inputs[static_cast<std::size_t>(block * site_count + static_cast<Index>(site))] = Matrix(x);
    };
    ANYBIT_TRY(Matrix hidden, hidden_states(d, ids, cache, options));
    std::vector<Status> status(inputs.size(), Ok{});
    executor.parallel_for(static_cast<Index>(inputs.size()), 1, [&](Index begin, Index end) {
      for (Index item = begin; item < end; ++item) {
        const auto i = static_cast<std::size_t>(item);
        status[i] = light_[i].accumulate(inputs[i].view());
        if (status[i] && !full_.empty()) status[i] = full_[i].accumulate(inputs[i].view());
      }
    });
    for (std::size_t i = 0; i < status.size(); ++i)
      if (!status[i])
        return in_context(status[i].error(), "block " + std::to_string(i / site_count) + ", input of " +
                                                 std::string(site_name(static_cast<Site>(i % site_count))));
    return hidden;
  }

  static constexpr std::string_view site_name(Site s) {
    constexpr std::array<std::string_view, 4> names{"attn_q", "attn_output", "ffn_gate", "ffn_down"};
    return names[static_cast<std::size_t>(s)];
  }

 private:
  static constexpr Needs without_hessian(Needs needs) {
    return static_cast<Needs>(static_cast<unsigned>(needs) & ~static_cast<unsigned>(Needs::hessian));
  }

  Index blocks_ = 0;
  std::vector<Stats> light_, full_;  ///< blocks x sites
};

/// One quantized linear, and how its outputs compare with the original's: W x is approximated by
/// output_scale * (Q (x / input_scale)), empty scales meaning 1.
struct QuantizedLayer {
  std::string name;
  std::size_t group = 0, sibling = 0;  ///< where it stands in sibling_groups()
  Report report;
  std::vector<float> input_scale, output_scale;
};

struct QuantizedModel {
  Decoder decoder;
  std::vector<QuantizedLayer> layers;
};

struct QuantizeModelOptions {
  bool strict = false;
  /// How activations enter the output head. Floats unless asked for: rounding them there is felt in every prediction.
  Compute head_compute = Compute::f32;
  ExecutorRef executor{};
  /// Told after each group of siblings, from any thread, one at a time.
  std::function<void(Index done, Index total)> progress{};
};

/// The embedding, and the head where it is not the same tensor, as every quantized model stores them: recipes share them.
struct PackedEmbedding {
  AnyPacked embedding;
  std::optional<AnyPacked> head;
};
namespace detail {
inline Result<AnyPacked> pack_as_embedding(const Linear& linear) {
  ANYBIT_CHECK(linear.dense() != nullptr, "pack_embedding: it is packed already");
  ANYBIT_TRY(const auto q, Nearest<EmbeddingScheme>{}.quantize(linear.dense()->view()));
  return AnyPacked(pack(q.matrix));
}
}  // namespace detail

/// Both in 8 bits.
inline Result<PackedEmbedding> pack_embedding(const Decoder& d) {
  PackedEmbedding out;
  ANYBIT_TRY(out.embedding, detail::pack_as_embedding(d.token_embedding));
  if (d.head) {
    ANYBIT_TRY(out.head, detail::pack_as_embedding(*d.head));
  }
  return out;
}

/// The embedding in 8 bits, the head by a recipe of its own, also where the two were tied. The recipe may need no statistics.
inline Result<PackedEmbedding> pack_embedding(const Decoder& d, const ModelRecipe& head) {
  if (head.needs != Needs::none)
    return {ErrorCode::unsupported, "the output head cannot take recipe " + head.name +
                                        ", which learns from calibration: give one that rounds to nearest"};
  PackedEmbedding out;
  ANYBIT_TRY(out.embedding, detail::pack_as_embedding(d.token_embedding));
  const ConstMatrix weights[] = {d.output_head().dense()->view()};
  auto done = head.quantize(Upstream::nothing, weights, Stats(d.config.dim, Needs::none), {});
  if (!done) return in_context(done.error(), "output head, recipe " + head.name);
  out.head = std::move(done->packed.front());
  return out;
}

namespace detail {

/// Half a block: o before q, k and v, or down before gate and up, because the scale of the former divides rows of the latter.
class HalfBlock {
 public:
  HalfBlock(const ModelPlan& plan, const ModelStats& stats, bool strict) : plan_(plan), stats_(stats), strict_(strict) {}

  /// `first` is the place of the group's first linear in the plan.
  Status run(SiblingGroup& group, std::size_t number, std::size_t first) {
    const std::span<const ModelRecipe* const> recipes = std::span(plan_.linears).subspan(first, group.linears.size());
    auto done = quantize(group, recipes);
    if (!done) return done.error();
    for (std::size_t i = 0; i < group.linears.size(); ++i) {
      Linear& linear = *group.linears[i].linear;
      const bool divided = &linear == divided_;
      layers.push_back({group.linears[i].name, number, i, std::move(done->reports[i]), done->input_scale,
                        divided ? divisor_ : std::vector<float>{}});
      linear = Linear(std::move(done->packed[i]), recipes[i]->compute);
    }
    if (done->input_scale.empty()) return Ok{};
    if (group.norm_gain) {
      fold(done->input_scale, *group.norm_gain);
    } else {
      divisor_ = upstream_divisor(group, done->input_scale);
      Matrix rows(group.upstream->dense()->view());
      fold_rows(divisor_, rows.view());
      *group.upstream = Linear(std::move(rows));
      divided_ = group.upstream;
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
    QuantizedSiblings all;
    all.packed.resize(count), all.reports.resize(count);
    std::vector<bool> finished(count, false);
    for (std::size_t i = 0; i < count; ++i) {
      if (finished[i]) continue;
      const ModelRecipe& recipe = *recipes[i];
      std::vector<std::size_t> members;
      std::vector<ConstMatrix> weights;
      for (std::size_t j = i; j < count; ++j)
        if (recipes[j] == &recipe) members.push_back(j), weights.push_back(group.linears[j].linear->dense()->view());
      // The product of query and key is too sensitive to be clipped (AWQ's own rule).
      constexpr std::array<bool, 3> clip_qkv{false, false, true};
      QuantizeOptions options;
      options.strict = strict_;
      options.tied = tied;
      if (group.site == Site::attn_qkv && !mixed) options.clip = clip_qkv;
      const auto named = [&](const Error& e) {
        return in_context(
            e, "recipe " + recipe.name + ": " + group.linears[i].name + (members.size() > 1 ? " and its siblings" : ""));
      };
      auto done = recipe.quantize(upstream, weights, stats_.at(group.block, group.site, recipe.needs), options);
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

  const ModelPlan& plan_;
  const ModelStats& stats_;
  bool strict_;
  const Linear* divided_ = nullptr;
  std::vector<float> divisor_;
};

}  // namespace detail

/// The model that `plan` makes of `source` (floats), the same for any number of threads. `stats` are of `source` and hold at
/// least needs(plan). What becomes of embedding and head stands in `embedding`, not in the plan.
inline Result<QuantizedModel> quantize_model(const Decoder& source, const ModelStats& stats, const ModelPlan& plan,
                                             const PackedEmbedding& embedding, const QuantizeModelOptions& options = {}) {
  ANYBIT_CHECK(stats.blocks() == source.config.blocks, "quantize_model: statistics of another model");
  ANYBIT_TRY_STATUS(check(plan, source));
  QuantizedModel out;
  out.decoder = source;
  ANYBIT_CHECK(embedding.head || !source.head, "quantize_model: the model has a head of its own, the packed embedding none");
  out.decoder.token_embedding = Linear(embedding.embedding, embedding.head ? Compute::f32 : options.head_compute);
  if (embedding.head) out.decoder.head = Linear(*embedding.head, options.head_compute);

  std::vector<SiblingGroup> groups = sibling_groups(out.decoder);
  std::vector<std::size_t> first(groups.size(), 0);
  for (std::size_t g = 1; g < groups.size(); ++g) first[g] = first[g - 1] + groups[g - 1].linears.size();
  const Index halves = static_cast<Index>(groups.size()) / 2;
  std::vector<std::vector<QuantizedLayer>> layers(static_cast<std::size_t>(halves));
  std::vector<Status> status(layers.size(), Ok{});
  std::mutex told;
  Index done = 0;
  options.executor.parallel_for(halves, 1, [&](Index begin, Index end) {
    for (Index half = begin; half < end; ++half) {
      const auto h = static_cast<std::size_t>(half);
      detail::HalfBlock work(plan, stats, options.strict);
      for (const std::size_t group : {2 * h + 1, 2 * h})
        if (status[h]) status[h] = work.run(groups[group], group, first[group]);
      layers[h] = std::move(work.layers);
      const std::lock_guard lock(told);
      ++done;
      if (options.progress) options.progress(done, halves);
    }
  });
  for (const Status& s : status)
    if (!s) return s.error();
  for (auto& some : layers)
    for (QuantizedLayer& layer : some) out.layers.push_back(std::move(layer));
  return out;
}

/// Every linear of the blocks by one recipe.
inline Result<QuantizedModel> quantize_model(const Decoder& source, const ModelStats& stats, const ModelRecipe& recipe,
                                             const PackedEmbedding& embedding, const QuantizeModelOptions& options = {}) {
  return quantize_model(source, stats, uniform_plan(recipe, source.config), embedding, options);
}

}  // namespace anybit::model::inline ANYBIT_CODE
