#pragma once
// Scale absorption: weights of one input channel are divided by a scale g so that they fill the range of a grid that has no
// scales, and what makes that channel is multiplied by it: the gain of a norm, or a row of the linear in front (v for o, up for
// down).
//
//   W x = (W / g) (g x)
//
// g belongs to all linears that read the same input, and where several query heads read one head of values, to all their
// channels.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/model/run.hpp>
#include <anybit/quantize/sites.hpp>
#include <anybit/train/wasq/datapath.hpp>
#include <anybit/train/wasq/straight_through.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

/// Published names in quotation marks.
enum class Absorption : std::uint8_t {
  none,   ///< "plain": every weight as it is
  norms,  ///< "ln": inputs that a norm makes (q, k, v; gate, up) are scaled, o and down are not
  all,  ///< "ln_all": o and down are scaled too, by maxima of their own, which nothing in front takes: W' = Q(W / g) g in floats
  all_as_published,  ///< what "ln_all" does when it is folded: o and down are rounded unscaled and multiplied by g nevertheless
  exact,  ///< o and down first, into the rows of v and up, then the norms: everything folds, before anything is rounded
};
inline constexpr std::string_view absorption_names[] = {"none", "norms", "all", "all-as-published", "exact"};

enum class AbsorbedScale : std::uint8_t {
  largest,          ///< max |W|: as published. The largest weight of every channel is 1, beyond the grid
  largest_on_grid,  ///< max |W| / (1 - 2^-m), so that the largest weight is the largest on the grid
  power_of_two,     ///< the smallest power of two that is at least max |W|
};

/// What absorb() did, by SiteId; empty where a site is as it was.
struct Absorbed {
  std::vector<std::vector<float>> scales;  ///< g: what columns of the site's readers were divided by
  std::vector<bool> folded;                ///< whether the producer was multiplied by it
};

namespace detail {

inline constexpr float least_absorbed = 1e-8f;

/// g of one site, equal for channels that one row upstream makes where that row will take it.
inline std::vector<float> absorbed_scales(const model::SiblingGroup& group, AbsorbedScale rule, const SuperfloatGrid& grid,
                                          bool shared) {
  std::vector<float> g(static_cast<std::size_t>(group.linears.front().linear->extents().cols), 0.0f);
  for (const model::NamedLinear& l : group.linears) column_maxima(l.linear->dense()->view(), g);
  if (shared && group.upstream) {
    std::vector<float> row(static_cast<std::size_t>(group.upstream->extents().rows), 0.0f);
    const auto row_of = [&](std::size_t j) { return static_cast<std::size_t>(group.producer.row_of(static_cast<Index>(j))); };
    for (std::size_t j = 0; j < g.size(); ++j) row[row_of(j)] = std::max(row[row_of(j)], g[j]);
    for (std::size_t j = 0; j < g.size(); ++j) g[j] = row[row_of(j)];
  }
  for (float& s : g) {
    s = std::max(s, least_absorbed);
    if (rule == AbsorbedScale::largest_on_grid) s /= grid.largest();
    if (rule == AbsorbedScale::power_of_two) s = power_of_two_above(s);
  }
  return g;
}

inline void divide_columns(MutableMatrix w, std::span<const float> g) {
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c) w(r, c) /= g[static_cast<std::size_t>(c)];
}

/// The producer of the group's input times g.
inline void multiply_producer(const model::SiblingGroup& group, std::span<const float> g) {
  if (group.norm_gain) {
    for (std::size_t j = 0; j < g.size(); ++j) (*group.norm_gain)[j] *= g[j];
    if (group.norm_bias)
      for (std::size_t j = 0; j < g.size(); ++j) (*group.norm_bias)[j] *= g[j];
    return;
  }
  const MutableMatrix rows = group.upstream->own_dense();
  const std::span<float> bias = group.upstream->own_bias();
  std::vector<bool> done(static_cast<std::size_t>(rows.rows), false);
  for (std::size_t j = 0; j < g.size(); ++j) {
    const Index row = group.producer.row_of(static_cast<Index>(j));
    if (done[static_cast<std::size_t>(row)]) continue;
    done[static_cast<std::size_t>(row)] = true;
    for (float& w : rows.row(row)) w *= g[j];
    if (!bias.empty()) bias[static_cast<std::size_t>(row)] *= g[j];
  }
}

}  // namespace detail

