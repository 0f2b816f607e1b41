#pragma once
// OPT: only the weights train that rounding hurts most, those that saturate the grid and those to which the loss is most
// sensitive.
//
// As published (2025): the gradient mask is never installed, so that after one rounding all parameters train as floats; were it,
// no parameter would train, for clamping leaves none outside the range.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <anybit/train/wasq/fisher.hpp>
#include <anybit/train/wasq/grid_model.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

struct Opt {
  int bits = 11;
  bool row_scales = true;
  double critical = 0.1;  ///< share of the weights of a layer that train for their Fisher-weighted rounding error
  bool as_published = false;

  GridModel make(const model::Decoder& d, const Fisher& fisher) const {
    using io::detail::text, model::detail::number_text;
    GridModel m;
    m.description = text("opt, ", bits, " bits, critical ", number_text(critical), row_scales ? ", row scales" : "",
                         as_published ? ", as published" : "");
    m.layers = block_layers(d, bits, row_scales && !as_published);
    m.rounds_once = as_published;
    m.others_train = as_published;
    for (GridLayer& l : m.layers) {
      const ConstMatrix w = d[d.weight(l.name)].linear.dense()->view();
      if (as_published) {
        l.grid.rounding = Rounding::truncate, l.grid.inverted_sign = true;
        continue;
      }
      if (!l.row_scales.empty()) search_row_scales(l, w);
      l.trained = chosen(l, w, fisher);
    }
    return m;
  }

  /// 1 where a weight trains.
  std::vector<std::uint8_t> chosen(const GridLayer& l, ConstMatrix w, const Fisher& fisher) const {
    const auto score = fisher.find(l.name);
    const auto n = static_cast<std::size_t>(l.size());
    std::vector<std::uint8_t> out(n, 0);
    std::vector<double> cost(n, 0.0);
    const Scales<float> scales = detail::scales_of(l);
    for (Index r = 0; r < l.rows; ++r)
      for (Index c = 0; c < l.cols; ++c) {
        const auto i = static_cast<std::size_t>(r * l.cols + c);
        const float s = scales.at(r, c), u = w(r, c) / s;
        const auto e = static_cast<double>(w(r, c) - s * l.grid.round(u));
        out[i] = std::abs(u) >= l.grid.largest() ? 1 : 0;
        cost[i] = score == fisher.end() ? e * e : score->second[i] * e * e;
      }
    const auto count = std::min(n, static_cast<std::size_t>(critical * static_cast<double>(n)));
    if (count == 0) return out;
    std::vector<double> sorted = cost;
    const auto at = sorted.begin() + static_cast<std::ptrdiff_t>(n - count);
    std::nth_element(sorted.begin(), at, sorted.end());
    for (std::size_t i = 0; i < n; ++i)
      if (cost[i] >= *at) out[i] = 1;
    return out;
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
