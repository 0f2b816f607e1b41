#pragma once
// Training of weights that the model sees on Superfloat's grid: which layers are on which grid, which of their weights stay
// floats, which are trained, and the reparametrization that the trainer takes. The methods of WASQ (vanilla.hpp, opt.hpp,
// fasteropt.hpp, fpm.hpp) each make one of these.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/half.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/model/decoder.hpp>
#include <anybit/model/number_text.hpp>
#include <anybit/train/reparametrization.hpp>
#include <anybit/train/wasq/straight_through.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

/// One matrix on a grid.
struct GridLayer {
  std::string name;  ///< "blk.0.attn_q.weight"
  Index rows = 0, cols = 0;
  SuperfloatGrid grid{};
  std::vector<float> row_scales{};          ///< per row and group of columns; empty: none
  std::vector<std::uint8_t> floats{};       ///< 1 where a weight stays a float; empty: nowhere
  std::vector<std::uint8_t> trained{};      ///< 1 where a weight is trained; empty: everywhere
  std::vector<float> values{}, gradient{};  ///< while it trains: what is rounded
  std::vector<float> scale_gradient{};
  std::vector<float> stored_scales{};  ///< row_scales as a file has them, in binary16: what weights are rounded with

  /// Columns that share a scale: as in Scheme<Superfloat<b>, PerGroup<128>, ScaleF16>, which holds a trained layer exactly.
  static constexpr Index group = 128;
  Index groups() const { return ceil_div(cols, group); }
  Index size() const { return rows * cols; }
  Index kept_floats() const { return std::count(floats.begin(), floats.end(), std::uint8_t{1}); }
  /// Of the weights, floats and scales (both in 16 bits, with 16 more for the place of a float that is no whole row's) included.
  double bits() const {
    const auto kept = static_cast<double>(kept_floats()), n = static_cast<double>(size());
    return ((n - kept) * grid.bits + 32 * kept + 16 * static_cast<double>(row_scales.size())) / n;
  }
};

struct GridModel {
  std::string description{};  ///< the method with every option
  std::vector<GridLayer> layers{};
  bool learns_scales = true;
  bool clamps = false;            ///< behind every step to the range of the grid
  bool gradient_outside = false;  ///< defect of 2025: gradients pass where the weight was clipped, and nowhere else
  bool rounds_once = false;       ///< defect of 2025: weights are rounded before the run and train as floats
  int gradient_bits = 0;          ///< gradients of the layers on this grid too, under their largest magnitude; 0: floats
  bool others_train = true;       ///< norms, biases, embedding

  const GridLayer* find(std::string_view name) const {
    const auto found = std::find_if(layers.begin(), layers.end(), [name](const GridLayer& l) { return l.name == name; });
    return found == layers.end() ? nullptr : &*found;
  }
  /// Mean over the weights of all layers.
  double bits() const {
    double bits = 0, weights = 0;
    for (const GridLayer& l : layers) bits += l.bits() * static_cast<double>(l.size()), weights += static_cast<double>(l.size());
    return weights > 0 ? bits / weights : 0;
  }
};

namespace detail {

inline Scales<float> scales_of(const GridLayer& l) {
  return {l.row_scales.empty() ? ScaleAxis::none : ScaleAxis::rows, l.stored_scales, GridLayer::group, l.groups()};
}
inline constexpr float least_scale = 1e-6f;
/// To be called after row_scales change.
inline void store_scales(GridLayer& l) {
  l.stored_scales.clear();
  for (float& s : l.row_scales) {
    s = std::max(s, least_scale);
    l.stored_scales.push_back(f16_to_f32(f32_to_f16(s)));
  }
}
inline void round_layer(const GridLayer& l, std::span<const float> values, std::span<float> to) {
  round_weights<float>(l.grid, {values.data(), l.rows, l.cols}, scales_of(l), {to.data(), l.rows, l.cols}, 0, l.rows);
  for (std::size_t i = 0; i < l.floats.size(); ++i)
    if (l.floats[i]) to[i] = values[i];
}
/// dL/dW' -> dL/dW.
inline void pull_back(const GridModel& m, GridLayer& l, std::span<const float> by_weights) {
  const std::span<float> d = l.gradient;
  std::copy(by_weights.begin(), by_weights.end(), d.begin());
  for (std::size_t i = 0; i < l.floats.size(); ++i)
    if (l.floats[i]) d[i] = 0;
  straight_through<float>(l.grid, {l.values.data(), l.rows, l.cols}, scales_of(l), {d.data(), l.rows, l.cols}, l.scale_gradient,
                          m.gradient_outside);
  for (std::size_t i = 0; i < l.floats.size(); ++i)
    if (l.floats[i]) d[i] = by_weights[i];
  for (std::size_t i = 0; i < l.trained.size(); ++i)
    if (!l.trained[i]) d[i] = 0;
  if (m.gradient_bits == 0) return;
  const SuperfloatGrid grid{m.gradient_bits};
  float most = 0;
  for (const float x : d) most = std::max(most, std::abs(x));
  if (most > 0)
    for (float& x : d) x = grid.round(x / most) * most;
}
/// Values into the range of the grid; scales stay above 0.
inline void project(const GridModel& m, GridLayer& l) {
  store_scales(l);
  if (!m.clamps) return;
  const Scales<float> scales = scales_of(l);
  for (Index r = 0; r < l.rows; ++r)
    for (Index c = 0; c < l.cols; ++c) {
      const auto i = static_cast<std::size_t>(r * l.cols + c);
      const float most = scales.at(r, c) * l.grid.largest();
      if (l.floats.empty() || !l.floats[i]) l.values[i] = std::clamp(l.values[i], -most, most);
    }
}

/// The weights that the model runs with.
inline void put_weights(const GridModel& m, const GridLayer& l, std::span<float> to) {
  if (m.rounds_once)
    std::copy(l.values.begin(), l.values.end(), to.begin());
  else
    round_layer(l, l.values, to);
}

}  // namespace detail

