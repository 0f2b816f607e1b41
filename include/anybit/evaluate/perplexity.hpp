#pragma once
// Perplexity by the two protocols of published numbers. They score different predictions, so their numbers must not be
// compared with each other; each is named where it is printed. Readable twin: reference/perplexity.hpp.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/view.hpp>
#include <anybit/evaluate/softmax.hpp>
#include <anybit/evaluate/statistics.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

/// A text cut into disjoint windows of equal length, each evaluated from an empty context. The prediction made at position p
/// of a window is of the token at p + 1; positions first_scored .. length - 2 count.
struct Windows {
  Index length = 0;
  Index first_scored = 0;
  std::vector<std::int32_t> tokens;  ///< count() x length

  Index count() const { return length == 0 ? 0 : static_cast<Index>(tokens.size()) / length; }
  std::span<const std::int32_t> window(Index i) const { return {tokens.data() + i * length, static_cast<std::size_t>(length)}; }
  Index scored_per_window() const { return length - 1 - first_scored; }
  Index scored() const { return count() * scored_per_window(); }
  /// The tokens that the scored positions of window i should predict.
  std::span<const std::int32_t> targets(Index i) const { return window(i).subspan(static_cast<std::size_t>(first_scored + 1)); }
};

struct Perplexity {
  double value = 0, plus_minus = 0;
  double mean_nll = 0;  ///< natural log
  Index scored = 0;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

namespace detail {
inline Result<Windows> cut(std::span<const std::int32_t> tokens, Index length, Index first_scored, Index windows_needed,
                           const char* protocol) {
  if (length < 3)
    return Error{ErrorCode::invalid_argument, std::string(protocol) + " perplexity: windows of " + std::to_string(length) +
                                                  " tokens score nothing; use at least 3"};
  const Index count = static_cast<Index>(tokens.size()) / length;
  if (count < windows_needed)
    return Error{ErrorCode::insufficient_data,
                 std::string(protocol) + " perplexity: the text has " + std::to_string(tokens.size()) + " tokens, windows of " +
                     std::to_string(length) + " need at least " + std::to_string(windows_needed * length) +
                     "; give a longer text or shorter windows"};
  return Windows{length, first_scored, {tokens.begin(), tokens.begin() + count * length}};
}
}  // namespace detail

/// GPTQ paper code: floor(T / length) windows, the rest dropped, all length - 1 predictions of a window scored. A BOS token
/// is whatever the tokenizer put at the start of the text, once. Published numbers use 2048 (some 4096).
inline Result<Windows> gptq_windows(std::span<const std::int32_t> tokens, Index length = 2048) {
  return detail::cut(tokens, length, 0, 1, "GPTQ");
}

/// llama.cpp's perplexity tool: floor(T / length) windows (two at least), only the second half of each scored: positions
/// length / 2 .. length - 2. `bos`, if the vocabulary adds one, replaces the first token of every window.
inline Result<Windows> llama_cpp_windows(std::span<const std::int32_t> tokens, Index length = 512,
                                         std::optional<std::int32_t> bos = {}) {
  ANYBIT_TRY(Windows w, detail::cut(tokens, length, length / 2, 2, "llama.cpp"));
  for (Index i = 0; bos && i < w.count(); ++i) w.tokens[static_cast<std::size_t>(i * length)] = *bos;
  return w;
}

/// -log p(target) from the logits of one position.
inline double negative_log_likelihood(std::span<const float> logits, std::int32_t target) {
  return log_normalizer(logits).log_sum_exp - double{logits[static_cast<std::size_t>(target)]};
}

/// exp(mean nll) over scored predictions. Windows have equal length, so the GPTQ code's mean of window means is the same
/// number; infinite as soon as one prediction gave its target no probability. The uncertainty is llama.cpp's: perplexity *
/// sqrt((E[nll^2] - E[nll]^2) / (n - 1)).
inline Perplexity perplexity(std::span<const double> nll) {
  const Estimate e = estimate(nll);
  const double value = std::exp(e.value);
  return {value, is_finite(value) ? value * e.plus_minus : value, e.value, static_cast<Index>(nll.size())};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
