#pragma once
// The sensitivity of each linear: the KL divergence of the model when that linear alone is quantized.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <anybit/evaluate/model.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// Text to measure sensitivities on: two short windows of a calibration text, spread over it, nearly all of whose predictions
/// count. `context` is the longest window that the model takes; `ids` are not empty.
inline Windows sensitivity_text(std::span<const model::TokenId> ids, Index context) {
  constexpr Index most_windows = 2, longest = 256, unscored = 8;
  const auto tokens = static_cast<Index>(ids.size());
  ANYBIT_CHECK(tokens > 0 && context > 0, "sensitivity_text: no tokens");
  Windows w;
  w.length = std::min({longest, context, tokens});
  w.first_scored = std::min(unscored, w.length / 4);
  const Index count = std::min(most_windows, tokens / w.length);
  for (Index i = 0; i < count; ++i) {
    const auto some = ids.subspan(static_cast<std::size_t>(i * (tokens / count)), static_cast<std::size_t>(w.length));
    w.tokens.insert(w.tokens.end(), some.begin(), some.end());
  }
  return w;
}

/// The mean KL divergence (nats) of `source` with one linear of `quantized` in its place, from `source` as it is: one figure a
/// linear of the blocks, in the order of Blueprint::linears. `quantized` must be made of `source` by recipes without
/// transforms. Blocks before the changed one are run once a window.
inline Result<std::vector<double>> sensitivities(const model::Decoder& source, const model::Decoder& quantized,
                                                 const Windows& windows, ExecutorRef executor, const OnProgress& progress = {}) {
  ANYBIT_TRY_STATUS(model::check_is_decoder(source, "sensitivities"));
  const model::DecoderConfig& c = source.config;
  if (windows.scored() <= 0)
    return Error{ErrorCode::insufficient_data, "sensitivities: no prediction is scored; give at least one window of text"};
  const model::Blueprint& blueprint = *source.blueprint;
  const auto linears = static_cast<Index>(blueprint.linears.size());
  std::vector<double> kl(blueprint.linears.size(), 0.0);

  model::Pass pass(source, windows.length);
  nn::KvCache cache(model::cache_shape(c), windows.length);  // never advanced: every pass starts from an empty context
  const model::Run run{executor};
  const auto move_on = [&](std::span<const model::Weight> weights, Index block, Matrix& x) {
    pass.block(weights, block, block, cache, x.view(), run);
  };
  const auto behind_the_norm = [&](Matrix x) {
    Matrix normed(x.rows(), c.embedding_width());
    pass.finish(x.view(), normed.view(), run);
    return normed;
  };
  for (Index w = 0; w < windows.count(); ++w) {
    const auto ids = windows.window(w);
    ANYBIT_TRY_STATUS(model::detail::check_ids(source, ids));
    const Windows one{windows.length, windows.first_scored, {ids.begin(), ids.end()}};
    const auto targets = one.targets(0);
    std::vector<Matrix> before;  // the residual stream before each block, and behind the last
    Matrix x(windows.length, c.dim);
    pass.embed(ids, x.view(), run);
    for (Index i = 0; i < c.blocks; ++i) {
      before.emplace_back(x.view());
      move_on(source.block(i), i, x);
    }
    ReferenceLogits reference(one.scored(), c.vocabulary);
    const Matrix exact = behind_the_norm(std::move(x));
    detail::for_scored_positions(source, one, 0, exact.view(), executor, [&](Index position, std::span<const float> logits) {
      reference.set(position, logits, targets[static_cast<std::size_t>(position)]);
    });

    std::vector<double> at(static_cast<std::size_t>(one.scored()));
    for (std::size_t linear = 0; linear < kl.size(); ++linear) {
      const model::WeightId id = blueprint.linears[linear];
      const Index block = blueprint[id].block;
      model::BlockWeights changed = source.copy_block(block);
      changed[model::place(id) - blueprint.blocks[static_cast<std::size_t>(block)]] = quantized[id];
      x = Matrix(before[static_cast<std::size_t>(block)].view());
      move_on(changed, block, x);
      for (Index i = block + 1; i < c.blocks; ++i) move_on(source.block(i), i, x);
      const Matrix hidden = behind_the_norm(Matrix(x.view()));
      detail::for_scored_positions(source, one, 0, hidden.view(), executor, [&](Index position, std::span<const float> logits) {
        at[static_cast<std::size_t>(position)] = reference.compare(position, logits).kl;
      });
      for (const double value : at) kl[linear] += value / static_cast<double>(windows.scored());
      if (progress) progress(w * linears + static_cast<Index>(linear) + 1, windows.count() * linears);
    }
  }
  return kl;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
