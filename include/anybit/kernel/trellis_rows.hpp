#pragma once
// y = x W^T for trellis codes of whole numbers, in integers. Values that are sums of bytes of a product: 16 states of 16 rows are
// taken from the bits, multiplied and masked in registers, and a dot product of bytes meets them with the activations. Values of
// a linear codebook: 64 states become 64 bytes, four columns of 16 rows. Nothing is decoded to memory.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <concepts>
#include <cstring>
#include <type_traits>

#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/matmul.hpp>
#include <anybit/kernel/trellis_tiles.hpp>
#include <anybit/simd/trellis_lines.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// A scheme whose products with 8-bit activations are integer ones, from its packed bytes.
template <class S>
concept IntegerTrellis = TrellisScheme<S> && (ByteSumCodebook<typename S::codebook> || LinearCodebook<typename S::codebook>);

/// Activations of a token as the four bytes of each lane meet them: dword g belongs to step group g, whose V columns share its
/// bytes; 0 past the columns. `out` has 4 ceil(cols / V) bytes and up to 64 more.
template <Index V>
void spread_codes(const std::int8_t* codes, Index cols, std::int8_t* out) {
  for (Index g = 0; g < ceil_div(cols, V); ++g)
    for (Index b = 0; b < 4; ++b) {
      const Index c = g * V + b * V / 4;
      out[4 * g + b] = c < cols ? codes[c] : std::int8_t{0};
    }
}

namespace detail {

/// A tile as vectors of 64 bytes, four of each row: vector g belongs to columns `columns` g .., and the sum of its bytes times
/// activations is that of weight + offset times unit. Bytes are at most `largest`.
template <class S>
struct TileBytes {
  using Book = typename S::codebook;
  static constexpr Index columns = S::step_weights;
  static constexpr int offset = Book::offset, unit = Book::unit, largest = static_cast<int>(Book::mask & 255);

  explicit ANYBIT_INLINE TileBytes(const std::byte* from) : tile(from) {}
  template <class Arch>
  ANYBIT_INLINE typename Arch::Bytes get(Index g) const {
    const auto part = [&](Index first) __attribute__((always_inline)) {
      return simd::multiply(tile.states(g, first), simd::broadcast(std::uint32_t{Book::multiplier})) &
             simd::broadcast(std::uint32_t{Book::mask});
    };
    simd::u32 parts[static_cast<std::size_t>(16 / simd::width)];
    for (Index i = 0; i < 16 / simd::width; ++i) parts[i] = part(i * simd::width);
    typename Arch::Bytes bytes;
    static_assert(sizeof bytes == sizeof parts);
    std::memcpy(&bytes, parts, sizeof bytes);
    return bytes;
  }
  TileOf<S> tile;
};
template <class S>
  requires LinearCodebook<typename S::codebook>
struct TileBytes<S> {
  static constexpr Index columns = 4;
  static constexpr int offset = 128, unit = 1, largest = 255;

  explicit ANYBIT_INLINE TileBytes(const std::byte* from) : tile(from) {}
  template <class Arch>
  ANYBIT_INLINE typename Arch::Bytes get(Index g) const {
    return tile.template line<typename Arch::Bytes>(g);
  }
  simd::TileLines<S::code::state_bits, S::code::step_bits, typename S::codebook> tile;
};

template <class S>
ANYBIT_INLINE void scales_of_rows(Sections s, Extents e, Index row, Index group, float* out) {
  const Index rows = std::min<Index>(16, e.rows - row);
  std::fill_n(out, 16, 0.0f);
  for (Index r = 0; r < rows; ++r)
    S::scale_store::load(s[1].data(), S::granularity::count(e), S::granularity::index(e, row + r, group), {out + r, 1});
}

constexpr int log2_of(int unit) { return unit <= 1 ? 0 : 1 + log2_of(unit / 2); }

}  // namespace detail

