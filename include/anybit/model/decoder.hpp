#pragma once
// A decoder: configuration, blueprint, and a weight for each entry of the blueprint.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/blueprint.hpp>
#include <anybit/model/config.hpp>
#include <anybit/model/rotation.hpp>
#include <anybit/nn/kv_cache.hpp>
#include <anybit/nn/linear.hpp>
#include <anybit/nn/rope.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// A matrix that multiplies or is looked up, or a vector; WeightSpec::role says which.
struct Weight {
  nn::Linear linear{};
  std::vector<float> values{};
};

/// The weights of one block, in the order of the blueprint.
using BlockWeights = std::vector<Weight>;

/// Reads one block of a model from where it lies.
using BlockLoader = std::function<Result<BlockWeights>(Index block)>;

/// Copies share the weights of their linears. make_decoder() makes one of an architecture.
struct Decoder {
  DecoderConfig config;
  std::shared_ptr<const Blueprint> blueprint;
  std::vector<Weight> weights;  ///< by WeightId
  OnlineRotations online{};
  std::optional<RotationOptions> rotation{};  ///< what rotate() was asked for; not saved

  Weight& operator[](WeightId id) { return weights[place(id)]; }
  const Weight& operator[](WeightId id) const { return weights[place(id)]; }

  /// A linear of a block by its name in GGUF, "attn_q".
  nn::Linear& linear(Index block, std::string_view name) { return (*this)[weight(block, name)].linear; }
  const nn::Linear& linear(Index block, std::string_view name) const { return (*this)[weight(block, name)].linear; }
  /// A vector of a block by its name in GGUF, "attn_norm".
  std::vector<float>& values(Index block, std::string_view name) { return (*this)[weight(block, name)].values; }
  const std::vector<float>& values(Index block, std::string_view name) const { return (*this)[weight(block, name)].values; }
  WeightId weight(Index block, std::string_view name) const {
    return weight(io::detail::text("blk.", block, ".", name, ".weight"));
  }
  WeightId weight(std::string_view name) const {
    const auto found = blueprint->find(name);
    ANYBIT_CHECK(found.has_value(), "Decoder::weight: the architecture has no weight of this name");
    return *found;
  }
  /// A site of a block by its name, "attn_q": that of the first linear that reads it.
  SiteId site(Index block, std::string_view name) const {
    const auto found = blueprint->find_site(block, name);
    ANYBIT_CHECK(found.has_value(), "Decoder::site: the block has no site of this name");
    return *found;
  }

  std::span<Weight> block(Index i) { return std::span(weights).subspan(first_of(i), first_of(i + 1) - first_of(i)); }
  std::span<const Weight> block(Index i) const { return std::span(weights).subspan(first_of(i), first_of(i + 1) - first_of(i)); }
  BlockWeights copy_block(Index i) const { return {block(i).begin(), block(i).end()}; }
  void set_block(Index i, std::span<const Weight> from) {
    ANYBIT_CHECK(from.size() == block(i).size(), "Decoder::set_block: the weights of another architecture");
    std::copy(from.begin(), from.end(), block(i).begin());
  }

  nn::Linear& token_embedding() { return (*this)[blueprint->embedding].linear; }
  const nn::Linear& token_embedding() const { return (*this)[blueprint->embedding].linear; }
  std::vector<float>& output_norm() { return (*this)[weight("output_norm.weight")].values; }
  const std::vector<float>& output_norm() const { return (*this)[weight("output_norm.weight")].values; }
  /// Whether the output head is a tensor of its own; else it is the embedding.
  bool has_head() const { return blueprint->head != blueprint->embedding && head_weight().extents().size() > 0; }
  nn::Linear& head() { return (*this)[blueprint->head].linear; }
  /// The linear that makes logits.
  const nn::Linear& output_head() const { return has_head() ? head_weight() : token_embedding(); }

 private:
  const nn::Linear& head_weight() const { return (*this)[blueprint->head].linear; }
  std::size_t first_of(Index block) const { return blueprint->blocks[static_cast<std::size_t>(block)]; }
};

