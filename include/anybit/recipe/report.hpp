#pragma once
// The options of a quantization besides the recipe, and its report.

#include <anybit/core/macros_begin.hpp>

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
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

/// What was asked, what was done, and every place where the two differ.
struct Report {
  std::string requested;               ///< "gptq(damp=0.01) superfloat5/g128/f16/bits"
  std::string done;                    ///< the same, or what was used in the last resort
  std::vector<std::string> remarks;    ///< what a reader should know: "search chose ratio 0.35"
  std::vector<std::string> fallbacks;  ///< what was not done as asked; errors in strict mode
  double weight_error = 0;             ///< ||W - Q||_F / ||W||_F
  std::optional<double> output_error;  ///< ||(W - Q) X||_F / ||W X||_F through the Hessian, where there is one
  double bits_per_weight = 0;

  bool as_requested() const { return fallbacks.empty(); }
};

/// The error that strict mode makes of a report's first fallback.
inline Status check_strict(const Report& report, const QuantizeOptions& options) {
  if (!options.strict || report.as_requested()) return Ok{};
  return Error{ErrorCode::degraded,
               "strict mode: " + report.fallbacks.front() + "; allow fallbacks, or change the data or the recipe"};
}

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
