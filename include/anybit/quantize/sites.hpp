#pragma once
// The linears of a decoder for quantization: groups that share one input, and the producer of that input.

#include <span>
#include <string>
#include <vector>

#include <anybit/model/decoder.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

struct NamedLinear {
  std::string name;  ///< as in GGUF, "blk.0.attn_q.weight"
  Linear* linear = nullptr;
};

/// A scale s on the shared input (x_j / s_j, and column j of every sibling times s_j) costs nothing where the producer takes
/// it: either `norm_gain` (gain_j / s_j) or the rows of `upstream` (row j / s_j).
struct SiblingGroup {
  Index block = 0;
  Site site = Site::attn_qkv;
  std::vector<NamedLinear> linears;
  std::vector<float>* norm_gain = nullptr;  ///< null where no norm feeds the group
  Linear* upstream = nullptr;               ///< v for o, up for down; null where a norm feeds the group, or a rotation between
  /// How many inputs each row of `upstream` feeds: with grouped queries a row of v serves several inputs of o, so that only equal
  /// scales of theirs can be folded.
  Index fan_out = 1;
  Index head_dim = 1;

  /// The row of `upstream` that makes input j.
  Index upstream_row(Index j) const { return j / (head_dim * fan_out) * head_dim + j % head_dim; }
};

/// What QuantizeOptions::tied is for the inputs of a group.
inline std::vector<Index> tied_inputs(const SiblingGroup& group) {
  std::vector<Index> tied;
  if (!group.upstream || group.fan_out == 1) return tied;
  for (Index j = 0; j < group.linears.front().linear->extents().cols; ++j) tied.push_back(group.upstream_row(j));
  return tied;
}

/// What the rows of `upstream` must be divided by for inputs to be divided by `input_scale`, which is equal for tied inputs.
inline std::vector<float> upstream_divisor(const SiblingGroup& group, std::span<const float> input_scale) {
  std::vector<float> divisor(static_cast<std::size_t>(group.upstream->extents().rows));
  for (std::size_t j = 0; j < input_scale.size(); ++j) {
    float& to = divisor[static_cast<std::size_t>(group.upstream_row(static_cast<Index>(j)))];
    ANYBIT_CHECK(to == 0 || to == input_scale[j], "upstream_divisor: inputs of one upstream row have different scales");
    to = input_scale[j];
  }
  return divisor;
}

/// Four groups a block, in the order in which the forward pass captures their inputs. The pointers are into `d`.
inline std::vector<SiblingGroup> sibling_groups(Decoder& d) {
  std::vector<SiblingGroup> out;
  for (Index i = 0; i < static_cast<Index>(d.blocks.size()); ++i) {
    Block& b = d.blocks[static_cast<std::size_t>(i)];
    const auto named = [&](std::string_view which, Linear& linear) {
      return NamedLinear{io::detail::text("blk.", i, ".", which, ".weight"), &linear};
    };
    out.push_back(
        {i, Site::attn_qkv, {named("attn_q", b.q), named("attn_k", b.k), named("attn_v", b.v)}, &b.attn_norm, nullptr, 1});
    out.push_back({i,
                   Site::attn_output,
                   {named("attn_output", b.o)},
                   nullptr,
                   d.online.attn_output ? nullptr : &b.v,
                   d.config.heads / d.config.kv_heads,
                   d.config.head_dim});
    out.push_back({i, Site::ffn_gate_up, {named("ffn_gate", b.gate), named("ffn_up", b.up)}, &b.ffn_norm, nullptr, 1});
    out.push_back({i, Site::ffn_down, {named("ffn_down", b.down)}, nullptr, d.online.ffn_down ? nullptr : &b.up, 1});
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
