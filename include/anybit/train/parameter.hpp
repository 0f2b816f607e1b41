#pragma once
// Tensors that training changes, with their gradients, as named spans: optimizers know nothing of models.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include <anybit/core/types.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

struct Parameter {
  std::string name{};  ///< "blk.0.attn_q.weight"
  std::span<float> values{};
  std::span<float> gradient{};  ///< as long as values
  bool decays = true;           ///< whether weight decay applies
};

inline void zero_gradients(std::span<const Parameter> parameters) {
  for (const Parameter& p : parameters) std::fill(p.gradient.begin(), p.gradient.end(), 0.0f);
}

/// The Euclidean norm of all gradients together. Sums of 4096 values are formed in double and added in order, so that threads do
/// not change it. Not finite where a gradient is not.
inline double global_norm(std::span<const Parameter> parameters, ExecutorRef executor) {
  constexpr Index part = 4096;
  double sum = 0;
  for (const Parameter& p : parameters) {
    const auto size = static_cast<Index>(p.gradient.size());
    std::vector<double> parts(static_cast<std::size_t>(ceil_div(size, part)));
    executor.parallel_for(static_cast<Index>(parts.size()), 4, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        double squares = 0;
        for (Index j = i * part; j < std::min((i + 1) * part, size); ++j) {
          const auto g = static_cast<double>(p.gradient[static_cast<std::size_t>(j)]);
          squares += g * g;
        }
        parts[static_cast<std::size_t>(i)] = squares;
      }
    });
    for (const double s : parts) sum += s;
  }
  return std::sqrt(sum);
}

/// Multiplies every gradient by min(1, most / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does; `norm` is global_norm().
inline void scale_gradients(std::span<const Parameter> parameters, double norm, double most, ExecutorRef executor) {
  const double factor = most / (norm + 1e-6);
  if (!(factor < 1)) return;
  for (const Parameter& p : parameters)
    executor.parallel_for(static_cast<Index>(p.gradient.size()), 4096, [&](Index begin, Index end) {
      for (Index j = begin; j < end; ++j) p.gradient[static_cast<std::size_t>(j)] *= static_cast<float>(factor);
    });
}

/// The same with the norm computed, which it returns.
inline double clip_gradients(std::span<const Parameter> parameters, double most, ExecutorRef executor) {
  const double norm = global_norm(parameters, executor);
  scale_gradients(parameters, norm, most, executor);
  return norm;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
