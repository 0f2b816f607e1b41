#pragma once
// The weights of chosen experts, as data. nn/experts.hpp computes them.

#include <cstdint>

#include <anybit/core/types.hpp>

namespace anybit::nn {
inline namespace ANYBIT_ABI {

/// With z the router's logits, p = softmax z, and C the experts with the largest logits.
enum class RouterWeights : std::uint8_t {
  softmax,            ///< w_e = p_e: the weights sum to less than 1 (Qwen2-MoE)
  renormalized,       ///< w_e = p_e / sum of p over C (Mixtral, Qwen3-MoE)
  softmax_of_chosen,  ///< softmax of the logits in C: the same as `renormalized` but for rounding
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::nn
