#pragma once
// The cost of a quantized KV cache over a conversation, turn by turn: one model runs with several caches, its predictions are
// compared token by token, and the comparisons are sorted by turn.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <anybit/evaluate/kl.hpp>
#include <anybit/evaluate/losses.hpp>
#include <anybit/model/run.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// One text with each of `caches`, against the same model with the cache `reference`. For each cache, the comparisons of the
/// predictions of ids[1], ids[2], ..; none of a text of fewer than two tokens. Hidden states exist for every cache at once,
/// logits of 64 positions at a time.
inline Result<std::vector<std::vector<TokenComparison>>> compare_caches(const model::Decoder& d,
                                                                        std::span<const std::int32_t> ids,
                                                                        const nn::KvCacheConfig& reference,
                                                                        std::span<const nn::KvCacheConfig> caches,
                                                                        ExecutorRef executor = {}) {
  ANYBIT_TRY_STATUS(model::check_is_decoder(d, "comparison of caches"));
  const nn::KvShape shape = model::cache_shape(d.config);
  const auto hidden_with = [&](const nn::KvCacheConfig& kv) -> Result<Matrix> {
    ANYBIT_TRY_STATUS(check(kv, shape));
    nn::KvCache cache(shape, static_cast<Index>(ids.size()), kv);
    return model::hidden_states(d, ids, cache, {executor});
  };
  std::vector<std::vector<TokenComparison>> out(caches.size());
  const Index count = static_cast<Index>(ids.size()) - 1;
  if (count < 1) return out;
  ANYBIT_TRY(const Matrix exact, hidden_with(reference));
  std::vector<Matrix> hidden;
  for (const nn::KvCacheConfig& kv : caches) {
    ANYBIT_TRY(Matrix with, hidden_with(kv));
    hidden.push_back(std::move(with));
  }
  for (auto& of_cache : out) of_cache.resize(static_cast<std::size_t>(count));

  const Index rows = std::min(detail::logit_rows, count);
  Matrix logits(rows, d.config.vocabulary);
  ReferenceLogits remembered(rows, d.config.vocabulary);
  Workspace workspace;
  for (Index begin = 0; begin < count; begin += rows) {
    const Index end = std::min(begin + rows, count);
    const auto for_each_row = [&](const Matrix& states, auto each) {
      detail::for_logits(d, states.view().row_range(begin, end), logits, executor, workspace, each);
    };
    for_each_row(exact, [&](Index k, std::span<const float> row) {
      remembered.set(k, row, ids[static_cast<std::size_t>(begin + k + 1)]);
    });
    for (std::size_t c = 0; c < hidden.size(); ++c)
      for_each_row(hidden[c], [&](Index k, std::span<const float> row) {
        out[c][static_cast<std::size_t>(begin + k)] = remembered.compare(k, row);
      });
  }
  return out;
}

/// Adds comparisons of the predictions of tokens 1, 2, .. to those of their turns; `turns[i]` is the turn of token i, from 0 on
/// (ChatTokens::turns). kl_statistics() makes figures of each.
inline void add_by_turn(std::span<const TokenComparison> predictions, std::span<const Index> turns,
                        std::vector<std::vector<TokenComparison>>& by_turn) {
  ANYBIT_CHECK(predictions.empty() || predictions.size() + 1 == turns.size(), "add_by_turn: one turn for each token of the text");
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    const auto turn = static_cast<std::size_t>(turns[i + 1]);
    if (turn >= by_turn.size()) by_turn.resize(turn + 1);
    by_turn[turn].push_back(predictions[i]);
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
