#pragma once
// FPM, full-parameter training of a Superfloat model: every weight of the linears is on the grid in the forward pass and trained
// through it.
//
// As published (2025): all parameters are rounded once, toward zero and with the sign the wrong way round, and then train as
// floats, for the layer that would round them is never made.

#include <anybit/core/macros_begin.hpp>

#include <utility>

#include <anybit/train/wasq/grid_model.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

struct Fpm {
  int bits = 8;
  bool row_scales = true;        ///< learned, from a search; else the grid as it is, for weights that have absorbed their scales
  bool round_gradients = false;  ///< gradients in as many bits too
  bool as_published = false;

  GridModel make(const model::Decoder& d) const {
    using io::detail::text;
    GridModel m;
    m.description = text("fpm, ", bits, " bits", row_scales ? ", row scales" : "", round_gradients ? ", rounded gradients" : "",
                         as_published ? ", as published" : "");
    m.layers = block_layers(d, bits, row_scales && !as_published);
    m.gradient_bits = round_gradients ? bits : 0;
    m.rounds_once = as_published;
    for (GridLayer& l : m.layers) {
      if (as_published) l.grid.rounding = Rounding::truncate, l.grid.inverted_sign = true;
      if (!l.row_scales.empty()) search_row_scales(l, d[d.weight(l.name)].linear.dense()->view());
    }
    m.clamps = l_clamps();
    return m;
  }

 private:
  /// Without scales a weight beyond the range would never come back: nothing pulls it.
  bool l_clamps() const { return !row_scales && !as_published; }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
