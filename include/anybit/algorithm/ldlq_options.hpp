#pragma once
// The options of LDLQ for any trellis scheme.

#include <anybit/core/macros_begin.hpp>

#include <string>

#include <anybit/algorithm/feedback/factor.hpp>
#include <anybit/core/finite.hpp>

namespace anybit::ldlq {
inline namespace ANYBIT_CODE {

/// The members of Ldlq, which says what they mean.
struct Options {
  float damp = 0.025f, gain = 0;
  bool exact = false, weighted = true, refine_scales = true;

  std::string describe() const {
    std::string text = "damp=" + gptq::detail::number(static_cast<double>(damp));
    if (!weighted) text += ", unweighted";
    if (!refine_scales) text += ", scales as found";
    return describe_search("ldlq", text);
  }
  /// A name and, in parentheses, `first` and the options of the search.
  std::string describe_search(const std::string& name, std::string first) const {
    const auto add = [&first](const std::string& option) { first += (first.empty() ? "" : ", ") + option; };
    if (gain > 0) add("gain=" + gptq::detail::number(static_cast<double>(gain)));
    if (exact) add("exact");
    return first.empty() ? name : name + "(" + first + ")";
  }
  Status check() const {
    ANYBIT_TRY_STATUS(gptq::check_options("ldlq", static_cast<double>(damp), 1, 0));
    if (is_finite(gain) && gain >= 0 && gain <= 4) return Ok{};
    return Error{ErrorCode::invalid_argument, "ldlq: gain is " + gptq::detail::number(static_cast<double>(gain)) +
                                                  "; it must be 0 (found on a sample) or up to 4 (1 is usual)"};
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::ldlq

#include <anybit/core/macros_end.hpp>
