#pragma once
// fasteropt: bits per layer by an error budget, the largest weights as floats, a learned scale per row, clamped weights.
//
// As published (2025): scales start at 1 with a decoder that inverts signs, so that the relative error is about 2 at every width
// and the widest is always chosen; weights are clamped before the step, and can leave the range with it.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <anybit/train/wasq/grid_model.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

struct FasterOpt {
  std::vector<int> bits{4, 8, 11, 16};  ///< ascending; the last where none keeps to the budget
  double error_budget = 0.01;           ///< of ||W - W'|| / ||W||
  double outliers = 0.005;              ///< share of a layer's weights that stay floats
  bool as_published = false;

  GridModel make(const model::Decoder& d) const {
    using io::detail::text, model::detail::number_text;
    GridModel m;
    m.description = text("fasteropt, error ", number_text(error_budget), ", outliers ", number_text(outliers),
                         as_published ? ", as published" : "");
    for (const int b : bits) m.description += text(", ", b, " bits");
    m.layers = block_layers(d, bits.front(), true);
    m.clamps = true;
    for (GridLayer& l : m.layers) fit(l, d[d.weight(l.name)].linear.dense()->view());
    return m;
  }

 private:
  void fit(GridLayer& l, ConstMatrix w) const {
    const std::span<const float> values(w.data, static_cast<std::size_t>(l.size()));
    l.floats = largest(values);
    std::vector<float> rounded(values.size());
    for (const int b : bits) {
      l.grid.bits = b;
      if (as_published) {
        l.grid.rounding = Rounding::truncate, l.grid.inverted_sign = true;
        std::fill(l.row_scales.begin(), l.row_scales.end(), 1.0f);
        detail::store_scales(l);
        for (std::size_t i = 0; i < values.size(); ++i)
          if (std::abs(values[i]) > l.grid.largest()) l.floats[i] = 1;
      } else {
        search_row_scales(l, w);
      }
      detail::round_layer(l, values, rounded);
      double error = 0, whole = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto x = static_cast<double>(values[i]), e = x - static_cast<double>(rounded[i]);
        error += e * e, whole += x * x;
      }
      if (std::sqrt(error) <= error_budget * std::sqrt(whole)) return;
    }
  }
  /// 1 for the largest magnitudes.
  std::vector<std::uint8_t> largest(std::span<const float> values) const {
    std::vector<std::uint8_t> out(values.size(), 0);
    const auto count = static_cast<std::size_t>(outliers * static_cast<double>(values.size()));
    if (count == 0) return out;
    std::vector<float> sorted;
    for (const float x : values) sorted.push_back(std::abs(x));
    const auto at = sorted.begin() + static_cast<std::ptrdiff_t>(values.size() - count);
    std::nth_element(sorted.begin(), at, sorted.end());
    for (std::size_t i = 0; i < values.size(); ++i) out[i] = std::abs(values[i]) >= *at ? 1 : 0;
    return out;
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
