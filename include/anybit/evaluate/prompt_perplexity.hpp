#pragma once
// Perplexity over prompts of unequal length by two protocols: the arithmetic mean of the prompts' perplexities, as the WASQ
// evaluation of the superfloat repository (2025) publishes it, and the exponential of the mean loss per token.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <span>
#include <vector>

#include <anybit/evaluate/losses.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

struct PromptPerplexity {
  double mean_of_prompts = 0;  ///< sum_p exp(mean loss of p) / prompts: published; the worst prompts decide it
  double per_token = 0;        ///< exp(sum of all losses / predictions): the perplexity of the text
  double mean_nll = 0;         ///< log of per_token
  Index prompts = 0, predictions = 0;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// Of the losses of every prediction, prompt by prompt. Prompts without a prediction do not count.
inline PromptPerplexity prompt_perplexity(std::span<const std::vector<double>> nll) {
  PromptPerplexity out;
  double sum = 0;
  for (const std::vector<double>& prompt : nll) {
    if (prompt.empty()) continue;
    const double loss = mean(prompt);
    out.mean_of_prompts += std::exp(loss);
    sum += loss * static_cast<double>(prompt.size());
    ++out.prompts, out.predictions += static_cast<Index>(prompt.size());
  }
  if (out.prompts == 0) return out;
  out.mean_of_prompts /= static_cast<double>(out.prompts);
  out.mean_nll = sum / static_cast<double>(out.predictions);
  out.per_token = std::exp(out.mean_nll);
  return out;
}

/// -log p of every token of a prompt but the first; of fewer than two tokens none. A prompt fits the model's context.
inline Result<std::vector<double>> prompt_losses(const model::Decoder& d, std::span<const model::TokenId> ids,
                                                 ExecutorRef executor = {}) {
  if (ids.size() < 2) return std::vector<double>();
  return losses(d, Windows{static_cast<Index>(ids.size()), 0, {ids.begin(), ids.end()}}, executor);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
