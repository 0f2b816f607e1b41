#pragma once
// Between the values that an optimizer steps and the weights that a loss sees: rounding with a straight-through gradient, masks,
// learned scales.

#include <functional>
#include <span>
#include <string>
#include <vector>

#include <anybit/train/parameter.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

/// Weights as a function of what is stepped. Each function may be empty: nothing to do.
struct Reparametrization {
  std::string description{};           ///< with every option: a checkpoint of another one is refused
  std::vector<Parameter> stepped{};    ///< values and gradients that the optimizer gets; what they point to outlives the run
  std::function<void()> to_weights{};  ///< stepped values -> weights, before every loss and once after the last step
  std::function<void()> gradients_from_weights{};  ///< gradients by weights -> gradients by stepped values, before every step
  std::function<void()> after_step{};              ///< on the stepped values: a projection such as clamping
};

/// Makes one from the weights that are trained, whose spans stay valid during the run.
using Reparametrize = std::function<Reparametrization(std::span<const Parameter> weights)>;

}  // namespace ANYBIT_CODE
}  // namespace anybit::train
