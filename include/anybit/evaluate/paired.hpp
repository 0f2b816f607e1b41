#pragma once
// The loss of an encoder-decoder on pairs of source and text.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include <anybit/evaluate/losses.hpp>
#include <anybit/model/run.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// A source and the text that the decoder should make of it, its start token first: each token but the first is predicted from
/// those before it.
struct PairedText {
  model::Source source;
  std::span<const model::TokenId> ids{};
};

/// -log p of every token but the first of each text, given its source, one pair behind the other; perplexity() makes one figure
/// of them.
inline Result<std::vector<double>> losses(const model::Decoder& d, std::span<const PairedText> pairs, ExecutorRef executor = {}) {
  if (d.config.encoder.empty())
    return Error{ErrorCode::unsupported, "losses of pairs: the model has no encoder in front of a decoder: give texts alone"};
  std::vector<double> all;
  Workspace workspace;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto in_pair = [&](const Error& e) { return in_context(e, "pair " + std::to_string(i)); };
    const std::span<const model::TokenId> ids = pairs[i].ids;
    const auto scored = static_cast<Index>(ids.size()) - 1;
    if (scored < 1) return in_pair({ErrorCode::insufficient_data, "its text has no token behind the start token: leave it out"});
    auto encoded = model::encode(d, pairs[i].source, {executor});
    if (!encoded) return in_pair(encoded.error());
    nn::KvCache cache(model::cache_shape(d.config), scored);
    const auto hidden =
        model::hidden_states(d, ids.first(static_cast<std::size_t>(scored)), cache, {.executor = executor, .encoded = &*encoded});
    if (!hidden) return in_pair(hidden.error());
    ANYBIT_TRY_STATUS(model::detail::check_ids(d, ids.last(1)));
    const std::size_t first = all.size();
    all.resize(first + static_cast<std::size_t>(scored));
    Matrix logits(std::min(detail::logit_rows, scored), d.config.vocabulary);
    for (Index begin = 0; begin < scored; begin += detail::logit_rows) {
      const Index end = std::min(begin + detail::logit_rows, scored);
      detail::for_logits(d, hidden->view().row_range(begin, end), logits, executor, workspace,
                         [&](Index t, std::span<const float> row) {
                           all[first + static_cast<std::size_t>(begin + t)] =
                               negative_log_likelihood(row, ids[static_cast<std::size_t>(begin + t + 1)]);
                         });
    }
  }
  return all;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
