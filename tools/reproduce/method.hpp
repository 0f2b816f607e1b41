#pragma once
// How one row of a table treats the linears of a model.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <anybit/calibrate/stats.hpp>

#include "experiment.hpp"

namespace reproduce {

/// The maker of a group's input, which could divide its channels for free.
enum class Upstream { norm, linear, nothing };

/// Linears that share one input, and what calibration saw of it.
struct Group {
  bool query_key_value = false;  ///< the three of an attention, in this order
  Upstream upstream{};
  std::span<const anybit::ConstMatrix> weights;
  const anybit::Stats& sums;     ///< abs_max, mean_abs, mean_square
  const anybit::Stats& hessian;  ///< those and the Hessian
};

struct PackedLinears;

/// Stand-ins for the linears of a group: either weights or linears that multiply in their own way.
struct Replaced {
  std::vector<anybit::Matrix> weights{};
  std::shared_ptr<PackedLinears> packed{};
  std::vector<float> input_scale{};  ///< what the norm before them divides by; empty: nothing
  double bits = 0;                   ///< of all weights together; 0 where bits are not what the method is about
};

/// Called from several threads at once.
using Method = std::function<anybit::Result<Replaced>(const Group&)>;

/// A setting that treats every group of the model at hand by `method`.
Setting setting(std::string name, std::string description, Method method);

}  // namespace reproduce
