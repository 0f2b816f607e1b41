#pragma once
// y = x W^T with rounded activations and tiled weights. Few tokens: codes are unpacked in registers, several tiles at a time,
// so that memory is read as fast as it comes. Many tokens: blocks of two tiles are unpacked into the first-level cache once
// and multiplied with every token. Either way a value has the bits that int8_rows gives it.

#include <anybit/kernel/tiled_activations.hpp>
#include <anybit/kernel/tiled_weights.hpp>
#include <anybit/simd/bit_stream.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

namespace detail {

/// Segments first .. last - 1 of some neighbouring tiles and a group of tokens.
struct TileTask {
  Index first, last;
  const std::byte* const* streams;      ///< where segment `first` of each tile starts
  const std::uint8_t* const* unpacked;  ///< null: codes come from the stream; else their bytes, unpacked before
  const std::int8_t* x;                 ///< the group's activations, from segment `first` on
  const std::int32_t* x_sums;
  const float* x_scales;  ///< of the group's tokens
  bool done;              ///< the last segments of a row: sums get the tokens' scales
};

/// y(token, row) for 16 rows a tile: 0 if the task has the first segments of a row, else what is there, plus the products.
template <class Arch, int MaxByte, int Bits, int Tiles, int Tokens>
inline void tile_products(const TiledWeights& w, const TileTask& task, float* y, Index y_stride) {
  constexpr auto M = static_cast<std::size_t>(Tiles), N = static_cast<std::size_t>(Tokens);
  constexpr Index step_bytes = 8 * Bits, ahead = 1024;
  const auto unpack = Arch::template unpacker<Bits>();
  const auto at = [&](std::size_t m, std::size_t t) {
    return y + static_cast<Index>(t) * y_stride + static_cast<Index>(m) * tile_rows;
  };
  const bool packed = task.unpacked == nullptr;
  const std::int8_t* x = task.x;
  const std::int32_t* x_sums = task.x_sums;
  const std::byte *stream[M], *codes[M], *tail[M];
  typename Arch::Floats total[M][N];
#pragma GCC unroll 8
  for (std::size_t m = 0; m < M; ++m) {
    stream[m] = task.streams[m];
    codes[m] = packed ? stream[m] : reinterpret_cast<const std::byte*>(task.unpacked[m]);
#pragma GCC unroll 8
    for (std::size_t t = 0; t < N; ++t) total[m][t] = task.first == 0 ? Arch::zero() : Arch::load(at(m, t));
  }
  for (Index s = task.first; s < task.last; ++s) {
    const Index steps = w.steps[static_cast<std::size_t>(s)];
    typename Arch::Ints dot[M][N];
#pragma GCC unroll 8
    for (std::size_t m = 0; m < M; ++m) {
      tail[m] = stream[m] + steps * w.step_bytes();
      if (w.zero_points) {
        const auto zeros = Arch::widen(reinterpret_cast<const std::uint8_t*>(tail[m] + w.scale_bytes()));
#pragma GCC unroll 8
        for (std::size_t t = 0; t < N; ++t) dot[m][t] = Arch::products(zeros, x_sums[t]);
      } else {
#pragma GCC unroll 8
        for (std::size_t t = 0; t < N; ++t) dot[m][t] = Arch::equal(x_sums[t]);
      }
    }
    // Tokens outside, tiles inside: an activation then stays in a register only as long as it is used.
    for (Index k = 0; k < steps; ++k) {
      typename Arch::Bytes b[M];
#pragma GCC unroll 8
      for (std::size_t m = 0; m < M; ++m) {
        b[m] = unpack(codes[m] + k * step_bytes);
        if constexpr (Bits < 8) __builtin_prefetch(codes[m] + k * step_bytes + ahead);
      }
#pragma GCC unroll 8
      for (std::size_t t = 0; t < N; ++t)
#pragma GCC unroll 8
        for (std::size_t m = 0; m < M; ++m)
          dot[m][t] = Arch::template dot4<MaxByte>(dot[m][t], b[m], x + 4 * (static_cast<std::size_t>(k) * N + t));
    }
#pragma GCC unroll 8
    for (std::size_t m = 0; m < M; ++m) {
      const auto stored = w.half_scales ? Arch::load_f16(tail[m]) : Arch::load(reinterpret_cast<const float*>(tail[m]));
      const auto scale = Arch::scaled(stored, w.factor);
#pragma GCC unroll 8
      for (std::size_t t = 0; t < N; ++t) total[m][t] = Arch::multiply_add(dot[m][t], scale, total[m][t]);
      stream[m] = tail[m] + w.tail_bytes();
      codes[m] = packed ? stream[m] : codes[m] + steps * step_bytes;
    }
    x += 4 * steps * Tokens;
    x_sums += Tokens;
  }
#pragma GCC unroll 8
  for (std::size_t m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (std::size_t t = 0; t < N; ++t)
      Arch::store(at(m, t), task.done ? Arch::scaled(total[m][t], task.x_scales[t]) : total[m][t]);
}

/// Rows begin .. end - 1 of tiles tile .. tile + Tiles - 1, tokens token .. token + Tokens - 1 of y.
template <class Arch, int MaxByte, int Bits, int Tiles, int Tokens>
inline void tiles_to_y(const TiledWeights& w, const TileTask& task, MutableMatrix y, Index tile, Index token, Index begin,
                       Index end) {
  const Index row = tile * tile_rows, from = std::max(begin, row), to = std::min(end, row + Tiles * tile_rows);
  if (from == row && to == row + Tiles * tile_rows)
    return tile_products<Arch, MaxByte, Bits, Tiles, Tokens>(w, task, y.data + token * y.stride + row, y.stride);
  alignas(64) float some[static_cast<std::size_t>(Tokens)][static_cast<std::size_t>(Tiles * tile_rows)];
  const auto bytes = static_cast<std::size_t>(to - from) * sizeof(float);
  const auto in_y = [&](Index t) { return y.data + (token + t) * y.stride + from; };
  for (Index t = 0; t < Tokens && task.first > 0; ++t) std::memcpy(some[t] + (from - row), in_y(t), bytes);
  tile_products<Arch, MaxByte, Bits, Tiles, Tokens>(w, task, some[0], Tiles * tile_rows);
  for (Index t = 0; t < Tokens; ++t) std::memcpy(in_y(t), some[t] + (from - row), bytes);
}

/// Few tokens: straight from the stream, whole rows at once.
template <class Arch, int MaxByte, int Bits>
inline void tiled_rows_direct(const TiledWeights& w, const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  const Index tile_begin = begin / tile_rows, tile_end = ceil_div(end, tile_rows), segments = static_cast<Index>(w.steps.size());
  in_powers<Arch::token_group>(x.tokens, [&](auto tokens, Index token) {
    in_powers<std::clamp(Arch::direct_sums / tokens(), 1, Arch::direct_tiles)>(tile_end - tile_begin, [&](auto tiles, Index i) {
      const std::byte* streams[static_cast<std::size_t>(tiles())];
      for (Index m = 0; m < tiles(); ++m) streams[m] = w.tile(tile_begin + i + m);
      const TileTask task{
          0, segments, streams, nullptr, x.codes + token * x.stride, x.sums + token * x.segments, x.scales + token, true};
      tiles_to_y<Arch, MaxByte, Bits, tiles(), tokens()>(w, task, y, tile_begin + i, token, begin, end);
    });
  });
}

/// Many tokens: block by block of segments, unpacked once.
template <class Arch, int MaxByte, int Bits>
inline void tiled_rows_blocked(const TiledWeights& w, const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  constexpr Index block_steps = max_segment / 4;
  const Index tile_begin = begin / tile_rows, tile_end = ceil_div(end, tile_rows), segments = static_cast<Index>(w.steps.size());
  in_powers<Arch::blocked_tiles>(tile_end - tile_begin, [&](auto tiles, Index i) {
    alignas(64) std::uint8_t bytes[static_cast<std::size_t>(tiles())][static_cast<std::size_t>(64 * block_steps)];
    const std::byte *streams[static_cast<std::size_t>(tiles())], *next[static_cast<std::size_t>(tiles())];
    const std::uint8_t* unpacked[static_cast<std::size_t>(tiles())];
    for (Index m = 0; m < tiles(); ++m) next[m] = w.tile(tile_begin + i + m), unpacked[m] = bytes[m];
    for (Index first = 0, last = 0, step = 0; first < segments; first = last) {
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
      in_powers<Arch::token_group>(x.tokens, [&](auto tokens, Index token) {
        const TileTask task{first,
                            last,
                            streams,
                            unpacked,
                            x.codes + token * x.stride + 4 * tokens() * step,
                            x.sums + token * x.segments + tokens() * first,
                            x.scales + token,
                            last == segments};
        tiles_to_y<Arch, MaxByte, 8, tiles(), tokens()>(w, task, y, tile_begin + i, token, begin, end);
      });
      step += steps;
    }
  });
}

}  // namespace detail

/// Rows begin .. end - 1 of weights with at least one column: y(token, row). Allocates nothing. Bits must be w.bits.
template <int Bits, class Arch = native_arch>
void tiled_rows(const TiledWeights& w, const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  constexpr int max_byte = Bits <= 7 ? 128 : 255;
  if (x.tokens <= Arch::direct_tokens)
    detail::tiled_rows_direct<Arch, max_byte, Bits>(w, x, y, begin, end);
  else
    detail::tiled_rows_blocked<Arch, max_byte, Bits>(w, x, y, begin, end);
}

}  // namespace anybit::kernel::inline ANYBIT_CODE