/// For TrainOptions::reparametrize. `m` outlives the run and then holds the trained values and scales of every layer. Layers
/// whose weight is not trained are left alone.
inline Reparametrize on_grid(GridModel& m) {
  return [&m](std::span<const Parameter> weights) {
    Reparametrization out;
    out.description = m.description;
    std::vector<std::pair<GridLayer*, Parameter>> pairs;
    for (const Parameter& p : weights) {
      const auto found = std::find_if(m.layers.begin(), m.layers.end(), [&](const GridLayer& l) { return l.name == p.name; });
      if (found == m.layers.end()) {
        if (m.others_train) out.stepped.push_back(p);
        continue;
      }
      GridLayer& l = *found;
      ANYBIT_CHECK(static_cast<Index>(p.values.size()) == l.size(), "wasq::on_grid: layers of another model");
      l.values.assign(p.values.begin(), p.values.end());
      if (m.rounds_once) detail::round_layer(l, std::vector<float>(l.values), l.values);
      l.gradient.assign(p.values.size(), 0.0f);
      out.stepped.push_back({p.name, l.values, l.gradient, p.decays && l.trained.empty()});
      if (m.learns_scales && !m.rounds_once && !l.row_scales.empty()) {
        l.scale_gradient.assign(l.row_scales.size(), 0.0f);
        out.stepped.push_back({p.name + "/scale", l.row_scales, l.scale_gradient, false});
      }
      pairs.emplace_back(&l, p);
    }
    out.to_weights = [&m, pairs] {
      for (const auto& [l, p] : pairs) {
        detail::store_scales(*l);  // a checkpoint may have changed them
        detail::put_weights(m, *l, p.values);
      }
    };
    out.gradients_from_weights = [&m, pairs] {
      for (const auto& [l, p] : pairs)
        if (m.rounds_once)
          std::copy(p.gradient.begin(), p.gradient.end(), l->gradient.begin());
        else
          detail::pull_back(m, *l, p.gradient);
    };
    out.after_step = [&m, pairs] {
      for (const auto& [l, p] : pairs) detail::project(m, *l);
    };
    return out;
  };
}

/// Weights of `d` on the grid as the values and scales of m are now. A run does so itself before every loss and behind its last
/// step; this is for a copy of its model in between.
inline void round_layers(const GridModel& m, model::Decoder& d) {
  for (const GridLayer& l : m.layers) {
    if (l.values.empty()) continue;
    const MutableMatrix w = d[d.weight(l.name)].linear.own_dense();
    detail::put_weights(m, l, {w.data, static_cast<std::size_t>(l.size())});
  }
}

/// Scales that make the largest magnitude of every group the largest of the grid; weights that stay floats do not count.
inline void fit_row_scales(GridLayer& l, ConstMatrix w) {
  l.row_scales.assign(static_cast<std::size_t>(l.rows * l.groups()), 0.0f);
  for (Index r = 0; r < l.rows; ++r)
    for (Index c = 0; c < l.cols; ++c) {
      if (!l.floats.empty() && l.floats[static_cast<std::size_t>(r * l.cols + c)]) continue;
      float& most = l.row_scales[static_cast<std::size_t>(r * l.groups() + c / GridLayer::group)];
      most = std::max(most, std::abs(w(r, c)) / l.grid.largest());
    }
  detail::store_scales(l);
}

/// Of 33 shares of such a scale, from 1 down by 1/40, the one with the least squared rounding error.
inline void search_row_scales(GridLayer& l, ConstMatrix w) {
  fit_row_scales(l, w);
  for (Index r = 0; r < l.rows; ++r)
    for (Index g = 0; g < l.groups(); ++g) {
      float& scale = l.row_scales[static_cast<std::size_t>(r * l.groups() + g)];
      const float whole = scale;
      double best = -1;
      for (int step = 40; step >= 8; --step) {
        const float s = std::max(whole * static_cast<float>(step) / 40, detail::least_scale);
        double error = 0;
        for (Index c = g * GridLayer::group; c < std::min((g + 1) * GridLayer::group, l.cols); ++c) {
          if (!l.floats.empty() && l.floats[static_cast<std::size_t>(r * l.cols + c)]) continue;
          const double e = static_cast<double>(w(r, c) - s * l.grid.round(w(r, c) / s));
          error += e * e;
        }
        if (best < 0 || error < best) best = error, scale = s;
      }
    }
  detail::store_scales(l);
}

/// The linears of the blocks at `bits`; with `row_scales` those of fit_row_scales().
inline std::vector<GridLayer> block_layers(const model::Decoder& d, int bits, bool row_scales) {
  std::vector<GridLayer> out;
  for (const model::WeightId id : d.blueprint->linears) {
    const Matrix* const w = d[id].linear.dense();
    if (!w) continue;
    GridLayer l{(*d.blueprint)[id].name, w->rows(), w->cols(), {bits}};
    if (row_scales) fit_row_scales(l, w->view());
    out.push_back(std::move(l));
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
