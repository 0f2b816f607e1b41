#pragma once
// Whether a text was enough to calibrate with.

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include <anybit/calibrate/effective_rank.hpp>
#include <anybit/model/model_stats.hpp>

namespace anybit::model::inline ANYBIT_CODE {

/// What calibration saw of one site.
struct SiteCheck {
  Index block = 0;
  Site site = Site::attn_qkv;
  Index tokens = 0, inputs = 0;
  Index silent = 0;  ///< inputs that were 0 on every token
  double rank = -1;  ///< effective_rank(); below 0: there was no Hessian to find it from
};

inline SiteCheck check_site(Index block, Site site, const Stats& stats) {
  SiteCheck c{block, site, stats.tokens(), stats.inputs()};
  if (stats.has(Needs::abs_max))
    for (const float most : stats.abs_max()) c.silent += most == 0 ? 1 : 0;
  if (stats.has(Needs::hessian) && c.inputs > 0) {
    std::vector<double> h(static_cast<std::size_t>(c.inputs * c.inputs));
    stats.hessian(MatrixView<double>(h.data(), c.inputs, c.inputs));
    c.rank = calibrate::effective_rank({h.data(), c.inputs, c.inputs});
  }
  return c;
}

/// One line for each thing that is wrong, none if nothing is.
inline std::vector<std::string> warnings(std::span<const SiteCheck> checks) {
  std::vector<std::string> out;
  const auto name = [](const SiteCheck& c) { return io::detail::text("block ", c.block, ", ", ModelStats::site_name(c.site)); };
  const SiteCheck *widest = nullptr, *narrow = nullptr, *silent = nullptr;
  std::size_t narrow_sites = 0, silent_sites = 0;
  for (const SiteCheck& c : checks) {
    if (c.tokens < 2 * c.inputs && (!widest || c.inputs > widest->inputs)) widest = &c;
    // Tokens that repeat each other: fewer directions than a tenth of what as many independent ones would give.
    const double n = static_cast<double>(c.inputs), t = static_cast<double>(c.tokens);
    if (c.rank >= 0 && c.tokens > 0 && c.rank < 0.01 * n / (1 + (n - 1) / t)) {
      ++narrow_sites;
      if (!narrow || c.rank / n < narrow->rank / static_cast<double>(narrow->inputs)) narrow = &c;
    }
    if (c.silent > 0) {
      ++silent_sites;
      if (!silent || c.silent > silent->silent) silent = &c;
    }
  }
  if (widest)
    out.push_back(io::detail::text("Only ", widest->tokens, " calibration tokens for ", widest->inputs, " inputs (",
                                   name(*widest), "): methods that learn from them are safe from about ", 2 * widest->inputs,
                                   " tokens on."));
  if (narrow)
    out.push_back(io::detail::text("The calibration text shows little of what can happen: ", narrow_sites,
                                   " inputs vary in less than a hundredth of their directions, for example ", name(*narrow),
                                   " in ", static_cast<Index>(narrow->rank + 0.5), " of ", narrow->inputs,
                                   ": take more varied text."));
  if (silent)
    out.push_back(io::detail::text(silent_sites, " sites have inputs that were 0 on every token, most ", name(*silent), ": ",
                                   silent->silent, " of ", silent->inputs, "."));
  return out;
}

}  // namespace anybit::model::inline ANYBIT_CODE
