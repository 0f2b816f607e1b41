#pragma once
// Kullback-Leibler divergence of a model's next-token distribution q from the float model's p, in nats per token:
//
//   KL(p || q) = sum_i p_i (log p_i - log q_i),     log p_i = l_i - log sum_j e^(l_j)
//
// Tokens with log p_i <= -16 do not count, as in llama.cpp's --kl-divergence.

#include <anybit/reference/perplexity.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline double kl_divergence(const Vector& float_logits, const Vector& logits, double least_log_p = -16) {
  const double zp = log_sum_exp(float_logits), zq = log_sum_exp(logits);
  double kl = 0;
  for (Index i = 0; i < logits.size(); ++i) {
    const double log_p = float_logits[i] - zp, log_q = logits[i] - zq;
    if (log_p > least_log_p) kl += std::exp(log_p) * (log_p - log_q);
  }
  return kl;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
