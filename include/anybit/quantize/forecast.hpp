#pragma once
// The time, memory and bytes of a block-by-block quantization, before it starts.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include <anybit/quantize/block_by_block.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

struct Forecast {
  Index file_bytes = 0;    ///< of the saved model: exact, unless a fallback replaces column orders
  Index memory_bytes = 0;  ///< at the most, by shapes: weights, residual streams, statistics and the widest linear's factors
  double seconds = 0;      ///< from running the first blocks on one window
};

namespace detail {

/// A block of zeros of the shapes that its weights have; matrices of one shape share them.
inline BlockWeights blank_block(const Blueprint& b, Index block) {
  BlockWeights out;
  std::vector<nn::Linear> zeros;
  for (std::size_t w = b.blocks[static_cast<std::size_t>(block)]; w < b.blocks[static_cast<std::size_t>(block) + 1]; ++w) {
    const WeightSpec& spec = b.weights[w];
    Weight& to = out.emplace_back();
    if (!spec.multiplies()) {
      to.values.resize(static_cast<std::size_t>(spec.shape.cols));
      continue;
    }
    auto found = std::find_if(zeros.begin(), zeros.end(), [&](const nn::Linear& l) { return l.extents() == spec.shape; });
    if (found == zeros.end()) found = zeros.emplace(zeros.end(), Matrix(spec.shape.rows, spec.shape.cols));
    to.linear = *found;
    if (!spec.bias.empty()) to.linear.set_bias(std::vector<float>(static_cast<std::size_t>(spec.shape.rows)));
  }
  return out;
}

/// The model as quantize_layer_wise() would give it, of packed zeros. Matrices of one recipe and shape share them.
inline Decoder blank_model(const Decoder& source, const ModelPlan& plan, const PackedEmbedding& embedding, Compute head) {
  Decoder out = source;
  set_embedding(out, embedding, head);
  const Blueprint& blueprint = *source.blueprint;
  std::vector<std::pair<const ModelRecipe*, AnyPacked>> known;
  for (Index i = 0; i < source.config.blocks; ++i) out.set_block(i, blank_block(blueprint, i));
  for (std::size_t l = 0; l < blueprint.linears.size(); ++l) {
    nn::Linear& linear = out[blueprint.linears[l]].linear;
    const ModelRecipe* const recipe = plan.linears[l];
    auto found = std::find_if(known.begin(), known.end(),
                              [&](const auto& k) { return k.first == recipe && k.second.extents() == linear.extents(); });
    if (found == known.end()) {
      found = known.emplace(known.end(), recipe, recipe->blank(linear.extents()));
      found->second.prepare(recipe->compute);
    }
    // Any scale takes as many bytes as another.
    linear =
        linear.with_weights(nn::Linear(found->second, recipe->compute == Compute::int8_static ? ActivationMode::int8_static(1)
                                                                                              : ActivationMode(recipe->compute)));
  }
  return out;
}

inline Index layer_wise_memory(const Decoder& source, const BlockWeights& any_block, bool reads_blocks, const Decoder& packed,
                               Needs needs, Index tokens, Index longest) {
  constexpr Index f32 = 4, f64 = 8;
  const Blueprint& blueprint = *source.blueprint;
  const Index stream = source.config.dim;
  // The residual stream, its norm, and each site's input and outputs: the floats that a pass through a block writes per token.
  // Experts write one after the other to the same place.
  Index written = 0, widest = 0, largest = 0, squares = 0;
  for (Index i = 0; i < source.config.blocks; ++i) {
    Index in_block = 2 * stream, squares_in_block = 0;
    for (const SiteId site : blueprint.sites_of(i)) {
      const SiteSpec& s = blueprint[site];
      const bool repeated = s.routed && s.expert > 0;
      in_block += repeated ? 0 : s.inputs;
      widest = std::max(widest, s.inputs);
      squares_in_block += s.inputs * s.inputs;
      for (const WeightId reader : s.readers) {
        in_block += repeated ? 0 : blueprint[reader].shape.rows;
        largest = std::max(largest, blueprint[reader].shape.size());
      }
    }
    written = std::max(written, in_block), squares = std::max(squares, squares_in_block);
  }
  Index bytes = 0;
  for (const Decoder* d : {&source, &packed})
    for_each_linear(*d, [&](const std::string&, const nn::Linear& l) { bytes += l.payload_bytes(); });
  if (reads_blocks)
    for (const Weight& w : any_block) bytes += w.linear.payload_bytes();
  if (covers(needs, Needs::sequences))  // kept at two sites, and what a pass over them writes
    bytes += std::min(tokens, sequence_tokens) * written * f32;
  const bool drifts = covers(needs, Needs::input_drift), hessian = covers(needs, Needs::hessian);
  bytes += tokens * stream * f32 * (drifts ? 2 : 1);
  bytes += longest * written * f32;
  if (hessian) bytes += squares * (f32 + (drifts ? f64 : 0));
  // The Hessian and its factor in double and in float, their scratch, and a few copies of the widest matrix.
  if (hessian) bytes += widest * widest * (5 * f64 + (drifts ? 2 * f64 : 0));
  bytes += 8 * largest * f32;
  return bytes;
}

}  // namespace detail

/// Of quantizing `m` by `plan`; arguments as for quantize_layer_wise(). Takes about as long as two blocks without their text.
inline Result<Forecast> forecast(const Model& m, const ModelPlan& plan, std::span<const std::span<const TokenId>> windows,
                                 const PackedEmbedding& embedding, const Provenance& provenance,
                                 const LayerWiseOptions& options = {}) {
  const Decoder& source = m.decoder;
  ANYBIT_TRY_STATUS(check(plan, source));
  ANYBIT_TRY_STATUS(check_is_decoder(source, "forecast"));
  ANYBIT_TRY(const BlockWeights first, detail::block_of(source, options.load_block, 0));
  const Decoder packed = detail::blank_model(source, plan, embedding, options.head_compute);
  Forecast out;
  ANYBIT_TRY(out.file_bytes, saved_bytes(Model{m.name, packed, m.tokenizer}, provenance));
  Index tokens = 0, longest = 0;
  for (const auto& w : windows) tokens += static_cast<Index>(w.size()), longest = std::max(longest, static_cast<Index>(w.size()));
  out.memory_bytes =
      detail::layer_wise_memory(source, first, static_cast<bool>(options.load_block), packed, needs(plan), tokens, longest);

  // Two blocks, so that the step from one to the next is in it.
  const Decoder probe = first_blocks(source, std::min<Index>(2, source.config.blocks));
  ModelPlan probe_plan = plan;
  probe_plan.linears.resize(probe.blueprint->linears.size());
  LayerWiseOptions probe_options = options;
  probe_options.state.clear();
  ANYBIT_TRY(const LayerWiseModel tried,
             quantize_layer_wise(probe, probe_plan, windows.first(windows.empty() ? 0 : 1), embedding, probe_options));
  const double blocks = static_cast<double>(source.config.blocks), share = blocks / static_cast<double>(probe.config.blocks);
  const double texts = static_cast<double>(tokens) / static_cast<double>(tried.tokens);
  // The probe steps on once, the run once less than it has blocks.
  const double passes = covers(needs(plan), Needs::input_drift) ? 2 : 1;
  const double forward =
      tried.seconds.forward / ((passes + 1) * static_cast<double>(probe.config.blocks) - 1) * ((passes + 1) * blocks - 1);
  out.seconds = texts * (forward + tried.seconds.statistics * share) + tried.seconds.quantize * share;
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
