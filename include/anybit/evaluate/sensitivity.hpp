#pragma once
// The sensitivity of each linear: the KL divergence of the model when that linear alone is quantized.

#include <cstddef>
#include <string>
#include <vector>

#include <anybit/evaluate/model.hpp>
#include <anybit/quantize/sites.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

namespace detail {

/// The residual stream before each block, and behind the last, for one window from an empty context.
inline std::vector<Matrix> residuals(const model::Decoder& d, std::span<const std::int32_t> ids, const model::RopeTable& rope,
                                     model::KvCache& cache, model::BlockScratch& scratch, ExecutorRef executor) {
  Matrix x(static_cast<Index>(ids.size()), d.config.dim);
  model::embed(d, ids, x.view(), executor);
  std::vector<Matrix> all{Matrix(x.view())};
  for (Index i = 0; i < d.config.blocks; ++i) {
    model::run_block(d.blocks[static_cast<std::size_t>(i)], d, rope, i, cache, x.view(), scratch, executor,
                     [](model::Site, ConstMatrix) { return true; });
    all.emplace_back(x.view());
  }
  return all;
}

/// What the head multiplies.
inline Matrix behind_the_norm(const model::Decoder& d, Matrix x, ExecutorRef executor) {
  if (d.online.residual) d.online.residual->inverse(x.view(), executor);
  Matrix normed(x.rows(), x.cols());
  model::rms_norm(x.view(), d.output_norm, d.config.norm_epsilon, normed.view(), executor);
  return normed;
}

}  // namespace detail

/// The mean KL divergence (nats) of `source` with one linear of `quantized` in its place, from `source` as it is: one figure a
/// linear of the blocks, in the order of ModelPlan::linears. `quantized` must be made of `source` by recipes without
/// transforms. Blocks before the changed one are run once a window.
inline Result<std::vector<double>> sensitivities(const model::Decoder& source, const model::Decoder& quantized,
                                                 const Windows& windows, ExecutorRef executor, const OnProgress& progress = {}) {
  const model::DecoderConfig& c = source.config;
  if (windows.scored() <= 0)
    return Error{ErrorCode::insufficient_data, "sensitivities: no prediction is scored; give at least one window of text"};
  model::Decoder other = quantized;
  const std::vector<model::SiblingGroup> groups = model::sibling_groups(other);
  Index linears = 0;
  for (const model::SiblingGroup& g : groups) linears += static_cast<Index>(g.linears.size());
  std::vector<double> kl(static_cast<std::size_t>(linears), 0.0);

  const model::RopeTable rope(c, 0, windows.length);
  model::KvCache cache(c, windows.length);  // never advanced: every pass starts from an empty context
  model::BlockScratch scratch(c, windows.length);
  Matrix x(windows.length, c.dim);
  const auto everything = [](model::Site, ConstMatrix) { return true; };
  for (Index w = 0; w < windows.count(); ++w) {
    const auto ids = windows.window(w);
    ANYBIT_TRY_STATUS(model::detail::check_ids(source, ids));
    const Windows one{windows.length, windows.first_scored, {ids.begin(), ids.end()}};
    const auto targets = one.targets(0);
    const std::vector<Matrix> before = detail::residuals(source, ids, rope, cache, scratch, executor);
    ReferenceLogits reference(one.scored(), c.vocabulary);
    const Matrix exact = detail::behind_the_norm(source, Matrix(before.back().view()), executor);
    detail::for_scored_positions(source, one, 0, exact.view(), executor, [&](Index position, std::span<const float> logits) {
      reference.set(position, logits, targets[static_cast<std::size_t>(position)]);
    });

    std::vector<double> at(static_cast<std::size_t>(one.scored()));
    std::size_t linear = 0;
    for (const model::SiblingGroup& group : groups)
      for (std::size_t s = 0; s < group.linears.size(); ++s, ++linear) {
        model::Decoder changed = source;
        *model::sibling_groups(
             changed)[static_cast<std::size_t>(group.block) * model::site_count + static_cast<std::size_t>(group.site)]
             .linears[s]
             .linear = *group.linears[s].linear;
        x = Matrix(before[static_cast<std::size_t>(group.block)].view());
        for (Index i = group.block; i < c.blocks; ++i)
          model::run_block(changed.blocks[static_cast<std::size_t>(i)], source, rope, i, cache, x.view(), scratch, executor,
                           everything);
        const Matrix hidden = detail::behind_the_norm(source, Matrix(x.view()), executor);
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
