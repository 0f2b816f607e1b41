#pragma once
// y = x W^T for trellis codes of whole numbers, in integers. Values that are sums of bytes of a product: 16 states of 16 rows are
// taken from the bits, multiplied and masked in registers, and a dot product of bytes meets them with the activations. Values of
// a linear codebook: 64 states become 64 bytes, four columns of 16 rows. Nothing is decoded to memory. For
// many tokens tiles become lines of bytes instead, once, for the loops of int8_rows.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <concepts>
#include <cstring>
#include <type_traits>

#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/trellis_tiles.hpp>
#include <anybit/simd/trellis_lines.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// A scheme whose products with 8-bit activations are integer ones, from its packed bytes.
template <class S>
concept IntegerTrellis = TrellisScheme<S> && (ByteSumCodebook<typename S::codebook> || LinearCodebook<typename S::codebook>);

/// Activations of a segment as the four bytes of each lane meet them: dword g belongs to step group g, whose V = 1 or 2 columns
/// share its bytes; 0 past the columns, to the end of their tile of 16. `out` has 64 / V bytes for each tile.
template <Index V>
ANYBIT_INLINE void spread_codes(const std::int8_t* codes, Index cols, std::int8_t* out) {
  for (Index c = 0; c < cols; c += 16, out += 64 / V) {
    std::int8_t tile[16] = {};
    std::memcpy(tile, codes + c, static_cast<std::size_t>(std::min<Index>(16, cols - c)));
    std::uint32_t words[static_cast<std::size_t>(16 / V)];
    if constexpr (V == 1) {
      for (Index g = 0; g < 16; ++g) words[g] = static_cast<std::uint8_t>(tile[g]) * 0x01010101u;  // constant length: vectorized
    } else {
      for (Index g = 0; g < 8; ++g)
        words[g] = static_cast<std::uint8_t>(tile[2 * g]) * 0x0101u | static_cast<std::uint8_t>(tile[2 * g + 1]) * 0x01010000u;
    }
    std::memcpy(out, words, sizeof words);
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

namespace detail {

/// Rows begin .. end - 1 of y for `Tokens` tokens, 1 to 8, from `token` on. Sums are exact: with the scales of int8_rows'
/// equation they give its bits.
template <IntegerTrellis S, Index Tokens, class Arch = native_arch>
void trellis_int8_rows(const PackedTensor<S>& t, const RoundedActivations& x, Index token, MutableMatrix y, Index begin,
                       Index end) {
  using Tile = TileBytes<S>;
  constexpr Index V = Tile::columns;
  constexpr int shift = log2_of(Tile::unit), largest = Tile::largest;
  const Extents e = t.extents();
  const typename PackedTensor<S>::SectionsOf held(t.bytes());
  const Sections s = held;
  alignas(64) float scales[16], sums[16];
  alignas(64) std::int32_t offsets[16];
  std::fill_n(offsets, 16, -Tile::offset * Tile::unit);
  constexpr auto N = static_cast<std::size_t>(Tokens);
  // Activations of a segment as bytes meet them, where that is not their own order.
  alignas(64) std::int8_t spread[N][static_cast<std::size_t>(V == 4 ? 1 : (max_segment + 16) / V * 4 + 64)];
  for (Index row = begin / 16 * 16; row < end; row += 16) {
    typename Arch::Floats total[N];
    for (auto& f : total) f = Arch::zero();
    const std::byte* const tiles = s[0].data() + S::tile_at(e, row, 0) * S::tile_bytes;
    Index index = 0, at = 0, scaled_group = -1;
    for (Segment segment(e.cols, x.group, x.segment_cols); !segment.done(); segment.next(), ++index) {
      if (segment.group != scaled_group) scales_of_rows<S>(s, e, row, segment.group, scales), scaled_group = segment.group;
      const std::int8_t* from[N];
      for (Index i = 0; i < Tokens; ++i) {
        from[i] = x.codes + (token + i) * x.stride + at;
        if constexpr (V != 4) {
          spread_codes<V>(from[i], segment.length, spread[i]);
          from[i] = spread[i];
        }
      }
      at += round_up(segment.length, 4);
      // Groups take turns with several sums: a dot product takes longer than until the next could start.
      constexpr Index turns = std::max<Index>(4 / Tokens, 1);
      typename Arch::Ints acc[static_cast<std::size_t>(turns)][N];
#pragma GCC unroll 8
      for (Index i = 0; i < Tokens; ++i) {
        acc[0][i] = Arch::products(offsets, x.sums[(token + i) * x.segments + index]);
#pragma GCC unroll 4
        for (Index turn = 1; turn < turns; ++turn) acc[turn][i] = Arch::equal(0);
      }
      Index dword = 0;
      const auto add = [&](const Tile& tile, Index g, auto& sum) __attribute__((always_inline)) {
        const auto bytes = tile.template get<Arch>(g);
#pragma GCC unroll 8
        for (Index i = 0; i < Tokens; ++i) sum[i] = Arch::template dot4<largest>(sum[i], bytes, from[i] + 4 * (dword + g));
      };
      for (Index col = segment.first; col < segment.end(); col += 16, dword += 16 / V) {
        const Tile tile(tiles + col / 16 * S::tile_bytes);
        if (V != 4 || col + 16 <= segment.end()) {
#pragma GCC unroll 16
          for (Index g = 0; g < 16 / V; ++g) add(tile, g, acc[g % turns]);
        } else {
          for (Index g = 0; V * g < segment.end() - col; ++g) add(tile, g, acc[0]);
        }
      }
#pragma GCC unroll 8
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

/// RowOps::integer_rows (kernel/row_decoder.hpp), straight from the bits of the trellis.
template <IntegerTrellis S>
void trellis_integer_rows(const void* tensor, const RoundedActivations& x, MutableMatrix y, Index begin, Index end) {
  const auto& t = *static_cast<const PackedTensor<S>*>(tensor);
  Index i = 0;
  const auto go = [&]<Index Tokens>(std::integral_constant<Index, Tokens>) {
    for (; i + Tokens <= x.tokens; i += Tokens) trellis_int8_rows<S, Tokens>(t, x, i, y, begin, end);
  };
  if constexpr (LinearCodebook<typename S::codebook>) go(std::integral_constant<Index, 8>{});  // decoding is most of the work
  go(std::integral_constant<Index, 4>{});
  go(std::integral_constant<Index, 2>{});
  go(std::integral_constant<Index, 1>{});
}

/// RowOps::lines: bytes u = value + TileBytes::offset, whole tiles.
template <IntegerTrellis S>
void trellis_lines(const void* tensor, Index row, Index first, Index n, std::uint8_t* out) {
  const auto& t = *static_cast<const PackedTensor<S>*>(tensor);
  const typename PackedTensor<S>::SectionsOf held(t.bytes());
  const std::byte* tile = Sections(held)[0].data() + S::tile_at(t.extents(), row, first) * S::tile_bytes;
  for (Index col = 0; col < n; col += 16, tile += S::tile_bytes)
    for (Index q = 0; q < 4; ++q, out += 64) {
      if constexpr (LinearCodebook<typename S::codebook>) {
        using Arch = native_arch;
        Arch::store_bytes(out, TileBytes<S>(tile).template get<Arch>(q));
      } else {
        using Book = typename S::codebook;
        constexpr Index V = S::step_weights;
        const TileOf<S> states(tile);
        for (Index r = 0; r < 16; r += simd::width) {
          simd::u32 line = simd::broadcast(std::uint32_t{0});
#pragma GCC unroll 4
          for (Index j = 0; j < 4; ++j) {
            const simd::u32 x =
                simd::multiply(states.states((4 * q + j) / V, r), simd::broadcast(std::uint32_t{Book::multiplier})) &
                simd::broadcast(std::uint32_t{Book::mask});
            const simd::u32 sum = V == 1 ? sum_of_bytes(x) : sum_of_pair(x, j % 2 == 1);
            line = line | simd::shift_left(simd::shift_right(sum, log2_of(Book::unit)), static_cast<int>(8 * j));
          }
          std::memcpy(out + 4 * r, &line, sizeof line);
        }
      }
    }
}
/// RowOps::affines of those bytes.
template <IntegerTrellis S>
void trellis_affines(const void* tensor, Index row, Index first_group, Index n, float* scales, std::int32_t* offsets) {
  const auto& t = *static_cast<const PackedTensor<S>*>(tensor);
  const Extents e = t.extents();
  const typename PackedTensor<S>::SectionsOf held(t.bytes());
  S::scale_store::load(Sections(held)[1].data(), S::granularity::count(e), S::granularity::index(e, row, first_group),
                       {scales, static_cast<std::size_t>(n)});
  std::fill_n(offsets, n, TileBytes<S>::offset);
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
