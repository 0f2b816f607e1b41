#pragma once
// The linears of a decoder for quantization: groups that share one input, and the producer of that input.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <anybit/model/decoder.hpp>
#include <anybit/recipe/recipe.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

struct NamedLinear {
  std::string name;  ///< as in GGUF, "blk.0.attn_q.weight"
  nn::Linear* linear = nullptr;
  bool clippable = true;  ///< WeightSpec::clippable
};

/// A site of one decoder, with its weights. A scale s on the shared input (x_j / s_j, and column j of every sibling times s_j)
/// costs nothing where the producer takes it: either `norm_gain` (gain_j / s_j, and `norm_bias` likewise) or the rows of
/// `upstream` (row j / s_j).
struct SiblingGroup {
  SiteId id{};
  Index block = 0;
  std::vector<NamedLinear> linears;
  std::vector<float>* norm_gain = nullptr;  ///< null where no norm feeds the group
  nn::Linear* upstream = nullptr;           ///< null where no linear feeds the group, or a rotation stands between
  Producer producer{};
  std::vector<float>* norm_bias = nullptr;  ///< null where the norm has none
  /// Other linears that read the input. A scale of it multiplies their columns as well.
  std::vector<nn::Linear*> float_readers{};  ///< which are never quantized
  std::vector<SiteId> experts{};             ///< the sites of those that are quantized by themselves
  std::optional<SiteId> mixture{};           ///< of an expert: the site whose scale it shares, and which has the norm

  /// Divides the outputs of the norm by `input_scale`.
  void fold_into_norm(std::span<const float> input_scale) const {
    fold(input_scale, *norm_gain);
    if (norm_bias) fold(input_scale, *norm_bias);
  }
};

/// What QuantizeOptions::clip is for a group; empty where every sibling may be clipped.
class ClipFlags {
 public:
  explicit ClipFlags(const SiblingGroup& group) : flags_(std::make_unique<bool[]>(group.linears.size())) {
    for (std::size_t i = 0; i < group.linears.size(); ++i) {
      flags_[i] = group.linears[i].clippable;
      if (!flags_[i]) size_ = group.linears.size();
    }
  }
  std::span<const bool> view() const { return {flags_.get(), size_}; }

 private:
  std::unique_ptr<bool[]> flags_;
  std::size_t size_ = 0;
};

/// What QuantizeOptions::tied is for the inputs of a group.
inline std::vector<Index> tied_inputs(const SiblingGroup& group) {
  std::vector<Index> tied;
  if (!group.upstream || group.producer.fan_out == 1) return tied;
  for (Index j = 0; j < group.linears.front().linear->extents().cols; ++j) tied.push_back(group.producer.row_of(j));
  return tied;
}

/// The divisors of the rows of `upstream` that divide inputs by `input_scale`, which is equal for tied inputs.
inline std::vector<float> upstream_divisor(const SiblingGroup& group, std::span<const float> input_scale) {
  std::vector<float> divisor(static_cast<std::size_t>(group.upstream->extents().rows));
  for (std::size_t j = 0; j < input_scale.size(); ++j) {
    float& to = divisor[static_cast<std::size_t>(group.producer.row_of(static_cast<Index>(j)))];
    ANYBIT_CHECK(to == 0 || to == input_scale[j], "upstream_divisor: inputs of one upstream row have different scales");
    to = input_scale[j];
  }
  return divisor;
}

/// W diag(input_scale), under the same bias and adapter.
inline void scale_columns(nn::Linear& linear, std::span<const float> input_scale) {
  Matrix w(linear.dense()->view());
  for (Index r = 0; r < w.rows(); ++r)
    for (Index c = 0; c < w.cols(); ++c) w(r, c) *= input_scale[static_cast<std::size_t>(c)];
  linear = linear.with_weights(nn::Linear(std::move(w)));
}

/// A site with the weights of `d`, to which the pointers point.
inline SiblingGroup sibling_group(Decoder& d, SiteId id) {
  const Blueprint& b = *d.blueprint;
  const SiteSpec& site = b[id];
  SiblingGroup g{id, site.block, {}, nullptr, nullptr, site.producer};
  for (const WeightId w : site.readers) g.linears.push_back({b[w].name, &d[w].linear, b[w].clippable});
  const bool rotated =
      (site.point == Point::head_out && d.online.attn_output) || (site.point == Point::mlp_hidden && d.online.ffn_down);
  for (const WeightId w : site.float_readers) g.float_readers.push_back(&d[w].linear);
  g.experts = b.experts_of(id), g.mixture = site.mixture;
  if (site.mixture) return g;
  if (site.producer.kind == Producer::Kind::norm) g.norm_gain = &d[site.producer.weight].values;
  if (site.producer.bias) g.norm_bias = &d[*site.producer.bias].values;
  if (site.producer.kind == Producer::Kind::linear && !rotated) g.upstream = &d[site.producer.weight].linear;
  return g;
}

/// By SiteId. The pointers are into `d`.
inline std::vector<SiblingGroup> sibling_groups(Decoder& d) {
  std::vector<SiblingGroup> out;
  for (std::size_t i = 0; i < d.blueprint->sites.size(); ++i) out.push_back(sibling_group(d, static_cast<SiteId>(i)));
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