/// Rows begin .. end - 1 of y for `tokens` tokens, 1 to 4, of rounded activations. `spread` has spread_codes() of every segment
/// of each token, one after the other, tokens `stride` bytes apart. Sums are exact: with the scales of int8_rows' equation they
/// give its bits.
template <IntegerTrellis S, Index Tokens, class Arch = native_arch>
void trellis_int8_rows(const PackedTensor<S>& t, const RoundedActivations& x, const std::int8_t* spread, Index stride,
                       Index token, MutableMatrix y, Index begin, Index end) {
  using Tile = detail::TileBytes<S>;
  constexpr Index V = Tile::columns;
  constexpr int shift = detail::log2_of(Tile::unit), largest = Tile::largest;
  const Extents e = t.extents();
  const typename PackedTensor<S>::SectionsOf held(t.bytes());
  const Sections s = held;
  alignas(64) float scales[16], sums[16];
  alignas(64) std::int32_t offsets[16];
  std::fill_n(offsets, 16, -Tile::offset * Tile::unit);
  for (Index row = begin / 16 * 16; row < end; row += 16) {
    typename Arch::Floats total[static_cast<std::size_t>(Tokens)];
    for (auto& f : total) f = Arch::zero();
    const std::byte* const tiles = s[0].data() + S::tile_at(e, row, 0) * S::tile_bytes;
    Index index = 0, dword = 0, scaled_group = -1;
    for (Segment segment(e.cols, x.group, x.segment_cols); !segment.done(); segment.next(), ++index) {
      if (segment.group != scaled_group)
        detail::scales_of_rows<S>(s, e, row, segment.group, scales), scaled_group = segment.group;
      // Groups take turns with several sums: a dot product takes longer than until the next could start.
      constexpr Index turns = std::max<Index>(4 / Tokens, 1);
      typename Arch::Ints acc[static_cast<std::size_t>(turns)][static_cast<std::size_t>(Tokens)];
#pragma GCC unroll 4
      for (Index i = 0; i < Tokens; ++i) {
        acc[0][i] = Arch::products(offsets, x.sums[(token + i) * x.segments + index]);
#pragma GCC unroll 4
        for (Index turn = 1; turn < turns; ++turn) acc[turn][i] = Arch::equal(0);
      }
      for (Index col = segment.first; col < segment.end(); col += 16) {
        const Tile tile(tiles + col / 16 * S::tile_bytes);
        const std::int8_t* const from = spread + 4 * dword;
#pragma GCC unroll 16
        for (Index g = 0; g < 16 / V; ++g) {
          const auto bytes = tile.template get<Arch>(g);
#pragma GCC unroll 4
          for (Index i = 0; i < Tokens; ++i)
            acc[g % turns][i] = Arch::template dot4<largest>(acc[g % turns][i], bytes, from + i * stride + 4 * g);
        }
        dword += 16 / V;
      }
#pragma GCC unroll 4
      for (Index i = 0; i < Tokens; ++i) {
#pragma GCC unroll 4
        for (Index turn = 1; turn < turns; ++turn) acc[0][i] = Arch::add(acc[0][i], acc[turn][i]);
        const auto by =
            x.blocks ? Arch::scaled(Arch::load(scales), x.blocks[(token + i) * x.segments + index]) : Arch::load(scales);
        total[i] = Arch::multiply_add(Arch::template divided<shift>(acc[0][i]), by, total[i]);
      }
    }
    for (Index i = 0; i < Tokens; ++i) {
      Arch::store(sums, x.blocks ? total[i] : Arch::scaled(total[i], x.scales[token + i]));
      for (Index r = std::max(row, begin); r < std::min(row + 16, end); ++r) y(token + i, r) = sums[r - row];
    }
  }
}

/// y = x W^T, activations rounded to 8 bits, straight from the bits of the trellis.
template <IntegerTrellis S, Executor E>
void trellis_int8_matmul(const PackedTensor<S>& t, ConstMatrix x, MutableMatrix y, ActivationMode mode, Workspace& workspace,
                         E&& executor) {
  check_shapes(t.extents(), x, y);
  constexpr Index V = detail::TileBytes<S>::columns;
  const Index group = std::max<Index>(S::granularity::group_cols(x.cols), 1);
  const RoundedActivations rounded = round_activations(x, group, mode, workspace, executor);
  Index stride = 0;
  for (Segment s(x.cols, group, rounded.segment_cols); !s.done(); s.next()) stride += round_up(s.length, 16) / V * 4;
  auto* const spread = workspace.get<std::int8_t>(Workspace::tiled_codes, x.rows * stride + 64);
  executor.parallel_for(x.rows, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const std::int8_t* from = rounded.codes + i * rounded.stride;
      std::int8_t* to = spread + i * stride;
      for (Segment s(x.cols, group, rounded.segment_cols); !s.done(); s.next()) {
        const Index bytes = round_up(s.length, 16) / V * 4;
        std::fill_n(to, bytes, std::int8_t{0});
        spread_codes<V>(from, s.length, to);
        from += round_up(s.length, 4), to += bytes;
      }
    }
  });
  parallel_tiles(executor, t.rows(), row_grain, [&](Index begin, Index end) {
    Index i = 0;
    const auto go = [&]<Index Tokens>(std::integral_constant<Index, Tokens>) {
      for (; i + Tokens <= x.rows; i += Tokens)
        trellis_int8_rows<S, Tokens>(t, rounded, spread + i * stride, stride, i, y, begin, end);
    };
    go(std::integral_constant<Index, 4>{});
    go(std::integral_constant<Index, 2>{});
    go(std::integral_constant<Index, 1>{});
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
