#pragma once
// y = x W^T with rounded activations and tiled weights. Few tokens: codes are unpacked in registers, several tiles at a time,
// so that memory is read as fast as it comes. Many tokens: blocks of two tiles are unpacked into the first-level cache once
// and multiplied with every token. Either way a value has the bits that int8_rows gives it.

#include <anybit/kernel/tiled_weights.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

namespace detail {

/// Adds the products of segments first .. last - 1 of `Tiles` tiles with `Tokens` tokens to sums[tile][token][row].
/// stream[tile] is where segment `first` of a tile starts. `unpacked` is null, and codes are unpacked from the stream, or it
/// has their bytes, unpacked before. x are the activations of segment `first`.
template <class Arch, int MaxByte, int Bits, int Tiles, int Tokens>
inline void tile_products(const TiledWeights& w, Index first, Index last, const std::byte* const* tile_streams,
                          const std::uint8_t* const* unpacked, const std::int8_t* x, Index x_stride, const std::int32_t* x_sums,
                          Index sums_stride, float* sums) {
  constexpr auto M = static_cast<std::size_t>(Tiles), N = static_cast<std::size_t>(Tokens);
  constexpr Index step_bytes = 8 * Bits, ahead = 1024;
  const auto unpack = Arch::template unpacker<Bits>();
  const std::byte *stream[M], *codes[M], *tail[M];
  typename Arch::Floats total[M][N];
#pragma GCC unroll 8
  for (std::size_t m = 0; m < M; ++m) {
    stream[m] = tile_streams[m];
    codes[m] = unpacked ? reinterpret_cast<const std::byte*>(unpacked[m]) : stream[m];
#pragma GCC unroll 8
    for (std::size_t t = 0; t < N; ++t) total[m][t] = Arch::load(sums + 16 * (m * N + t));
  }
  for (Index s = first; s < last; ++s) {
    const Index steps = w.steps[static_cast<std::size_t>(s)];
    typename Arch::Ints dot[M][N];
#pragma GCC unroll 8
    for (std::size_t m = 0; m < M; ++m) {
      tail[m] = stream[m] + steps * w.step_bytes();
#pragma GCC unroll 8
      for (std::size_t t = 0; t < N; ++t) dot[m][t] = Arch::equal(w.lowest * x_sums[static_cast<Index>(t) * sums_stride + s]);
      if (w.zero_points) {
        const auto zeros = Arch::widen(reinterpret_cast<const std::uint8_t*>(tail[m] + w.scale_bytes()));
#pragma GCC unroll 8
        for (std::size_t t = 0; t < N; ++t)
          dot[m][t] = Arch::add(dot[m][t], Arch::products(zeros, x_sums[static_cast<Index>(t) * sums_stride + s]));
      }
    }
    for (Index k = 0; k < steps; ++k) {
#pragma GCC unroll 8
      for (std::size_t m = 0; m < M; ++m) {
        const auto b = unpack(codes[m] + k * step_bytes);
        if constexpr (Bits < 8) __builtin_prefetch(codes[m] + k * step_bytes + ahead);
#pragma GCC unroll 8
        for (std::size_t t = 0; t < N; ++t)
          dot[m][t] = Arch::template dot4<MaxByte>(dot[m][t], b, x + static_cast<Index>(t) * x_stride + 4 * k);
      }
    }
#pragma GCC unroll 8
    for (std::size_t m = 0; m < M; ++m) {
      const auto stored = w.half_scales ? Arch::load_f16(tail[m]) : Arch::load(reinterpret_cast<const float*>(tail[m]));
      const auto scale = Arch::scaled(stored, w.factor);
#pragma GCC unroll 8
      for (std::size_t t = 0; t < N; ++t) total[m][t] = Arch::multiply_add(dot[m][t], scale, total[m][t]);
      stream[m] = tail[m] + w.tail_bytes();
      codes[m] = unpacked ? codes[m] + steps * step_bytes : stream[m];
    }
    x += 4 * steps;
  }
#pragma GCC unroll 8
  for (std::size_t m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (std::size_t t = 0; t < N; ++t) Arch::store(sums + 16 * (m * N + t), total[m][t]);
}

/// One call of tile_products and its way into y: tiles tile .. tile + Tiles - 1 and tokens token .. token + Tokens - 1, of
/// which rows begin .. end - 1 are wanted. Unscaled sums wait in y between blocks of segments.
template <class Arch, int MaxByte, int Bits, int Tiles, int Tokens>
inline void tiles_to_y(const TiledWeights& w, Index first, Index last, const std::byte* const* streams,
                       const std::uint8_t* const* unpacked, const RoundedActivations& x, Index x_at, Index tile, Index token,
                       MutableMatrix y, Index begin, Index end) {
  alignas(64) float sums[static_cast<std::size_t>(Tiles * Tokens)][static_cast<std::size_t>(tile_rows)] = {};
  const auto each = [&](auto&& use) {
    for (Index m = 0; m < Tiles; ++m) {
      const Index row = (tile + m) * tile_rows, from = std::max(begin, row), to = std::min(end, row + tile_rows);
      for (Index t = 0; t < Tokens && from < to; ++t)
        use(sums[m * Tokens + t] + (from - row), y.data + (token + t) * y.stride + from,
            static_cast<std::size_t>(to - from) * sizeof(float));
    }
  };
  if (first > 0) each([](float* sum, const float* value, std::size_t bytes) { std::memcpy(sum, value, bytes); });
  tile_products<Arch, MaxByte, Bits, Tiles, Tokens>(w, first, last, streams, unpacked, x.codes + token * x.stride + x_at,
                                                    x.stride, x.sums + token * x.segments, x.segments, &sums[0][0]);
  if (last == static_cast<Index>(w.steps.size()))
    for (Index m = 0; m < Tiles; ++m)
      for (Index t = 0; t < Tokens; ++t)
        Arch::store(sums[m * Tokens + t], Arch::scaled(Arch::load(sums[m * Tokens + t]), x.scales[token + t]));
  each([](const float* sum, float* value, std::size_t bytes) { std::memcpy(value, sum, bytes); });
}

/// Calls use(size, at) with sizes Most, Most / 2, .. 1 until n is covered.
template <int Most, class Use>
inline void in_powers(Index n, Use use) {
  Index at = 0;
  for (; n - at >= Most; at += Most) use(std::integral_constant<int, Most>(), at);
  if constexpr (Most > 1) in_powers<Most / 2>(n - at, [&](auto size, Index more) { use(size, at + more); });
}

/// Few tokens: straight from the stream, whole rows at once.
template <class Arch, int MaxByte, int Bits>
inline void tiled_rows_direct(const TiledWeights& w, const RoundedActivations& x, MutableMatrix y, Index begin, Index end) {
  const Index tile_begin = begin / tile_rows, tile_end = ceil_div(end, tile_rows), segments = static_cast<Index>(w.steps.size());
  in_powers<Arch::direct_sums>(x.tokens, [&](auto tokens, Index token) {
    in_powers<Arch::direct_sums / tokens()>(tile_end - tile_begin, [&](auto tiles, Index i) {
      const std::byte* streams[static_cast<std::size_t>(tiles())];
      for (Index m = 0; m < tiles(); ++m) streams[m] = w.tile(tile_begin + i + m);
      tiles_to_y<Arch, MaxByte, Bits, tiles(), tokens()>(w, 0, segments, streams, nullptr, x, 0, tile_begin + i, token, y, begin,
                                                         end);
    });
  });
}

/// Many tokens: block by block of segments, unpacked once.
template <class Arch, int MaxByte, int Bits>
inline void tiled_rows_blocked(const TiledWeights& w, const RoundedActivations& x, MutableMatrix y, Index begin, Index end) {
  constexpr Index block_steps = block_cols / 4;
  const Index tile_begin = begin / tile_rows, tile_end = ceil_div(end, tile_rows), segments = static_cast<Index>(w.steps.size());
  in_powers<Arch::blocked_tiles>(tile_end - tile_begin, [&](auto tiles, Index i) {
    alignas(64) std::uint8_t bytes[static_cast<std::size_t>(tiles())][static_cast<std::size_t>(64 * block_steps)];
    const std::byte *streams[static_cast<std::size_t>(tiles())], *next[static_cast<std::size_t>(tiles())];
    const std::uint8_t* unpacked[static_cast<std::size_t>(tiles())];
    for (Index m = 0; m < tiles(); ++m) next[m] = w.tile(tile_begin + i + m), unpacked[m] = bytes[m];
    for (Index first = 0, last = 0, x_at = 0; first < segments; first = last) {
      Index steps = 0;
      for (Index m = 0; m < tiles(); ++m) streams[m] = next[m];
      for (last = first; last < segments && steps + w.steps[static_cast<std::size_t>(last)] <= block_steps; ++last) {
        const Index here = w.steps[static_cast<std::size_t>(last)];
        for (Index m = 0; m < tiles(); ++m) {
          simd::unpack_bits<Bits>(next[m], bytes[m] + 64 * steps, 64 * here);
          next[m] += here * w.step_bytes() + w.tail_bytes();
        }
        steps += here;
      }
      in_powers<Arch::blocked_tokens>(x.tokens, [&](auto tokens, Index token) {
        tiles_to_y<Arch, MaxByte, 8, tiles(), tokens()>(w, first, last, streams, unpacked, x, x_at, tile_begin + i, token, y,
                                                        begin, end);
      });
      x_at += 4 * steps;
    }
  });
}

/// Rows begin .. end - 1, as int8_rows.
template <class Arch, int Bits>
inline void tiled_rows(const TiledWeights& w, const RoundedActivations& x, MutableMatrix y, Index begin, Index end) {
  constexpr int max_byte = Bits <= 7 ? 128 : 255;
  if (x.tokens <= Arch::direct_tokens)
    tiled_rows_direct<Arch, max_byte, Bits>(w, x, y, begin, end);
  else
    tiled_rows_blocked<Arch, max_byte, Bits>(w, x, y, begin, end);
}

}  // namespace detail

/// Rows begin .. end - 1 of weights with at least one column: y(token, row). Allocates nothing. Bits must be w.bits.
template <int Bits, class Arch = native_arch>
void tiled_rows(const TiledWeights& w, const RoundedActivations& x, MutableMatrix y, Index begin, Index end) {
  detail::tiled_rows<Arch, Bits>(w, x, y, begin, end);
}

}  // namespace anybit::kernel::inline ANYBIT_CODE
