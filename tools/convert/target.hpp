#pragma once
// One layer on its way into another checkpoint format: kept code for code where the format's grid has it, else rounded to the
// nearest point of a grid that the format has.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/io/checkpoint_tensors.hpp>

namespace tool {

enum class Format { gptq, gptq_v2, gptq_p, awq, compressed_tensors, bitsandbytes };

std::string_view name_of(Format f);
/// As --to spells it.
std::optional<Format> format_named(std::string_view name);

/// What a user asks for where a layer is rounded, and the group that all layers of a format without exceptions share.
struct Grid {
  int bits = 0;             ///< 0: the layer's own, or 4
  anybit::Index group = 0;  ///< 0: the layer's own, or 128 where that divides the inputs, or all inputs
};

/// A layer as the target holds it. `reason` is empty where nothing was rounded.
struct Converted {
  anybit::io::CheckpointLinear linear;
  std::string reason;
  double largest_error = 0, mean_error = 0;  ///< of weights, absolute
  float largest_weight = 0;
};

/// The same weights in groups of `group` columns, which divides the layer's.
anybit::io::CheckpointLinear regrouped(const anybit::io::CheckpointLinear& l, anybit::Index group);

/// Why the format cannot hold the layer exactly, or Ok.
anybit::Status can_hold(Format f, const anybit::io::CheckpointLinear& l);

/// An error where no grid of the format fits the layer's shape.
anybit::Result<Converted> convert_layer(const anybit::io::CheckpointLinear& l, Format to, Grid grid);

/// Of a layer that the format can hold.
std::vector<anybit::io::OwnedTensor> tensors_of(const std::string& module, const anybit::io::CheckpointLinear& l, Format f);

}  // namespace tool
