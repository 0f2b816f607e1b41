#pragma once
// The diagonal of the empirical Fisher matrix: mean squared gradients of the loss, one example at a time.

#include <anybit/core/macros_begin.hpp>

#include <map>
#include <span>
#include <string>
#include <vector>

#include <anybit/train/loss.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

/// By parameter name: per weight the mean over examples of (dL/dw)^2, L the mean loss of the example. Half of it times (w - q)^2,
/// summed, estimates what rounding adds to the loss.
using Fisher = std::map<std::string, std::vector<double>, std::less<>>;

inline Result<Fisher> fisher_of(model::Decoder& d, std::span<const Example> examples, const Trained& trained,
                                const LossOptions& options = {}) {
  if (examples.empty()) return {ErrorCode::insufficient_data, "fisher: no examples: give at least one"};
  Gradients gradients = make_gradients(d, trained);
  const std::vector<Parameter> all = parameters(d, gradients);
  Fisher out;
  for (const Parameter& p : all) out[p.name].resize(p.values.size());
  for (const Example& e : examples) {
    zero_gradients(all);
    ANYBIT_TRY_STATUS(loss_and_gradients(d, std::span(&e, 1), gradients, options));
    for (const Parameter& p : all) {
      std::vector<double>& sum = out[p.name];
      for (std::size_t i = 0; i < sum.size(); ++i) {
        const auto g = static_cast<double>(p.gradient[i]);
        sum[i] += g * g / static_cast<double>(examples.size());
      }
    }
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