/// Calls f(name, linear) for every matrix of the weights [begin, end), by its name in GGUF.
template <class D, class F>
void for_each_linear(D& decoder, std::size_t begin, std::size_t end, F&& f) {
  for (std::size_t i = begin; i < end; ++i) {
    const WeightSpec& spec = decoder.blueprint->weights[i];
    auto& linear = decoder.weights[i].linear;
    if (spec.multiplies() && !(spec.optional && linear.extents().size() == 0)) f(spec.name, linear);
  }
}
/// For every matrix of the model: the embedding, those of the blocks, the head where it is no embedding.
template <class D, class F>
void for_each_linear(D& decoder, F&& f) {
  for_each_linear(decoder, 0, decoder.weights.size(), f);
}
/// For every matrix of one block.
template <class D, class F>
void for_each_linear_of(D& decoder, Index block, F&& f) {
  const auto& blocks = decoder.blueprint->blocks;
  for_each_linear(decoder, blocks[static_cast<std::size_t>(block)], blocks[static_cast<std::size_t>(block) + 1], f);
}

/// The shape of the model's KV cache: nn::KvCache(cache_shape(c), capacity).
/// Of a model with an encoder in front of its decoder, the decoder's.
inline nn::KvShape cache_shape(const DecoderConfig& c) { return {c.blocks - c.encoder_blocks(), c.kv_heads, c.head_dim}; }
/// Rotations where the last of the positions so far is `length` - 1, which dynamic scaling and LongRoPE depend on. It refers to
/// the configuration's factors.
inline nn::RopeOptions rope_options(const DecoderConfig& c, Index length) {
  nn::RopeOptions out{c.rotary_dim, c.rope_base, c.rope_scale, c.rope_factors, c.rope_order, c.rope_magnitude};
  if (!c.rope_long_factors.empty() && length > c.rope_original_context) out.factors = c.rope_long_factors;
  if (c.rope_dynamic > 0 && length > c.context) {
    const double f = static_cast<double>(c.rope_dynamic), r = static_cast<double>(c.rotary_dim);
    const double grown = f * static_cast<double>(length) / static_cast<double>(c.context) - (f - 1);
    out.base = static_cast<float>(static_cast<double>(c.rope_base) * std::pow(grown, r / (r - 2)));
  }
  return out;
}
/// Of blocks with a window, where these have a base of their own.
inline nn::RopeOptions window_rope_options(const DecoderConfig& c) {
  return {c.rotary_dim, c.rope_window_base, 1, {}, c.rope_order};
}

/// Configuration and shapes; the error names the tensor as GGUF does.
inline Status check(const Decoder& d) {
  ANYBIT_TRY_STATUS(check(d.config));
  ANYBIT_CHECK(d.blueprint && d.weights.size() == d.blueprint->weights.size(), "Decoder: see make_decoder()");
  const auto need = [](std::string_view name, Extents is, Extents needed) -> Status {
    if (is == needed) return Ok{};
    return {ErrorCode::shape_mismatch,
            io::detail::text("tensor ", name, " is ", is.rows, " x ", is.cols, ", the configuration needs ", needed.rows, " x ",
                             needed.cols, ": convert the model again")};
  };
  const auto vector = [](const std::vector<float>& v) { return Extents{1, static_cast<Index>(v.size())}; };
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const WeightSpec& spec = d.blueprint->weights[i];
    const Weight& w = d.weights[i];
    if (spec.optional && w.linear.extents().size() == 0) continue;
    ANYBIT_TRY_STATUS(need(spec.name, spec.multiplies() ? w.linear.extents() : vector(w.values), spec.shape));
    if (!spec.bias.empty()) ANYBIT_TRY_STATUS(need(spec.bias, vector(w.linear.bias()), {1, spec.shape.rows}));
  }
  const auto need_rotation = [&](std::string_view name, const std::optional<Hadamard>& rotation, Index width) -> Status {
    return rotation ? need(name, {1, rotation->size()}, {1, width}) : Status(Ok{});
  };
  const DecoderConfig& c = d.config;
  ANYBIT_TRY_STATUS(need_rotation("rotation of the residual stream", d.online.residual, c.dim));
  ANYBIT_TRY_STATUS(need_rotation("rotation of attn_output's input", d.online.attn_output, c.query_width()));
  return need_rotation("rotation of ffn_down's input", d.online.ffn_down, c.hidden);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
