#pragma once
// Routing agreement: how often two models send a token to the same experts. Cheaper than a divergence of logits, and it names the
// block where a quantized mixture goes astray.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <anybit/evaluate/perplexity.hpp>
#include <anybit/model/run.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

/// Counts of choices: one for each token in each block with experts.
struct RoutingAgreement {
  Index choices = 0;
  Index same = 0;         ///< with the same set of experts in both models
  Index experts = 0;      ///< chosen in all
  Index shared = 0;       ///< of them, by both models
  double first_same = 0;  ///< share of choices whose first expert, that of the largest logit, is the same

  double share() const { return choices > 0 ? static_cast<double>(same) / static_cast<double>(choices) : 1; }
  double overlap() const { return experts > 0 ? static_cast<double>(shared) / static_cast<double>(experts) : 1; }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

namespace detail {

/// The experts of every token, for each block that has some, while a window runs from an empty context.
inline Result<std::vector<nn::Routing>> routings(const model::Decoder& d, std::span<const std::int32_t> ids, nn::KvCache& cache,
                                                 ExecutorRef executor) {
  std::vector<nn::Routing> out(static_cast<std::size_t>(d.config.blocks));
  const model::ExpertForm& form = d.config.form.experts;
  std::vector<model::Tap> taps;
  for (Index i = 0; i < d.config.blocks; ++i)
    if (form.in(i))
      taps.push_back(
          {i, model::Point::router, [&form, &to = out[static_cast<std::size_t>(i)]](MutableMatrix z, model::TokenRange) {
             to.choose(z, form.used, form.weights);
           }});
  cache.clear();
  ANYBIT_TRY(const Matrix hidden, model::hidden_states(d, ids, cache, {executor, taps}));
  return out;
}

}  // namespace detail

/// Of `quantized` with `source`, over all tokens of the windows; one for each block, of zeros where it is dense. Both models have
/// the same experts; an error where they have none.
inline Result<std::vector<RoutingAgreement>> routing_agreement(const model::Decoder& source, const model::Decoder& quantized,
                                                               const Windows& windows, ExecutorRef executor = {}) {
  const model::ExpertForm& form = source.config.form.experts;
  ANYBIT_CHECK(form == quantized.config.form.experts && source.config.blocks == quantized.config.blocks,
               "routing_agreement: of two models with the same experts");
  if (form.count == 0) return Error{ErrorCode::invalid_argument, "routing agreement: the model has no experts: leave it out"};
  std::vector<RoutingAgreement> out(static_cast<std::size_t>(source.config.blocks));
  nn::KvCache cache(model::cache_shape(source.config), windows.length);
  for (Index w = 0; w < windows.count(); ++w) {
    ANYBIT_TRY(const std::vector<nn::Routing> want, detail::routings(source, windows.window(w), cache, executor));
    ANYBIT_TRY(const std::vector<nn::Routing> got, detail::routings(quantized, windows.window(w), cache, executor));
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (!form.in(static_cast<Index>(i))) continue;
      for (Index t = 0; t < windows.length; ++t) {
        const std::span<const Index> a = want[i].experts(t), b = got[i].experts(t);
        const auto both = std::count_if(a.begin(), a.end(), [&](Index e) { return std::find(b.begin(), b.end(), e) != b.end(); });
        ++out[i].choices, out[i].experts += form.used, out[i].shared += static_cast<Index>(both);
        out[i].same += both == form.used ? 1 : 0;
        out[i].first_same += a[0] == b[0] ? 1 : 0;
      }
    }
  }
  for (RoutingAgreement& a : out)
    if (a.choices > 0) a.first_same /= static_cast<double>(a.choices);
  return out;
}

/// Of all blocks together.
inline RoutingAgreement total(std::span<const RoutingAgreement> blocks) {
  RoutingAgreement all;
  for (const RoutingAgreement& a : blocks) {
    all.choices += a.choices, all.same += a.same, all.experts += a.experts, all.shared += a.shared;
    all.first_same += a.first_same * static_cast<double>(a.choices);
  }
  if (all.choices > 0) all.first_same /= static_cast<double>(all.choices);
  return all;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
