#pragma once
// Weights of trellis codes, EXL3's too, decoded tile by tile in registers: states, their hash, its value. To the bit what the
// schemes' decode() gives.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <concepts>
#include <type_traits>

#include <anybit/scheme/trellis.hpp>
#include <anybit/scheme/trellis_exl3.hpp>
#include <anybit/simd/trellis_states.hpp>
#include <anybit/tensor/packed_tensor.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// A codebook whose values are, for each of V = 1 or 2 weights of a step, the sum of its 4 / V bytes of
/// state * multiplier & mask, over `unit`, less `offset`; `unit`, a power of two, divides every byte.
template <class C>
concept ByteSumCodebook = TrellisCodebook<C> && step_weights_v<C> <= 2 && requires {
  { C::multiplier } -> std::convertible_to<std::uint32_t>;
  { C::mask } -> std::convertible_to<std::uint32_t>;
  { C::offset } -> std::convertible_to<int>;
  { C::unit } -> std::convertible_to<int>;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// Group g has the steps of column g, lane i that of row i, of EXL3's tiles and of those with linear codebooks.
template <class S>
struct ColumnOrder {
  static constexpr Index step(Index g, Index i) {
    if constexpr (is_exl3_v<S>)
      return S::step_of(g, i);
    else
      return S::step_of(i, g);
  }
};
template <class S>
constexpr Index tile_steps() {
  if constexpr (is_exl3_v<S>)
    return S::tile * S::tile;
  else
    return S::steps;
}
/// Group g has the states of the columns V g .., lane i that of row i.
template <class S>
using TileOf = std::conditional_t<is_exl3_v<S> || LinearCodebook<typename S::codebook>,
                                  simd::TileStates<S::code::state_bits, S::code::step_bits, is_exl3_v<S>, 256, ColumnOrder<S>>,
                                  simd::RunStates<S::code::state_bits, S::code::step_bits, tile_steps<S>()>>;

/// The sum of two bytes, `lower` or upper, or of all four.
ANYBIT_INLINE simd::u32 sum_of_pair(simd::u32 x, bool upper) {
  const simd::u32 byte = simd::broadcast(std::uint32_t{255});
  const simd::u32 pair = upper ? simd::shift_right(x, 16) : x;
  return (pair & byte) + (simd::shift_right(pair, 8) & byte);
}
ANYBIT_INLINE simd::u32 sum_of_bytes(simd::u32 x) { return sum_of_pair(x, false) + sum_of_pair(x, true); }

/// A normal binary16 number in the lower bits of each lane.
ANYBIT_INLINE simd::f32 normal_half(simd::u32 x) {
  const auto mask = [](std::uint32_t m) { return simd::broadcast(m); };
  return simd::as_f32((simd::shift_left(x & mask(0x8000), 16) | simd::shift_left(x & mask(0x7fff), 13)) + mask(112u << 23));
}

/// trellis_value() of `width` states, and weight v of their steps.
template <class Book, int L>
ANYBIT_INLINE simd::f32 values_of(simd::u32 state, [[maybe_unused]] Index v) {
  const auto times = [state](std::uint32_t m) { return simd::multiply(state, simd::broadcast(m)); };
  [[maybe_unused]] const auto sum_of_halves = [](simd::u32 x) {
    x = (x & simd::broadcast(0x8fff8fffu)) ^ simd::broadcast(0x3b603b60u);
    return simd::round_to_f16(normal_half(x) + normal_half(simd::shift_right(x, 16)));
  };
  if constexpr (ByteSumCodebook<Book>) {
    const simd::u32 x = times(Book::multiplier) & simd::broadcast(std::uint32_t{Book::mask});
    const simd::u32 sum = step_weights_v<Book> == 1 ? sum_of_bytes(x) : sum_of_pair(x, v == 1);
    return simd::to_f32(simd::as_i32(sum)) * simd::broadcast(1.0f / static_cast<float>(Book::unit)) -
           simd::broadcast(static_cast<float>(Book::offset));
  } else if constexpr (std::is_same_v<Book, Mul1>) {
    const simd::f32 sum =
        simd::to_f32(simd::as_i32(sum_of_bytes(times(Mul1::multiplier)) + simd::broadcast(std::uint32_t{1024})));
    return simd::round_to_f16(sum * simd::broadcast(f16_to_f32(0x1eee)) + simd::broadcast(f16_to_f32(0xc931)));
  } else if constexpr (std::is_same_v<Book, Mcg>) {
    return sum_of_halves(times(Mcg::multiplier));
  } else if constexpr (std::is_same_v<Book, ThreeInst>) {
    return sum_of_halves(times(ThreeInst::multiplier) + simd::broadcast(ThreeInst::increment));
  } else {
    constexpr auto V = static_cast<std::uint32_t>(step_weights_v<Book>);
    return simd::gather(trellis_table<Book, L>().data(), simd::as_i32(times(V) + simd::broadcast(static_cast<std::uint32_t>(v))));
  }
}

/// A tile's weights without scales, columns of 16 rows.
template <class S>
ANYBIT_INLINE void decode_tile(const std::byte* from, float* columns) {
  constexpr Index V = 256 / tile_steps<S>();
  const TileOf<S> tile(from);
#pragma GCC unroll 16
  for (Index g = 0; g < 16 / V; ++g)
    for (Index i = 0; i < 16; i += simd::width) {
      const simd::u32 state = tile.states(g, i);
#pragma GCC unroll 4
      for (Index v = 0; v < V; ++v)
        simd::store(columns + (g * V + v) * 16 + i, values_of<typename S::codebook, S::code::state_bits>(state, v));
    }
}

/// RowOps::weights (kernel/row_decoder.hpp) of a trellis scheme, or of what EXL3 has between its rotations.
template <class S>
void decode_tiles(const void* tensor, Index row, Index rows, Index first, Index n, float* out, Index stride) {
  const auto& t = *static_cast<const PackedTensor<S>*>(tensor);
  const typename PackedTensor<S>::SectionsOf held(t.bytes());
  const Sections s = held;
  const Extents e = t.extents();
  alignas(64) float columns[256];
  float scales[16];
  for (Index r0 = row / 16 * 16; r0 < row + rows; r0 += 16) {
    const Index r1 = std::max(r0, row), r2 = std::min(r0 + 16, row + rows);
    Index scaled_group = -1;
    for (Index c0 = first / 16 * 16; c0 < first + n; c0 += 16) {
      const Index c1 = std::max(c0, first), c2 = std::min(c0 + 16, first + n);
      Index at = 0;
      if constexpr (is_exl3_v<S>) {
        at = c0 / 16 * (S::padded(e).rows / 16) + r0 / 16;
      } else {
        at = S::tile_at(e, r0, c0);
        if (const Index group = c0 / S::granularity::group_cols(e.cols); group != scaled_group) {
          scaled_group = group;
          for (Index r = r1; r < r2; ++r)
            S::scale_store::load(s[1].data(), S::granularity::count(e), S::granularity::index(e, r, group),
                                 {scales + (r - r0), 1});
        }
      }
      decode_tile<S>(s[0].data() + at * S::tile_bytes, columns);
      for (Index r = r1; r < r2; ++r) {
        float* const to = out + (r - row) * stride + (c1 - first);
        const float* const from = columns + (c1 - c0) * 16 + (r - r0);
        for (Index c = 0; c < c2 - c1; ++c)
          if constexpr (is_exl3_v<S>)
            to[c] = from[16 * c];
          else
            to[c] = scales[r - r0] * from[16 * c];
      }
    }
  }
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
