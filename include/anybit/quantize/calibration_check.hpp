#pragma once
// Checks whether a text suffices for calibration.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include <anybit/calibrate/effective_rank.hpp>
#include <anybit/quantize/model_stats.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// How well calibration covers one site.
struct SiteCheck {
  SiteId site{};
  std::string name;  ///< "block 0, attn_q"
  Index tokens = 0, inputs = 0;
  Index silent = 0;     ///< inputs that were 0 on every token
  double rank = -1;     ///< effective_rank(); below 0: there was no Hessian to find it from
  bool routed = false;  ///< of one expert, which sees the tokens that are sent to it
};

inline SiteCheck check_site(const Blueprint& b, SiteId site, const Stats& stats) {
  SiteCheck c{site, io::detail::text("block ", b[site].block, ", ", b[site].name), stats.tokens(), stats.inputs()};
  c.routed = b[site].routed;
  if (stats.has(Needs::abs_max))
    for (const float most : stats.abs_max()) c.silent += most == 0 ? 1 : 0;
  if (stats.has(Needs::hessian) && c.inputs > 0) {
    std::vector<double> h(static_cast<std::size_t>(c.inputs * c.inputs));
    stats.hessian(MatrixView<double>(h.data(), c.inputs, c.inputs));
    c.rank = calibrate::effective_rank({h.data(), c.inputs, c.inputs});
  }
  return c;
}

/// Of every site; `stats` are of a whole model with this blueprint.
inline std::vector<SiteCheck> check_sites(const Blueprint& b, const ModelStats& stats) {
  std::vector<SiteCheck> out;
  for (std::size_t i = 0; i < b.sites.size(); ++i)
    out.push_back(check_site(b, static_cast<SiteId>(i), stats.at(static_cast<SiteId>(i), stats.needs())));
  return out;
}

/// One line for each thing that is wrong, none if nothing is.
inline std::vector<std::string> warnings(std::span<const SiteCheck> checks) {
  std::vector<std::string> out;
  const SiteCheck *widest = nullptr, *narrow = nullptr, *silent = nullptr;
  std::size_t narrow_sites = 0, silent_sites = 0;
  Index all_tokens = 0;
  for (const SiteCheck& c : checks) all_tokens = std::max(all_tokens, c.tokens);
  const SiteCheck* rarest = nullptr;
  std::size_t experts = 0, rare = 0;
  for (const SiteCheck& c : checks) {
    if (c.routed) {
      ++experts;
      if (c.tokens < c.inputs) ++rare;
      if (!rarest || c.tokens < rarest->tokens) rarest = &c;
      continue;
    }
    if (c.tokens < 2 * c.inputs && (!widest || c.inputs > widest->inputs)) widest = &c;
    // Natural text shows from one to tens of per cent of the directions; one direction means that all tokens are alike.
    if (c.rank >= 0 && c.rank < 2 && c.tokens >= 64 && c.inputs >= 16) {
      ++narrow_sites;
      if (!narrow || c.rank < narrow->rank) narrow = &c;
    }
    if (c.silent > 0) {
      ++silent_sites;
      if (!silent || c.silent > silent->silent) silent = &c;
    }
  }
  if (widest)
    out.push_back(io::detail::text("Only ", widest->tokens, " calibration tokens for ", widest->inputs, " inputs (", widest->name,
                                   "): methods that learn from them are safe from about ", 2 * widest->inputs, " tokens on."));
  if (rare > 0)
    out.push_back(io::detail::text(rare, " of ", experts,
                                   " inputs of experts saw fewer calibration tokens than they are wide, the least ", rarest->name,
                                   ": ", rarest->tokens, " of ", all_tokens, ": take more text."));
  if (narrow)
    out.push_back(io::detail::text("The calibration tokens are nearly all alike in ", narrow_sites, " sites, for example ",
                                   narrow->name, ", whose ", narrow->inputs,
                                   " inputs vary in less than 2 directions: take more varied text."));
  if (silent)
    out.push_back(io::detail::text(silent_sites, " sites have inputs that were 0 on every token, most ", silent->name, ": ",
                                   silent->silent, " of ", silent->inputs, "."));
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
