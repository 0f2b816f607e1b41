#pragma once
// Quantizes a whole decoder by one recipe: every linear of its blocks; scales of inputs are folded into the norms and
// linears before them. Embedding and head get 8 bits unless they have recipes of their own.

#include <anybit/core/macros_begin.hpp>

#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <anybit/quantize/sibling_quantizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

struct QuantizedModel {
  Decoder decoder;
  std::vector<QuantizedLayer> layers;
};

struct QuantizeModelOptions {
  bool strict = false;
  /// How activations enter the output head, int8_static excluded. Floats unless asked for: rounding them there is felt in every
  /// prediction.
  Compute head_compute = Compute::f32;
  float expert_share = default_expert_share;  ///< of the calibration tokens, that an expert must have seen to learn from them
  /// Hessians weighted by the gradient of the end loss (train/guided.hpp), of the same model; null: those of the statistics.
  const GuidedHessians* guided = nullptr;
  ExecutorRef executor{};
  /// Told after each group of siblings, from any thread, one at a time.
  std::function<void(Index done, Index total)> progress{};
};

/// The embedding, and the head where it is not the same tensor: models of many recipes share them.
struct PackedEmbedding {
  AnyPacked embedding;
  std::optional<AnyPacked> head;
  Report embedding_report{}, head_report{};
};
namespace detail {
/// One of the two by a recipe; null: 8 bits. `stats` are of what the tensor multiplies, null where that is unknown or nothing.
inline Status pack_embedding_or_head(const nn::Linear& linear, const ModelRecipe* recipe, const Stats* stats, const char* what,
                                     const QuantizeOptions& options, AnyPacked& to, Report& report) {
  ANYBIT_CHECK(linear.dense() != nullptr, "pack_embedding: it is packed already");
  if (!recipe) {
    ANYBIT_TRY(auto q, Nearest<EmbeddingScheme>{}.quantize(linear.dense()->view()));
    to = AnyPacked(pack(q.matrix)), report = std::move(q.report);
    return Ok{};
  }
  if (recipe->needs != Needs::none && !stats)
    return Error{ErrorCode::unsupported, io::detail::text(what, " cannot take recipe ", recipe->name,
                                                          ", which learns from calibration: give one that rounds to nearest")};
  const Stats none(linear.extents().cols, Needs::none);
  const ConstMatrix weights[] = {linear.dense()->view()};
  auto done = recipe->quantize(Upstream::nothing, weights, stats ? *stats : none, options);
  if (!done) return in_context(done.error(), io::detail::text(what, ", recipe ", recipe->name));
  to = std::move(done->packed.front()), report = std::move(done->reports.front());
  if (recipe->transforms)
    report.fallbacks.push_back(
        io::detail::text("nothing takes the scales of its input: the transforms of ", recipe->name, " were left out"));
  if (auto strict = check_strict(report, options); !strict)
    return in_context(strict.error(), io::detail::text(what, ", recipe ", recipe->name));
  return Ok{};
}
}  // namespace detail

/// Both as `plan` wants them. Recipes that learn from calibration are for what multiplies: the head, or an embedding that is
/// the head too. `head_input` are statistics of what enters the head (ModelStats::head()), null if no recipe needs them.
inline Result<PackedEmbedding> pack_embedding(const Decoder& d, const ModelPlan& plan, const Stats* head_input = nullptr,
                                              const QuantizeOptions& options = {}) {
  PackedEmbedding out;
  const bool tied = !d.has_head() && !plan.head;
  ANYBIT_TRY_STATUS(detail::pack_embedding_or_head(d.token_embedding(), plan.embedding, tied ? head_input : nullptr,
                                                   "the token embedding", options, out.embedding, out.embedding_report));
  if (!tied)
    ANYBIT_TRY_STATUS(detail::pack_embedding_or_head(d.output_head(), plan.head, head_input, "the output head", options,
                                                     out.head.emplace(), out.head_report));
  return out;
}

/// Both in 8 bits.
inline Result<PackedEmbedding> pack_embedding(const Decoder& d) { return pack_embedding(d, ModelPlan{}); }

/// The embedding in 8 bits, the head by a recipe of its own, also where the two were tied. The recipe may need no statistics.
inline Result<PackedEmbedding> pack_embedding(const Decoder& d, const ModelRecipe& head) {
  ModelPlan plan;
  plan.head = &head;
  return pack_embedding(d, plan);
}

namespace detail {
inline void set_embedding(Decoder& d, const PackedEmbedding& embedding, Compute head_compute) {
  ANYBIT_CHECK(embedding.head || !d.has_head(), "the model has a head of its own, the packed embedding none");
  d.token_embedding() = nn::Linear(embedding.embedding, embedding.head ? Compute::f32 : head_compute);
  if (!embedding.head) return;
  nn::Linear head(*embedding.head, head_compute);
  d.head() = d.has_head() ? d.head().with_weights(std::move(head)) : std::move(head);
}
}  // namespace detail

/// The model that `plan` makes of `source` (floats), the same for any number of threads. `stats` are of `source` and hold at
/// least needs(plan). What becomes of embedding and head stands in `embedding`, not in the plan.
inline Result<QuantizedModel> quantize_model(const Decoder& source, const ModelStats& stats, const ModelPlan& plan,
                                             const PackedEmbedding& embedding, const QuantizeModelOptions& options = {}) {
  ANYBIT_CHECK(stats.sites() == source.blueprint->sites.size(), "quantize_model: statistics of another model");
  ANYBIT_TRY_STATUS(check(plan, source));
  for (const ModelRecipe* const r : plan.linears)
    if (r->learn_block)
      return Error{ErrorCode::unsupported,
                   io::detail::text("recipe ", r->name, " learns whole blocks: quantize block by block (quantize_layer_wise)")};
  if (options.guided) {
    ANYBIT_CHECK(options.guided->weights() == source.weights.size(), "quantize_model: guided Hessians of another model");
    ANYBIT_TRY_STATUS(check_guided(plan, options.guided->groups()));
  }
  QuantizedModel out;
  out.decoder = source;
  detail::set_embedding(out.decoder, embedding, options.head_compute);
  std::vector<std::vector<SiteId>> groups;  // that do not touch each other's weights
  for (Index i = 0; i < source.config.blocks; ++i)
    for (auto& group : source.blueprint->quantization_order(i)) groups.push_back(std::move(group));
  const auto count = static_cast<Index>(groups.size());
  std::vector<std::vector<QuantizedLayer>> layers(groups.size());
  std::vector<Status> status(layers.size(), Ok{});
  std::mutex told;
  Index done = 0;
  options.executor.parallel_for(count, 1, [&](Index begin, Index end) {
    for (Index item = begin; item < end; ++item) {
      const auto g = static_cast<std::size_t>(item);
      detail::SiblingQuantizer work(out.decoder, plan, stats, {.strict = options.strict}, options.expert_share, options.guided);
      for (const SiteId site : groups[g])
        if (status[g]) status[g] = work.run(site);
      layers[g] = std::move(work.layers);
      const std::lock_guard lock(told);
      ++done;
      if (options.progress) options.progress(done, count);
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
  return quantize_model(source, stats, uniform_plan(recipe, source), embedding, options);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
