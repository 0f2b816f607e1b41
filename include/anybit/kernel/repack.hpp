#pragma once
// From packed bytes to the kernel layout, once at load, and products from it.

#include <anybit/kernel/matmul.hpp>
#include <anybit/kernel/tiled_products.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

/// Rearranges the weights of a scheme whose format multiplies in integers. Allocates.
template <AnyScheme S, Executor E = Serial>
  requires(has_integer_dot_v<typename S::format>)
TiledWeights tile_weights(const PackedTensor<S>& t, E&& executor = E{}) {
  using F = typename S::format;
  constexpr int bits = level_bits_v<F>, lowest = integer_range_v<F>.lowest;
  static_assert(!S::has_zero_point || lowest == 0, "anybit: a format with a zero point has levels 0, 1, ..");
  const RowSource source = row_source(t);
  TiledWeights w;
  w.extents = t.extents();
  w.group = source.group;
  w.bits = bits;
  w.half_scales = std::is_same_v<typename S::scale_store, ScaleF16>;
  w.zero_points = S::has_zero_point;
  w.factor = F::step;
  w.lowest = lowest;
  w.rows = &tiled_rows<bits>;
  for (Segment s(t.cols(), w.group); !s.done(); s.next()) {
    w.steps.push_back(static_cast<std::int32_t>(round_up(ceil_div(s.length, 4), unit_steps(bits))));
    w.all_steps += w.steps.back();
  }
  w.memory = AlignedBuffer(static_cast<std::size_t>(w.tiles() * w.tile_bytes()));
  executor.parallel_for(w.tiles(), 1, [&](Index begin, Index end) {
    detail::BytePanel panel;
    for (Index tile = begin; tile < end; ++tile) {
      const Index first = tile * tile_rows, rows = std::min(tile_rows, t.rows() - first);
      std::byte* start = w.memory.data() + tile * w.tile_bytes();
      std::byte *unit = start, *scales = start + w.scales_at(), *zeros = start + w.zeros_at();
      std::size_t segment = 0;
      for (Segment s(t.cols(), w.group); !s.done();) {
        Segment here = s;
        detail::fill_panel<native_arch>(source, first, rows, s, panel);
        const std::uint8_t* codes = panel.bytes.data();
        for (Index i = 0; i < panel.segments; ++i, here.next(), ++segment) {
          for (Index k = 0; k < panel.dwords[static_cast<std::size_t>(i)]; ++k, codes += line_bytes)
            CodeLines<bits>::write(static_cast<int>(k % unit_steps(bits)), codes,
                                   unit + k / unit_steps(bits) * CodeLines<bits>::bytes);
          unit += w.steps[segment] * w.step_bytes();
          for (Index r = 0; r < rows; ++r) {
            const Index index = S::granularity::index(t.extents(), first + r, here.group);
            float scale;
            t.load_scales(index, {&scale, 1});
            if (w.half_scales) {
              const std::uint16_t half = f32_to_f16(scale);  // exact: it was stored so
              std::memcpy(scales + 2 * r, &half, 2);
            } else {
              std::memcpy(scales + 4 * r, &scale, 4);
            }
            if constexpr (S::has_zero_point) zeros[r] = static_cast<std::byte>(static_cast<std::uint8_t>(t.zero(index)));
          }
          scales += w.scale_bytes(), zeros += tile_rows;
        }
      }
    }
  });
  return w;
}

/// y = x W^T with activations rounded to 8 bits, to the bit what Compute::int8_per_token makes of the packed weights.
template <Executor E>
void matmul(const TiledWeights& w, ConstMatrix x, MutableMatrix y, Workspace& workspace, E&& executor) {
  check_shapes(w.extents, x, y);
  if (x.rows == 0) return;
  if (x.cols == 0) {
    for (Index t = 0; t < x.rows; ++t) std::fill(y.row(t).begin(), y.row(t).end(), 0.0f);
    return;
  }
  const TiledActivations tiled =
      tile_activations<native_arch>(round_activations(x, w.group, workspace, executor), w, workspace, executor);
  executor.parallel_for(w.extents.rows, 4 * tile_rows, [&](Index begin, Index end) { w.rows(w, tiled, y, begin, end); });
}

}  // namespace anybit::kernel::inline ANYBIT_CODE
