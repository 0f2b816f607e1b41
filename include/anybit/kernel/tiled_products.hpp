#pragma once
// y = x W^T with rounded activations and tiled weights. Few tokens, or few bits: codes are decoded in registers, several tiles
// at a time, or one where there is one token, so that memory is read as fast as it comes. Many tokens and bits: blocks of a few
// tiles are decoded into a panel once and multiplied with every token. Either way a value has the bits that int8_rows gives it.

#include <anybit/kernel/tiled_activations.hpp>
#include <anybit/kernel/tiled_weights.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

/// What tiles hold: codes of `Bits` bits that are bytes u up to MaxByte, or that a table turns into such.
template <int Bits, int MaxByte = (1 << Bits) - 1, bool LookedUp = false>
struct TileCodes {
  static constexpr int bits = Bits, max_byte = MaxByte;
  static constexpr bool looked_up = LookedUp;

  /// Decodes for one product.
  template <class Arch>
  class Reader {
   public:
    explicit ANYBIT_INLINE Reader(const TiledWeights& w) {
      if constexpr (LookedUp) table_.value = Arch::template load_table<Bits>(w.table.bytes.data());
    }
    template <int Step>
    ANYBIT_INLINE typename Arch::Bytes read(const std::byte* unit) const {
      const auto code = CodeLines<Bits>::template read<Arch, Step>(unit);
      if constexpr (LookedUp)
        return Arch::template look_up<Bits>(table_.value, code);
      else
        return code;
    }

   private:
    template <class A, bool>
    struct Held {
      typename A::template Table<Bits> value;
    };
    template <class A>
    struct Held<A, false> {};
    [[no_unique_address]] Held<Arch, LookedUp> table_;
  };
};

