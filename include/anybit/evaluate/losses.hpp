#pragma once
// The loss of a model at every scored position of a text. Logits exist for 64 positions at a time: all of them would take
// 4 * vocabulary bytes per position.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include <anybit/evaluate/perplexity.hpp>
#include <anybit/model/run.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// Told the part of the work that is done.
using OnProgress = std::function<void(Index done, Index total)>;

namespace detail {

/// Positions whose logits exist at once.
inline constexpr Index logit_rows = 64;

/// Logits of at most logit_rows hidden states; each(row, logits) for every one of them, in parallel.
template <class Each>
void for_logits(const model::Decoder& d, ConstMatrix hidden, Matrix& logits, ExecutorRef executor, Workspace& workspace,
                Each each) {
  model::apply_head(d, hidden, logits.view().row_range(0, hidden.rows), executor, workspace);
  executor.parallel_for(hidden.rows, 1, [&](Index from, Index to) {
    for (Index k = from; k < to; ++k) each(k, std::span<const float>(logits.view().row(k)));
  });
}

/// Calls each(position, logits) for every scored position of window i, in parallel; `hidden` is of the whole window. after(begin,
/// end) follows each stretch of positions, on the calling thread.
template <class Each, class After>
void for_scored_positions(const model::Decoder& d, const Windows& windows, Index i, ConstMatrix hidden, ExecutorRef executor,
                          Each each, After after) {
  const Index count = windows.scored_per_window();
  Matrix logits(std::min(logit_rows, count), d.config.vocabulary);
  Workspace workspace;
  for (Index begin = 0; begin < count; begin += logit_rows) {
    const Index end = std::min(begin + logit_rows, count);
    for_logits(d, hidden.row_range(windows.first_scored + begin, windows.first_scored + end), logits, executor, workspace,
               [&](Index k, std::span<const float> row) { each(i * count + begin + k, row); });
    after(i * count + begin, i * count + end);
  }
}
template <class Each>
void for_scored_positions(const model::Decoder& d, const Windows& windows, Index i, ConstMatrix hidden, ExecutorRef executor,
                          Each each) {
  for_scored_positions(d, windows, i, hidden, executor, each, [](Index, Index) {});
}

}  // namespace detail

/// -log p of the token that follows in the text, at every scored position, in either protocol (gptq_windows(),
/// llama_cpp_windows()); perplexity() makes one figure of them.
inline Result<std::vector<double>> losses(const model::Decoder& d, const Windows& windows, ExecutorRef executor = {},
                                          const OnProgress& progress = {}, const nn::KvCacheConfig& kv = {}) {
  ANYBIT_TRY_STATUS(model::check_is_decoder(d, "losses"));
  ANYBIT_TRY_STATUS(check(kv, model::cache_shape(d.config)));
  std::vector<double> nll(static_cast<std::size_t>(windows.scored()));
  nn::KvCache cache(model::cache_shape(d.config), windows.length, kv);
  for (Index i = 0; i < windows.count(); ++i) {
    cache.clear();
    ANYBIT_TRY(const Matrix hidden, model::hidden_states(d, windows.window(i), cache, {executor}));
    const auto targets = windows.targets(i);
    const Index per_window = windows.scored_per_window();
    detail::for_scored_positions(d, windows, i, hidden.view(), executor, [&](Index position, std::span<const float> logits) {
      nll[static_cast<std::size_t>(position)] =
          negative_log_likelihood(logits, targets[static_cast<std::size_t>(position % per_window)]);
    });
    if (progress) progress(i + 1, windows.count());
  }
  return nll;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
