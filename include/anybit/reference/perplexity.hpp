#pragma once
// Perplexity of a text under a model.
//
//   nll(logits, token) = log sum_j e^(l_j) - l_token,      perplexity = exp(mean nll over the predictions that count)
//
// The text is cut into disjoint windows of L tokens, the rest is dropped, each window starts from an empty context. The
// prediction made at place p of a window is of its token p + 1. Two protocols, whose numbers must not be compared:
//   GPTQ        places 0 .. L - 2 count                  (arXiv:2210.17323's code; L = 2048 in papers)
//   llama.cpp   places L/2 .. L - 2 count; the first token of each window is replaced by BOS if the model has one
// The mean over windows of (mean nll of a window) is the same number, as all windows count equally many.

#include <algorithm>
#include <cmath>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline double log_sum_exp(const Vector& logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double l : logits) sum += std::exp(l - most);
  return most + std::log(sum);
}

inline double negative_log_likelihood(const Vector& logits, Index token) { return log_sum_exp(logits) - logits[token]; }

enum class Protocol { gptq, llama_cpp };

/// forward(window) gives a window's logits, one row per place. `bos` < 0: none.
template <class Forward>
double perplexity(const Row<Index>& text, Index window, Protocol protocol, Forward forward, Index bos = -1) {
  const Index first_scored = protocol == Protocol::gptq ? 0 : window / 2;
  double sum = 0, count = 0;
  for (Index start = 0; start + window <= text.size(); start += window) {
    Row<Index> ids(window);
    for (Index p = 0; p < window; ++p) ids[p] = text[start + p];
    if (protocol == Protocol::llama_cpp && bos >= 0) ids[0] = bos;
    const Matrix logits = forward(ids);
    for (Index p = first_scored; p + 1 < window; ++p) sum += negative_log_likelihood(logits.row(p), ids[p + 1]), ++count;
  }
  return std::exp(sum / count);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
