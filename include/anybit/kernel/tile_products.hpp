#pragma once
// A few neighbouring tiles times a few tokens: the innermost loops, written once over a vocabulary (dot_vocabulary.hpp) and
// compiled for every width of codes. tiled_products.hpp loops over all tiles and tokens with them.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>
#include <utility>

#include <anybit/kernel/tiled_activations.hpp>
#include <anybit/kernel/tiled_weights.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// What tiles hold: codes of `Bits` bits that are bytes u up to MaxByte if multiplied by 2^Up, or that a table turns into such.
template <int Bits, int MaxByte = (1 << Bits) - 1, bool LookedUp = false, int Up = 0>
struct TileCodes {
  static_assert(!LookedUp || Up == 0);
  static constexpr int bits = Bits, max_byte = MaxByte, up = Up;
  static constexpr bool looked_up = LookedUp;

  /// Decodes for one product.
  template <class Arch>
  class Reader {
   public:
    explicit ANYBIT_INLINE Reader(const TiledWeights& w) {
      if constexpr (LookedUp) table_.value = Arch::template load_table<Bits>(w.table.bytes.data());
    }
    /// u * 2^(Raised - Up)
    template <int Step, int Raised = Up>
    ANYBIT_INLINE typename Arch::Bytes read(const std::byte* unit) const {
      const auto code = CodeLines<Bits>::template read<Arch, Step, Raised>(unit);
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
  }(std::make_integer_sequence<int, Steps>());
}

template <class Arch>
inline constexpr bool pairs_of_tokens = requires { typename Arch::TokenPair; };

/// y(token, row) for 16 rows a tile: 0 if the task has the first segments of a row, else what is there, plus the products of
/// `Codes`. 0 < Ahead asks for lines so many bytes ahead.
template <class Arch, class Codes, Index Ahead, int Tiles, int Tokens>
void tile_products(const TiledWeights& w, const TileTask& task, float* y, Index y_stride) {
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
  // u * 2^(Raised - up) of one step of the unit that starts at step k.
  constexpr std::integral_constant<int, Codes::up> as_is{};
  const auto read_step = [&]<int Step, int Raised>(std::integral_constant<int, Step>, Index k, auto& b,
                                                   std::integral_constant<int, Raised>) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (std::size_t m = 0; m < M; ++m) {
      b[m] = reader.template read<Step, Raised>(codes[m] + k * (8 * Bits));
      if constexpr (Ahead > 0 && Step < Lines::lines) __builtin_prefetch(task.tiles[m] + wanted + Step * line_bytes);
    }
  };
  const auto x_at = [&](Index step, std::size_t t)
                        __attribute__((always_inline)) { return x + 4 * (static_cast<std::size_t>(step) * N + t); };
  // Tokens outside, tiles inside: an activation then stays in a register only as long as it is used.
  const auto add_step = [&](auto step, Index k, auto& sum, auto raised) __attribute__((always_inline)) {
    typename Arch::Bytes b[M];
    read_step(step, k, b, raised);
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
          read_step(whole, k, b, as_is);
          start_unit();
          read_step(whole, k + 1, next, as_is);
          add_two(b, next, k);
        }
        if (k < steps) {
          start_unit();
          add_step(whole, k, dot, as_is);
        }
      } else {
        for (; k < steps; k += Lines::steps) {
          start_unit();
          each_step<Lines::steps / 2>([&](auto half) __attribute__((always_inline)) {
            read_step(std::integral_constant<int, 2 * half()>(), k, b, as_is);
            read_step(std::integral_constant<int, 2 * half() + 1>(), k, next, as_is);
            add_two(b, next, k + 2 * half());
          });
        }
      }
