#pragma once
// Gradients of a mixture of experts, y_t = sum over e in C(t) of w_te E_e(x_t), where the choice C(t) counts as fixed; forwards
// in nn/experts.hpp. With z the router's logits, p = softmax z and g_e = dy_t . E_e(x_t):
//
//   w = p                       dz_e = p_e (g_e - sum over C of p_c g_c), g_e = 0 outside C
//   w = softmax of z over C     dz_e = w_e (g_e - sum over C of w_c g_c) in C, 0 outside

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include <anybit/nn/experts.hpp>

namespace anybit::train::backward {
inline namespace ANYBIT_CODE {

/// dz (tokens, experts) of `dweights`, one for each token and each of its experts in the order of Routing::experts().
inline void router(const nn::Routing& routing, ConstMatrix z, nn::RouterWeights kind, std::span<const float> dweights,
                   MutableMatrix dz, ExecutorRef executor) {
  const auto used = static_cast<std::size_t>(routing.used());
  ANYBIT_CHECK(z.extents() == dz.extents() && dweights.size() == static_cast<std::size_t>(z.rows) * used,
               "backward::router: shapes differ");
  executor.parallel_for(z.rows, 4 * nn::token_grain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const std::span<const Index> experts = routing.experts(t);
      const std::span<const float> w = routing.weights(t), g = dweights.subspan(static_cast<std::size_t>(t) * used, used);
      float mean = 0;
      for (std::size_t i = 0; i < used; ++i) mean += w[i] * g[i];
      const std::span<float> to = dz.row(t);
      std::fill(to.begin(), to.end(), 0.0f);
      if (kind == nn::RouterWeights::softmax) {
        const std::span<const float> logits = z.row(t);
        const float largest = logits[static_cast<std::size_t>(experts[0])];
        float sum = 0;
        for (std::size_t e = 0; e < to.size(); ++e) sum += to[e] = std::exp(logits[e] - largest);
        for (float& d : to) d *= -mean / sum;
        for (std::size_t i = 0; i < used; ++i) to[static_cast<std::size_t>(experts[i])] += w[i] * g[i];
      } else {
        for (std::size_t i = 0; i < used; ++i) to[static_cast<std::size_t>(experts[i])] = w[i] * (g[i] - mean);
      }
    }
  });
}

/// What an expert gets: dout_i = w_i dy_rows[i].
inline void expert_outputs(ConstMatrix dy, nn::ExpertTokens list, MutableMatrix dout, ExecutorRef executor) {
  nn::gather_rows(dy, list.rows, dout, executor);
  for (Index i = 0; i < dout.rows; ++i)
    for (float& d : dout.row(i)) d *= list.weights[static_cast<std::size_t>(i)];
}

/// g_i = dy . E(x) of each row, from what the gradient w_i dy W_down of down's input and that input have in common: no output is
/// made a second time. 0 where the weight is 0: such an expert has no part in dz either.
inline float weight_gradient(std::span<const float> hidden, std::span<const float> dhidden, float weight) {
  float sum = 0;
  for (std::size_t j = 0; j < hidden.size(); ++j) sum += hidden[j] * dhidden[j];
  return weight > 0 ? sum / weight : 0.0f;
}

/// dx_rows[i] += dx_i.
inline void add_to_rows(ConstMatrix from, std::span<const Index> rows, MutableMatrix dx) {
  for (Index i = 0; i < from.rows; ++i) {
    const std::span<const float> d = from.row(i);
    const std::span<float> to = dx.row(rows[static_cast<std::size_t>(i)]);
    for (std::size_t j = 0; j < to.size(); ++j) to[j] += d[j];
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::backward

#include <anybit/core/macros_end.hpp>
