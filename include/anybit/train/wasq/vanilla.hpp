#pragma once
// Vanilla ("adaptive") WASQ: bits per layer by a Fisher-weighted rounding error, the rows of the largest weights as floats, a
// learned scale per row, activations on a grid of their own (activations.hpp).
//
// As published (2025): candidates are tried from the widest down and the first that is good enough is taken, which is the widest;
// scales start at 1, signs are inverted, and gradients pass only where a weight was clipped. The published layer is also filled
// with fresh random weights, which is not repeated here.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <anybit/train/wasq/fisher.hpp>
#include <anybit/train/wasq/grid_model.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

struct Vanilla {
  std::vector<int> bits{4, 8, 11, 16};  ///< ascending
  double loss_budget =
      0.05;  ///< nats that rounding all layers may add, by half of Fisher times squared error; shared out by weights
  double outlier_rows = 0.005;  ///< share of a layer's rows that stay floats, at least one
  bool as_published = false;
  double published_threshold = 1e-3;  ///< of mean |w - q| times the mean score

  GridModel make(const model::Decoder& d, const Fisher& fisher) const {
    using io::detail::text, model::detail::number_text;
    GridModel m;
    m.description = text("vanilla, budget ", number_text(loss_budget), ", outlier rows ", number_text(outlier_rows),
                         as_published ? ", as published" : "");
    for (const int b : bits) m.description += text(", ", b, " bits");
    m.layers = block_layers(d, bits.front(), true);
    m.gradient_outside = as_published;
    double weights = 0;
    for (const GridLayer& l : m.layers) weights += static_cast<double>(l.size());
    for (GridLayer& l : m.layers) {
      const ConstMatrix w = d[d.weight(l.name)].linear.dense()->view();
      keep_rows(l, w);
      const auto score = fisher.find(l.name);
      choose(l, w, score == fisher.end() ? std::vector<double>() : score->second,
             loss_budget * static_cast<double>(l.size()) / weights);
    }
    return m;
  }

 private:
  void keep_rows(GridLayer& l, ConstMatrix w) const {
    if (outlier_rows <= 0) return;
    std::vector<std::pair<float, Index>> rows;
    for (Index r = 0; r < l.rows; ++r) {
      float most = 0;
      for (const float x : w.row(r)) most = std::max(most, std::abs(x));
      rows.emplace_back(-most, r);
    }
    std::sort(rows.begin(), rows.end());
    const auto count = std::max(std::size_t{1}, static_cast<std::size_t>(outlier_rows * static_cast<double>(l.rows)));
    l.floats.assign(static_cast<std::size_t>(l.size()), 0);
    for (std::size_t i = 0; i < std::min(count, rows.size()); ++i)
      std::fill_n(l.floats.begin() + rows[i].second * l.cols, l.cols, std::uint8_t{1});
  }
  void choose(GridLayer& l, ConstMatrix w, const std::vector<double>& score, double budget) const {
    const std::span<const float> values(w.data, static_cast<std::size_t>(l.size()));
    std::vector<float> rounded(values.size());
    std::vector<int> order = bits;
    if (as_published) std::reverse(order.begin(), order.end());
    for (const int b : order) {
      l.grid.bits = b;
      if (as_published) {
        l.grid.rounding = Rounding::truncate, l.grid.inverted_sign = true;
        std::fill(l.row_scales.begin(), l.row_scales.end(), 1.0f);
        detail::store_scales(l);
      } else {
        search_row_scales(l, w);
      }
      detail::round_layer(l, values, rounded);
      double added = 0, absolute = 0, mean_score = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto e = static_cast<double>(values[i]) - static_cast<double>(rounded[i]);
        const double f = score.empty() ? 0 : score[i];
        added += f * e * e / 2, absolute += std::abs(e), mean_score += f;
      }
      const auto n = static_cast<double>(values.size());
      if (as_published ? absolute / n * (mean_score / n) <= published_threshold : added <= budget) return;
    }
    l.grid.bits = bits.back();
    if (!as_published) search_row_scales(l, w);
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