namespace detail {

/// Segments first .. last - 1 of some neighbouring tiles and a group of tokens.
struct TileTask {
  Index first, last;
  const std::byte* const* tiles;
  const std::byte* const* codes;  ///< of each tile, from segment `first` on: lines of the tile, or decoded bytes
  const std::int8_t* x;           ///< the group's activations, from segment `first` on
  const std::int32_t* x_starts;
  const float* x_scales;  ///< of the group's tokens
  const float* x_blocks;  ///< likewise of segment `first` on, or null
  bool done;              ///< the last segments of a row: sums get the tokens' scales
};

template <int Steps, class Use>
ANYBIT_INLINE void each_step(Use use) {
  [&]<int... Step>(std::integer_sequence<int, Step...>) __attribute__((always_inline)) {
    (use(std::integral_constant<int, Step>()), ...);
  }
  (std::make_integer_sequence<int, Steps>());
}

template <class Arch>
inline constexpr bool pairs_of_tokens = requires { typename Arch::TokenPair; };

/// y(token, row) for 16 rows a tile: 0 if the task has the first segments of a row, else what is there, plus the products of
/// `Codes`. 0 < Ahead asks for lines so many bytes ahead.
template <class Arch, class Codes, Index Ahead, int Tiles, int Tokens>
inline void tile_products(const TiledWeights& w, const TileTask& task, float* y, Index y_stride) {
  using Lines = CodeLines<Codes::bits>;
  constexpr int Bits = Codes::bits, MaxByte = Codes::max_byte;
  constexpr auto M = static_cast<std::size_t>(Tiles), N = static_cast<std::size_t>(Tokens);
  constexpr int bias = Arch::bias(MaxByte), deep = Arch::short_sums(MaxByte);
  const auto at = [&](std::size_t m, std::size_t t) {
    return y + static_cast<Index>(t) * y_stride + static_cast<Index>(m) * tile_rows;
  };
  const std::int8_t* x = task.x;
  const std::int32_t* x_starts = task.x_starts;
  const float* x_blocks = task.x_blocks;
  const std::byte* codes[M];
  const typename Codes::template Reader<Arch> reader(w);
  typename Arch::Floats total[M][N];
#pragma GCC unroll 8
  for (std::size_t m = 0; m < M; ++m) {
    codes[m] = task.codes[m];
#pragma GCC unroll 8
    for (std::size_t t = 0; t < N; ++t) total[m][t] = task.first == 0 ? Arch::zero() : Arch::load(at(m, t));
  }
  const Index tile_bytes = w.tile_bytes(), zeros_at = w.zeros_at(), codes_at = w.codes_at();
  // All scales at once, before the codes behind them: the processor then foresees one stream through tile after tile.
  if constexpr (Ahead > 0)
    for (Index line = 0; line < codes_at; line += line_bytes)
#pragma GCC unroll 8
      for (std::size_t m = 0; m < M; ++m) __builtin_prefetch(task.tiles[m] + line);
  // Where in their tiles the codes lie, and what will be read `Ahead` bytes later: there or in as many tiles behind these.
  Index code_at = codes_at, wanted = 0;
  const auto start_unit = [&]() __attribute__((always_inline)) {
    if constexpr (Ahead > 0) {
      wanted = code_at + Ahead;
      if (wanted >= tile_bytes) wanted += (Tiles - 1) * tile_bytes;
      code_at += Lines::bytes;
    }
  };
  // One step of the unit that starts at step k.
  const auto read_step = [&]<int Step>(std::integral_constant<int, Step>, Index k, auto& b) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (std::size_t m = 0; m < M; ++m) {
      b[m] = reader.template read<Step>(codes[m] + k * (8 * Bits));
      if constexpr (Ahead > 0 && Step < Lines::lines) __builtin_prefetch(task.tiles[m] + wanted + Step * line_bytes);
    }
  };
  const auto x_at = [&](Index step, std::size_t t) __attribute__((always_inline)) {
    return x + 4 * (static_cast<std::size_t>(step) * N + t);
  };
  // Tokens outside, tiles inside: an activation then stays in a register only as long as it is used.
  const auto add_step = [&](auto step, Index k, auto& sum) __attribute__((always_inline)) {
    typename Arch::Bytes b[M];
    read_step(step, k, b);
#pragma GCC unroll 8
    for (std::size_t t = 0; t < N; ++t)
#pragma GCC unroll 8
      for (std::size_t m = 0; m < M; ++m) sum[m][t] = Arch::template tile_dot4<MaxByte>(sum[m][t], b[m], x_at(k + step(), t));
  };
  for (Index s = task.first; s < task.last; ++s) {
    const Index steps = w.steps[static_cast<std::size_t>(s)];
    typename Arch::Ints dot[M][N];
#pragma GCC unroll 8
    for (std::size_t m = 0; m < M; ++m) {
      if (w.zero_points) {
        const std::byte* stored = task.tiles[m] + zeros_at + s * tile_rows;
        auto zeros = Arch::widen(reinterpret_cast<const std::uint8_t*>(stored));
        if constexpr (bias != 0) zeros = Arch::add(zeros, Arch::equal(-bias));
#pragma GCC unroll 8
        for (std::size_t t = 0; t < N; ++t) dot[m][t] = Arch::products(zeros, x_starts[t]);
      } else {
#pragma GCC unroll 8
        for (std::size_t t = 0; t < N; ++t) dot[m][t] = Arch::equal(x_starts[t]);
      }
    }
    if constexpr (pairs_of_tokens<Arch> && N % 2 == 0) {
      typename Arch::TokenPair pair[M][N / 2];
#pragma GCC unroll 8
      for (std::size_t m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (auto& p : pair[m]) p = Arch::no_pair();
      const auto add_two = [&](const auto& b, const auto& next, Index step) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (std::size_t t = 0; t < N; t += 2)
#pragma GCC unroll 8
          for (std::size_t m = 0; m < M; ++m)
            pair[m][t / 2] = Arch::tile_dot8(pair[m][t / 2], b[m], next[m], x_at(step, t), x_at(step + 1, t));
      };
      typename Arch::Bytes b[M], next[M];
      Index k = 0;
      if constexpr (Lines::steps == 1) {
        constexpr std::integral_constant<int, 0> whole{};
        for (; k + 2 <= steps; k += 2) {
          start_unit();
          read_step(whole, k, b);
          start_unit();
          read_step(whole, k + 1, next);
          add_two(b, next, k);
        }
        if (k < steps) {
          start_unit();
          add_step(whole, k, dot);
        }
      } else {
        for (; k < steps; k += Lines::steps) {
          start_unit();
          each_step<Lines::steps / 2>([&](auto half) __attribute__((always_inline)) {
            read_step(std::integral_constant<int, 2 * half()>(), k, b);
            read_step(std::integral_constant<int, 2 * half() + 1>(), k, next);
            add_two(b, next, k + 2 * half());
          });
        }
      }
#pragma GCC unroll 8
      for (std::size_t m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (std::size_t t = 0; t < N; t += 2) Arch::add_pair(dot[m][t], dot[m][t + 1], pair[m][t / 2]);
    } else if constexpr (deep == 0) {
      // Steps take turns with so many sums: a dot product takes longer than until the next could start.
      constexpr int turns = std::min(std::max(4 / (Tiles * Tokens), 1), Lines::steps);
      typename Arch::Ints other[static_cast<std::size_t>(turns)][M][N];  // [0] is dot
#pragma GCC unroll 4
      for (int i = 1; i < turns; ++i)
#pragma GCC unroll 8
        for (std::size_t m = 0; m < M; ++m)
#pragma GCC unroll 8
          for (std::size_t t = 0; t < N; ++t) other[i][m][t] = Arch::equal(0);
      for (Index k = 0; k < steps; k += Lines::steps) {
        start_unit();
        each_step<Lines::steps>([&](auto step) __attribute__((always_inline)) {
          constexpr int turn = step() % turns;
          if constexpr (turn == 0)
            add_step(step, k, dot);
          else
            add_step(step, k, other[turn]);
        });
      }
#pragma GCC unroll 4
      for (int i = 1; i < turns; ++i)
#pragma GCC unroll 8
        for (std::size_t m = 0; m < M; ++m)
#pragma GCC unroll 8
          for (std::size_t t = 0; t < N; ++t) dot[m][t] = Arch::add(dot[m][t], other[i][m][t]);
    } else {
      // Sums of 16 bits, as long as they cannot overflow.
      typename Arch::Shorts part[M][N];
      const auto restart = [&](bool add) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (std::size_t m = 0; m < M; ++m)
#pragma GCC unroll 8
          for (std::size_t t = 0; t < N; ++t) {
            if (add) dot[m][t] = Arch::add(dot[m][t], part[m][t]);
            part[m][t] = Arch::no_shorts();
          }
      };
      for (Index k = 0; k < steps;) {
        restart(false);
        const Index stop = std::min<Index>(steps, k + std::max(deep / Lines::steps, 1) * Lines::steps);
        for (; k < stop; k += Lines::steps) {
          start_unit();
          each_step<Lines::steps>([&](auto step) __attribute__((always_inline)) {
            if constexpr (step() > 0 && step() % deep == 0) restart(true);
            add_step(step, k, part);
          });
        }
        restart(true);
      }
    }
#pragma GCC unroll 8
    for (std::size_t m = 0; m < M; ++m) {
      const std::byte* stored = task.tiles[m] + s * w.scale_bytes();
      const auto scale =
          Arch::scaled(w.half_scales ? Arch::load_f16(stored) : Arch::load(reinterpret_cast<const float*>(stored)), w.factor);
#pragma GCC unroll 8
      for (std::size_t t = 0; t < N; ++t)
        total[m][t] = Arch::multiply_add(dot[m][t], x_blocks ? Arch::scaled(scale, x_blocks[t]) : scale, total[m][t]);
      codes[m] += steps * (8 * Bits);
    }
    x += 4 * steps * Tokens;
    x_starts += Tokens;
    if (x_blocks) x_blocks += Tokens;
  }
#pragma GCC unroll 8
  for (std::size_t m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (std::size_t t = 0; t < N; ++t)
      Arch::store(at(m, t), task.done ? Arch::scaled(total[m][t], task.x_scales[t]) : total[m][t]);
}

/// Rows begin .. end - 1 of tiles tile .. tile + Tiles - 1, tokens token .. token + Tokens - 1 of y.
template <class Arch, class Codes, Index Ahead, int Tiles, int Tokens>
inline void tiles_to_y(const TiledWeights& w, const TileTask& task, MutableMatrix y, Index tile, Index token, Index begin,
                       Index end) {
  const Index row = tile * tile_rows, from = std::max(begin, row), to = std::min(end, row + Tiles * tile_rows);
  if (from == row && to == row + Tiles * tile_rows)
    return tile_products<Arch, Codes, Ahead, Tiles, Tokens>(w, task, y.data + token * y.stride + row, y.stride);
  alignas(64) float some[static_cast<std::size_t>(Tokens)][static_cast<std::size_t>(Tiles * tile_rows)];
  const auto bytes = static_cast<std::size_t>(to - from) * sizeof(float);
  const auto in_y = [&](Index t) { return y.data + (token + t) * y.stride + from; };
  for (Index t = 0; t < Tokens && task.first > 0; ++t) std::memcpy(some[t] + (from - row), in_y(t), bytes);
  tile_products<Arch, Codes, Ahead, Tiles, Tokens>(w, task, some[0], Tiles * tile_rows);
  for (Index t = 0; t < Tokens; ++t) std::memcpy(in_y(t), some[t] + (from - row), bytes);
}

/// Straight from the lines, whole rows at once.
template <class Arch, class Codes>
inline void tiled_rows_direct(const TiledWeights& w, const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  const Index tile_begin = begin / tile_rows, tile_end = ceil_div(end, tile_rows);
  in_powers<Arch::token_group>(x.tokens, [&](auto tokens, Index token) {
    const auto multiply = [&](auto tiles, Index i) {
      const std::byte *starts[static_cast<std::size_t>(tiles())], *codes[static_cast<std::size_t>(tiles())];
      for (Index m = 0; m < tiles(); ++m) starts[m] = w.tile(tile_begin + i + m), codes[m] = starts[m] + w.codes_at();
      const TileTask task{0,
                          w.segments(),
                          starts,
                          codes,
                          x.codes + token * x.stride,
                          x.starts + token * x.segments,
                          x.scales + token,
                          x.blocks ? x.blocks + token * x.segments : nullptr,
                          true};
      tiles_to_y<Arch, Codes, Arch::ahead, tiles(), tokens()>(w, task, y, tile_begin + i, token, begin, end);
    };
    // For one token tiles are read one after the other, as one stream, which is what hardware foresees best. With more there is
    // time.
    in_most_or_one<tokens() == 1 ? 1 : std::clamp(Arch::direct_sums / tokens(), 1, Arch::direct_tiles)>(tile_end - tile_begin,
                                                                                                        multiply);
  });
}

/// The largest MaxByte for which Arch multiplies as it does for this one: kernels of decoded bytes are shared by so many formats.
template <class Arch>
constexpr int same_products(int max_byte) {
  int largest = max_byte;
  while (largest < 255 && Arch::bias(largest + 1) == Arch::bias(max_byte) &&
         Arch::short_sums(largest + 1) == Arch::short_sums(max_byte))
    ++largest;
  return largest;
}

/// Segments of some neighbouring tiles, decoded to bytes, times every token.
template <class Arch, int MaxByte, int Tiles>
void panels_to_y(const TiledWeights& w, const TiledActivations& x, Index first, Index last, Index step, Index steps,
                 const std::byte* const* tiles, const std::byte* const* panels, MutableMatrix y, Index tile, Index begin,
                 Index end) {
  const bool done = last == w.segments();
  // What the next panels are made of comes in while these are in use, a slice for every group of tokens.
  const Index next = done ? Tiles * w.tile_bytes() : w.codes_at() + (step + steps) * w.step_bytes();
  const Index slice = round_up(steps * w.step_bytes() * Arch::token_group / x.tokens, line_bytes);
  in_powers<Arch::token_group>(x.tokens, [&](auto tokens, Index token) {
    if constexpr (Arch::ahead > 0)
      for (Index m = 0; m < Tiles; ++m)
        for (Index at = 0; at < slice; at += line_bytes)
          __builtin_prefetch(tiles[m] + next + token / Arch::token_group * slice + at);
    const TileTask task{first,
                        last,
                        tiles,
                        panels,
                        x.codes + token * x.stride + 4 * tokens() * step,
                        x.starts + token * x.segments + tokens() * first,
                        x.scales + token,
                        x.blocks ? x.blocks + token * x.segments + tokens() * first : nullptr,
                        done};
    tiles_to_y<Arch, TileCodes<8, MaxByte>, 0, Tiles, tokens()>(w, task, y, tile, token, begin, end);
  });
}

/// By way of a panel of segments, decoded once.
template <class Arch, class Codes>
inline void tiled_rows_blocked(const TiledWeights& w, const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  // Two panels leave room in a second-level cache. Fewer, longer ones would read and write y less often.
  constexpr Index most_steps = 512;
  constexpr int Bits = Codes::bits;
  static_assert(most_steps >= max_segment / 4 + 8);
  const Index tile_begin = begin / tile_rows, tile_end = ceil_div(end, tile_rows), segments = w.segments();
  const typename Codes::template Reader<Arch> reader(w);
  alignas(64) std::byte bytes[Arch::blocked_tiles][static_cast<std::size_t>(line_bytes * most_steps)];
  in_most_or_one<Arch::blocked_tiles>(tile_end - tile_begin, [&](auto tiles, Index i) {
    const std::byte *starts[static_cast<std::size_t>(tiles())], *panels[static_cast<std::size_t>(tiles())];
    for (Index m = 0; m < tiles(); ++m) starts[m] = w.tile(tile_begin + i + m), panels[m] = bytes[m];
    Index step = 0;
    for (Index first = 0, last = 0; first < segments; first = last) {
      Index steps = 0;
      for (; last < segments && steps + w.steps[static_cast<std::size_t>(last)] <= most_steps; ++last)
        steps += w.steps[static_cast<std::size_t>(last)];
      for (Index m = 0; m < tiles(); ++m)
        for (Index k = 0; k < steps; k += CodeLines<Bits>::steps)
          each_step<static_cast<int>(unit_steps(Bits))>([&](auto in_unit) __attribute__((always_inline)) {
            Arch::store_bytes(reinterpret_cast<std::uint8_t*>(bytes[m] + (k + in_unit()) * line_bytes),
                              reader.template read<in_unit()>(starts[m] + w.codes_at() + (step + k) * (8 * Bits)));
          });
      panels_to_y<Arch, same_products<Arch>(Codes::max_byte), tiles()>(w, x, first, last, step, steps, starts, panels, y,
                                                                       tile_begin + i, begin, end);
      step += steps;
    }
  });
}

}  // namespace detail

/// Rows begin .. end - 1 of weights with at least one column: y(token, row). Allocates nothing. Codes must be what w holds.
template <class Codes, class Arch = native_arch>
void tiled_rows(const TiledWeights& w, const TiledActivations& x, MutableMatrix y, Index begin, Index end) {
  if constexpr (Codes::bits > Arch::direct_bits)
    if (x.tokens > Arch::direct_tokens) return detail::tiled_rows_blocked<Arch, Codes>(w, x, y, begin, end);
  detail::tiled_rows_direct<Arch, Codes>(w, x, y, begin, end);
}

}  // namespace anybit::kernel::inline ANYBIT_CODE
