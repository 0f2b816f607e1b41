#pragma once
// Trained layers as packed tensors: the codes and scales that the model was trained with, nothing rounded again.

#include <anybit/core/macros_begin.hpp>

#include <string>
#include <utility>

#include <anybit/format/superfloat.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/train/wasq/grid_model.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

/// A layer without floats and published defects in Superfloat<Bits> with binary16 scales in groups of 128.
template <int Bits>
PackedBytes pack_layer(const GridLayer& l) {
  using S = Scheme<Superfloat<Bits>, PerGroup<GridLayer::group>, ScaleF16>;
  QuantizedMatrix<S> q(Extents{l.rows, l.cols});
  const Scales<float> scales = detail::scales_of(l);
  for (Index r = 0; r < l.rows; ++r) {
    for (Index g = 0; g < l.groups(); ++g) q.affine(r, g) = {scales.at(r, g * GridLayer::group), 0};
    for (Index c = 0; c < l.cols; ++c)
      q.row(r)[static_cast<std::size_t>(c)] = static_cast<typename S::code>(
          Superfloat<Bits>::encode(l.values[static_cast<std::size_t>(r * l.cols + c)] / scales.at(r, c)));
  }
  q.provenance = "wasq";
  return pack(q).bytes();
}

/// Whether pack_layers() can hold it.
inline bool is_packable(const GridLayer& l) {
  return l.grid.bits >= 3 && l.grid.bits <= 8 && l.kept_floats() == 0 && l.grid.rounding == Rounding::nearest &&
         !l.grid.inverted_sign && !l.row_scales.empty();
}

/// Replaces the weights of trained layers by their codes where these can hold them; `schemes` must know Superfloat<3> to <8> of
/// that kind. The others stay as floats. How many were packed.
inline Result<Index> pack_layers(const GridModel& m, const SchemeRegistry& schemes, model::Decoder& d) {
  Index packed = 0;
  for (const GridLayer& l : m.layers) {
    if (!is_packable(l) || m.rounds_once || l.values.empty()) continue;
    PackedBytes bytes = l.grid.bits == 3   ? pack_layer<3>(l)
                        : l.grid.bits == 4 ? pack_layer<4>(l)
                        : l.grid.bits == 5 ? pack_layer<5>(l)
                        : l.grid.bits == 6 ? pack_layer<6>(l)
                        : l.grid.bits == 7 ? pack_layer<7>(l)
                                           : pack_layer<8>(l);
    auto opened = schemes.open(std::move(bytes));
    if (!opened) return in_context(opened.error(), l.name);
    nn::Linear& linear = d[d.weight(l.name)].linear;
    linear = linear.with_weights(nn::Linear(*std::move(opened)));
    ++packed;
  }
  return packed;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