/// Divides and multiplies the weights of d as `mode` says; nothing is rounded yet. With every mode but `all` and
/// `all_as_published` the function of d stays the same but for float rounding. Linears of blocks must be floats.
inline Result<Absorbed> absorb(model::Decoder& d, Absorption mode, AbsorbedScale rule, const SuperfloatGrid& grid) {
  const model::Blueprint& b = *d.blueprint;
  for (const model::WeightId id : b.linears)
    if (!d[id].linear.dense())
      return {ErrorCode::unsupported,
              io::detail::text("tensor ", b[id].name, " is packed: scales are absorbed by float weights")};
  Absorbed out{std::vector<std::vector<float>>(b.sites.size()), std::vector<bool>(b.sites.size(), false)};
  if (mode == Absorption::none) return out;
  for (Index block = 0; block < d.config.blocks; ++block)
    for (const std::vector<model::SiteId>& order : b.quantization_order(block))
      for (const model::SiteId id : order) {
        const model::SiblingGroup group = model::sibling_group(d, id);
        const bool folds = group.norm_gain || (mode == Absorption::exact && group.upstream);
        if (!folds && (mode == Absorption::norms || mode == Absorption::exact)) continue;
        std::vector<float> g = detail::absorbed_scales(group, rule, grid, folds);
        if (folds) detail::multiply_producer(group, g);
        if (folds || mode != Absorption::all_as_published)
          for (const model::NamedLinear& l : group.linears) detail::divide_columns(l.linear->own_dense(), g);
        out.folded[model::place(id)] = folds;
        out.scales[model::place(id)] = std::move(g);
      }
  return out;
}

/// What rounding to the grid did to one linear.
struct GridReport {
  std::string name;
  Index weights = 0;
  Index dead = 0;       ///< rounded to 0
  Index saturated = 0;  ///< |W / g| > 1 - 2^-m
  Index off_grid = 0;   ///< values that are no multiple of the step behind it: scales that nothing has taken
};

/// Rounds the linears of the blocks of an absorbed model; scales that no producer took are multiplied back in floats.
inline std::vector<GridReport> round_to_grid(model::Decoder& d, const Absorbed& absorbed, const SuperfloatGrid& grid) {
  std::vector<GridReport> out;
  const model::Blueprint& b = *d.blueprint;
  for (std::size_t i = 0; i < b.sites.size(); ++i) {
    const std::vector<float>& g = absorbed.scales[i];
    const bool multiplies = !g.empty() && !absorbed.folded[i];
    for (const model::WeightId id : b.sites[i].readers) {
      GridReport r{b[id].name};
      const MutableMatrix w = d[id].linear.own_dense();
      for (Index row = 0; row < w.rows; ++row)
        for (Index c = 0; c < w.cols; ++c) {
          const float x = w(row, c), q = grid.round(x);
          ++r.weights;
          r.dead += q == 0 ? 1 : 0;
          r.saturated += grid.passes(x) ? 0 : 1;
          w(row, c) = multiplies ? q * g[static_cast<std::size_t>(c)] : q;
          const float k = w(row, c) * grid.steps();
          r.off_grid += k != std::nearbyint(k) || std::abs(k) > grid.steps() - 1 ? 1 : 0;
        }
      out.push_back(std::move(r));
    }
  }
  return out;
}

/// The rounded model with every scale multiplied back where it was taken from, in floats: the function that folding must keep.
/// `original` gives norms and what is no linear.
inline model::Decoder unfolded(const model::Decoder& rounded, const Absorbed& absorbed, const model::Decoder& original) {
  model::Decoder out = rounded;
  const model::Blueprint& b = *out.blueprint;
  for (std::size_t i = 0; i < b.sites.size(); ++i) {
    if (!absorbed.folded[i]) continue;
    const model::SiblingGroup group = model::sibling_group(out, static_cast<model::SiteId>(i));
    const std::vector<float>& g = absorbed.scales[i];
    for (const model::NamedLinear& l : group.linears) {
      const MutableMatrix w = l.linear->own_dense();
      for (Index r = 0; r < w.rows; ++r)
        for (Index c = 0; c < w.cols; ++c) w(r, c) *= g[static_cast<std::size_t>(c)];
    }
    if (!group.upstream) continue;
    std::vector<float> inverse(g.size());
    std::transform(g.begin(), g.end(), inverse.begin(), [](float s) { return 1 / s; });
    detail::multiply_producer(group, inverse);
  }
  for (std::size_t i = 0; i < out.weights.size(); ++i) out.weights[i].values = original.weights[i].values;
  return out;
}

/// Largest |difference| of the logits of two models of one shape on some tokens.
inline Result<float> largest_difference(const model::Decoder& a, const model::Decoder& b, std::span<const model::TokenId> ids,
                                        ExecutorRef executor = {}) {
  const auto logits_of = [&](const model::Decoder& d) {
    nn::KvCache cache(model::cache_shape(d.config), static_cast<Index>(ids.size()));
    return model::forward(d, ids, cache, {executor});
  };
  ANYBIT_TRY(const Matrix x, logits_of(a));
  ANYBIT_TRY(const Matrix y, logits_of(b));
  float most = 0;
  for (Index i = 0; i < x.extents().size(); ++i) most = std::max(most, std::abs(x.data()[i] - y.data()[i]));
  return most;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