#pragma GCC unroll 8
      for (std::size_t m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (std::size_t t = 0; t < N; t += 2) Arch::add_pair(dot[m][t], dot[m][t + 1], pair[m][t / 2]);
    } else if constexpr (deep == 0) {
      if constexpr (Tiles * Tokens == 1) {
        // Steps take turns with several sums: a dot product takes longer than until the next could start. Where bytes are
        // multiplied as they are, the codes of a turn stay at the bit where the first one lies, and its sum is shifted instead.
        // No byte gets larger than one of 8 bits, so sums fit as they do there.
        constexpr int turns = std::min(4, Lines::steps);
        constexpr bool in_place = !Codes::looked_up && Arch::bias(255) == 0 && Arch::short_sums(255) == 0;
        constexpr auto raised = [](int turn) { return in_place ? Lines::position(turn) : Codes::up; };
        typename Arch::Ints sums[static_cast<std::size_t>(turns)][M][N];
#pragma GCC unroll 8
        for (auto& sum : sums) sum[0][0] = Arch::equal(0);
        if constexpr (raised(0) == Codes::up) std::swap(sums[0][0][0], dot[0][0]);
        for (Index k = 0; k < steps; k += Lines::steps) {
          start_unit();
          each_step<Lines::steps>([&](auto step) __attribute__((always_inline)) {
            constexpr int turn = step() % turns;
            add_step(step, k, sums[static_cast<std::size_t>(turn)], std::integral_constant<int, raised(turn)>());
          });
        }
        each_step<turns>([&](auto turn) __attribute__((always_inline)) {
          dot[0][0] = Arch::add(dot[0][0], Arch::template divided<raised(turn()) - Codes::up>(sums[turn()][0][0]));
        });
      } else {
        for (Index k = 0; k < steps; k += Lines::steps) {
          start_unit();
          each_step<Lines::steps>([&](auto step) __attribute__((always_inline)) { add_step(step, k, dot, as_is); });
        }
      }
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
            add_step(step, k, part, as_is);
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

/// Whole units of lines as bytes u, 64 for each step.
template <class Arch, class Codes>
void decode_units(const TiledWeights& w, const std::byte* unit, Index units, std::byte* out) {
  using Lines = CodeLines<Codes::bits>;
  const typename Codes::template Reader<Arch> reader(w);
  for (; units > 0; --units, unit += Lines::bytes, out += Lines::steps * line_bytes)
    each_step<Lines::steps>([&](auto step) __attribute__((always_inline)) {
      Arch::store_bytes(reinterpret_cast<std::uint8_t*>(out + step() * line_bytes), reader.template read<step()>(unit));
    });
}

/// tile_products of some codes, for groups of 1, 2, 4 and 8 tokens as far as Arch has them, with so many tiles at once.
struct TileProducts {
  struct {
    void (*multiply)(const TiledWeights&, const TileTask&, float* y, Index y_stride) = nullptr;
    Index tiles = 0;
  } of[4];
  static constexpr Index most_tokens = 8, most_tiles = 4;
};

/// The same number of tiles for all, or Tiles == 0: as many as Arch has sums for, but for one token one tile, so that memory is
/// read as one stream, which is what hardware foresees best. With more tokens there is time.
template <class Arch, class Codes, Index Ahead, int Tiles>
inline constexpr TileProducts tile_products_of = [] {
  TileProducts products;
  [&]<int... Power>(std::integer_sequence<int, Power...>) {
    const auto set = [&]<int P>(std::integral_constant<int, P>) {
      constexpr int tokens = 1 << P;
      constexpr int tiles = Tiles > 0 ? Tiles : tokens == 1 ? 1 : std::clamp(Arch::direct_sums / tokens, 1, Arch::direct_tiles);
      static_assert(tiles <= TileProducts::most_tiles);
      products.of[P] = {&tile_products<Arch, Codes, Ahead, tiles, tokens>, tiles};
    };
    (set(std::integral_constant<int, Power>()), ...);
  }(std::make_integer_sequence<int, std::countr_zero(static_cast<unsigned>(Arch::token_group)) + 1>());
  return products;
}();

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
