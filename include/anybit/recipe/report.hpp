#pragma once
// The report of a quantization.

#include <anybit/core/macros_begin.hpp>

#include <optional>
#include <string>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/recipe/options.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// The request, the result, and every place where the two differ.
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
