#pragma once
// Options of a quantization besides its recipe.

#include <anybit/core/macros_begin.hpp>

#include <span>

#include <anybit/core/types.hpp>
#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

struct QuantizeOptions {
  /// Every fallback that a Report would mention becomes an error instead.
  bool strict = false;
  /// For quantize_siblings with a recipe that clips weights: one entry a sibling, false where clipping would hurt (query
  /// and key projections, whose product is sensitive). Empty means true for all.
  std::span<const bool> clip{};
  /// Magnitudes beyond which the weights of a group are cut off when its grid is found, (rows, groups per row); no rows
  /// means none. A clip search in front of the algorithm fills this in.
  ConstMatrix clip_limits{};
  /// Inputs that one output upstream feeds and that can therefore only be scaled alike (those of a value row that several query
  /// heads read): one entry an input, equal for such inputs, each 0 .. inputs - 1. Empty: every input by itself.
  std::span<const Index> tied{};
  /// false: GPTQ's result is not held against rounding to nearest, which it promises to be no worse than otherwise, and
  /// Report::output_error stays empty. On a large matrix these two take half the time.
  bool verify = true;
  /// Rows are independent: results are equal for any number of threads. Must outlive the call.
  ExecutorRef executor{};
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
