#pragma once
// y = x W^T with rounded activations: 16 rows are decoded to bytes, a block of columns at a time, interleaved so that a vector
// holds four columns of each row; every token's codes are multiplied with them, four at a time, by broadcast.

#include <anybit/core/macros_begin.hpp>

#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/row_decoder.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

inline constexpr Index int8_tile_rows = 16;

/// A block of consecutive segments of 16 rows.
struct BytePanel {
  static constexpr Index row_stride = block_cols + decode_slack;
  static constexpr auto most_segments = static_cast<std::size_t>(block_cols / 4);
  Index segments = 0;
  std::array<Index, most_segments> dwords;                                                // of each segment
  alignas(64) std::array<std::uint8_t, static_cast<std::size_t>(16 * row_stride)> bytes;  // [dword][row][4]
  alignas(64) std::array<float, most_segments * 16> scales;                               // [segment][row]
  alignas(64) std::array<std::int32_t, most_segments * 16> offsets;
};

/// Segments from `segment` on, as many as fit; leaves it after them. Rows past `rows` count as zeros. `read` is RowOps::bytes, or
/// reads bytes of another kind; a scheme with RowOps::lines gives those instead, and `row` is then a multiple of 16. Scales and
/// offsets are filled in where the scheme has an integer form.
template <class Arch>
inline void fill_panel(const PackedRows& w, decltype(RowOps::bytes) read, Index row, Index rows, Segment& segment,
                       BytePanel& panel) {
  alignas(64) std::uint8_t rowwise[static_cast<std::size_t>(16 * BytePanel::row_stride)];
  std::array<Index, BytePanel::most_segments> lengths, groups;
  const Index first = segment.first, first_group = segment.group;
  Index padded = 0, end = first, last_group = first_group;
  bool gaps = false;
  for (panel.segments = 0; !segment.done() && padded + round_up(segment.length, 4) <= block_cols; segment.next()) {
    const auto s = static_cast<std::size_t>(panel.segments++);
    gaps = gaps || padded != segment.first - first;
    lengths[s] = segment.length;
    groups[s] = segment.group - first_group;
    panel.dwords[s] = ceil_div(segment.length, 4);
    padded += 4 * panel.dwords[s];
    end = segment.end();
    last_group = segment.group;
  }
  const bool by_lines = w.ops->lines != nullptr;
  if (by_lines) w.ops->lines(w.tensor, row, first, end - first, panel.bytes.data());
  w.prefetch(row + 16, 16, first, end - first);
  for (Index r = 0; r < 16; ++r) {
    std::uint8_t* out = rowwise + r * BytePanel::row_stride;
    if (r >= rows) {
      if (!by_lines) std::memset(out, 0, static_cast<std::size_t>(round_up(padded, 64)));
      for (Index s = 0; s < panel.segments; ++s)
        panel.scales[static_cast<std::size_t>(s * 16 + r)] = 0, panel.offsets[static_cast<std::size_t>(s * 16 + r)] = 0;
      continue;
    }
    float scales[static_cast<std::size_t>(block_cols / 4 + decode_slack)];
    std::int32_t offsets[static_cast<std::size_t>(block_cols / 4 + decode_slack)];
    if (w.ops->affines) w.ops->affines(w.tensor, row + r, first_group, last_group - first_group + 1, scales, offsets);
    for (Index s = 0; w.ops->affines && s < panel.segments; ++s) {
      panel.scales[static_cast<std::size_t>(s * 16 + r)] = scales[groups[static_cast<std::size_t>(s)]];
      panel.offsets[static_cast<std::size_t>(s * 16 + r)] = offsets[groups[static_cast<std::size_t>(s)]];
    }
    if (by_lines) continue;
    if (!gaps) {
      read(w.tensor, row + r, first, end - first, out);
      std::memset(out + (end - first), 0, static_cast<std::size_t>(round_up(end - first, 64) - (end - first)));
      continue;
    }
    std::uint8_t tight[static_cast<std::size_t>(BytePanel::row_stride)];
    read(w.tensor, row + r, first, end - first, tight);
    std::memset(out, 0, static_cast<std::size_t>(round_up(padded, 64)));
    Index from = 0, to = 0;
    for (std::size_t s = 0; s < static_cast<std::size_t>(panel.segments); ++s) {
      std::memcpy(out + to, tight + from, static_cast<std::size_t>(lengths[s]));
      from += lengths[s];
      to += 4 * panel.dwords[s];
    }
  }
  if (!by_lines) Arch::interleave(rowwise, BytePanel::row_stride, round_up(padded / 4, 16), panel.bytes.data());
}

/// Adds the products of `Tiles` panels of the same segments with `Tokens` tokens to sums[tile][token][row]. `Parts` chains of
/// additions a sum hide their latency.
template <class Arch, int MaxByte, int Tiles, int Tokens, int Parts>
inline void int8_tile(const BytePanel* panels, const std::int8_t* x, Index x_stride, const std::int32_t* x_sums,
                      const float* x_blocks, Index sums_stride, float* sums) {
  constexpr auto M = static_cast<std::size_t>(Tiles), N = static_cast<std::size_t>(Tokens), P = static_cast<std::size_t>(Parts);
  typename Arch::Floats total[M][N];
#pragma GCC unroll 2
  for (int m = 0; m < Tiles; ++m)
#pragma GCC unroll 8
    for (int t = 0; t < Tokens; ++t) total[m][t] = Arch::load(sums + 16 * (m * Tokens + t));
  Index at = 0;
  for (Index s = 0; s < panels[0].segments; ++s) {
    typename Arch::Ints dot[P][M][N];
#pragma GCC unroll 4
    for (int p = 0; p < Parts; ++p)
#pragma GCC unroll 2
      for (int m = 0; m < Tiles; ++m)
#pragma GCC unroll 8
        for (int t = 0; t < Tokens; ++t)
          dot[p][m][t] = Arch::products(panels[m].offsets.data() + 16 * s, p == 0 ? -x_sums[t * sums_stride + s] : 0);
    const Index n = panels[0].dwords[static_cast<std::size_t>(s)];
    const auto add = [&](Index k, int p) __attribute__((always_inline)) {
      typename Arch::Bytes b[M];
#pragma GCC unroll 2
      for (int m = 0; m < Tiles; ++m) b[m] = Arch::load_bytes(panels[m].bytes.data() + (at + k) * 64);
#pragma GCC unroll 8
      for (int t = 0; t < Tokens; ++t)
#pragma GCC unroll 2
        for (int m = 0; m < Tiles; ++m) dot[p][m][t] = Arch::template dot4<MaxByte>(dot[p][m][t], b[m], x + t * x_stride + 4 * k);
    };
    Index k = 0;
    for (; k + Parts <= n; k += Parts) {
#pragma GCC unroll 4
      for (int p = 0; p < Parts; ++p) add(k + p, p);
    }
    if constexpr (Parts > 1)
      for (; k < n; ++k) add(k, 0);
#pragma GCC unroll 2
    for (int m = 0; m < Tiles; ++m) {
      const auto scale = Arch::load(panels[m].scales.data() + 16 * s);
#pragma GCC unroll 8
      for (int t = 0; t < Tokens; ++t) {
#pragma GCC unroll 4
        for (int p = 1; p < Parts; ++p) dot[0][m][t] = Arch::add(dot[0][m][t], dot[p][m][t]);
        const auto both = x_blocks ? Arch::scaled(scale, x_blocks[t * sums_stride + s]) : scale;
        total[m][t] = Arch::multiply_add(dot[0][m][t], both, total[m][t]);
      }
    }
    at += n, x += 4 * n;
  }
#pragma GCC unroll 2
  for (int m = 0; m < Tiles; ++m)
#pragma GCC unroll 8
    for (int t = 0; t < Tokens; ++t) Arch::store(sums + 16 * (m * Tokens + t), total[m][t]);
}

/// A run of segments for int8_row_products, the same for every row.
struct SegmentRun {
  static constexpr Index most_segments = 128, most_columns = 8 * max_segment;
  Index first, first_group, columns = 0, count = 0;
  Index regular = 0;   ///< the first so many segments are `full` columns long
  bool split = false;  ///< some group has several segments
  std::array<Index, static_cast<std::size_t>(most_segments + 1)> starts, groups;  ///< relative to first and first_group

  SegmentRun(Segment& s, Index full) : first(s.first), first_group(s.group) {
    starts[0] = 0;
    for (; count < most_segments && !s.done() && s.end() - first <= most_columns; s.next()) {
      const auto i = static_cast<std::size_t>(count++);
      regular += s.length == full && regular == count - 1;
      groups[i] = s.group - first_group;
      split = split || groups[i] != static_cast<Index>(i);
      starts[i + 1] = columns = s.end() - first;
    }
  }
  Index start(Index s) const { return starts[static_cast<std::size_t>(s)]; }
  Index group(Index s) const { return groups[static_cast<std::size_t>(s)]; }
};

/// Few tokens: whole rows against whole tokens, columns along the lanes, a run of segments at a time. The same sums of
/// segments and the same order of adding them as int8_tile, so the same bits. Groups must be multiples of 32 columns.
template <class Arch, int MaxByte>
inline void int8_row_products(const PackedRows& w, const RoundedActivations& x, MutableMatrix y, Index begin, Index end) {
  constexpr Index block = 4, slots = SegmentRun::most_segments + decode_slack;
  const Index full = std::min(x.segment_cols, w.extents.cols);
  alignas(64) std::uint8_t bytes[static_cast<std::size_t>(SegmentRun::most_columns + decode_slack)];
  float scales[static_cast<std::size_t>(block)][static_cast<std::size_t>(slots)],
      values[static_cast<std::size_t>(Arch::row_tokens)][static_cast<std::size_t>(block)][static_cast<std::size_t>(slots)];
  std::int32_t offsets[static_cast<std::size_t>(slots)], dots[static_cast<std::size_t>(slots)];
  Segment segment(w.extents.cols, w.group, x.segment_cols);
  for (Index index = 0; !segment.done();) {
    const SegmentRun run(segment, full);
    const Index n = run.columns, whole = (n - 1) / block_cols * block_cols;
    for (Index r0 = begin; r0 < end; r0 += block) {
      const Index rows = std::min(block, end - r0);
      for (Index r = 0; r < rows; ++r) {
        for (Index at = 0; at < n; at += block_cols) {
          w.prefetch(r0 + r + block, 1, run.first + at, block_cols);
          w.ops->bytes(w.tensor, r0 + r, run.first + at, at == whole ? n - whole : block_cols, bytes + at);
        }
        std::memset(bytes + n, 0, static_cast<std::size_t>(decode_slack));
        float* scale = scales[r];
        w.ops->affines(w.tensor, r0 + r, run.first_group, run.group(run.count - 1) + 1, scale, offsets);
        if (run.split)
          for (Index s = run.count; s-- > 0;) scale[s] = scale[run.group(s)], offsets[s] = offsets[run.group(s)];
        for (Index t = 0; t < x.tokens; ++t) {
          const std::int8_t* codes = x.codes + t * x.stride + run.first;
          Index s = 0;
          for (; s < run.regular; s += 8)
            Arch::template segment_dots<MaxByte>(bytes + s * full, codes + s * full, full, std::min<Index>(8, run.regular - s),
                                                 dots + s);
          for (s = run.regular; s < run.count; ++s) {
            std::int32_t one[8];
            Arch::template segment_dots<MaxByte>(bytes + run.start(s), codes + run.start(s),
                                                 round_up(run.start(s + 1) - run.start(s), 32), 1, one);
            dots[s] = one[0];
          }
          const std::int32_t* sums = x.sums + t * x.segments + index;
          float* value = values[t][r];
          for (s = 0; s + 8 <= run.count; s += 8)
            for (Index i = 0; i < 8; ++i) value[s + i] = static_cast<float>(dots[s + i] - offsets[s + i] * sums[s + i]);
          for (; s < run.count; ++s) value[s] = static_cast<float>(dots[s] - offsets[s] * sums[s]);
        }
      }
      for (Index t = 0; t < x.tokens; ++t) {
        float total[static_cast<std::size_t>(block)] = {};
        if (index > 0)
          for (Index r = 0; r < rows; ++r) total[r] = y(t, r0 + r);
        if (x.blocks) {
          const float* blocks = x.blocks + t * x.segments + index;
          for (Index r = 0; r < rows; ++r)
            for (Index s = 0; s < run.count; ++s) total[r] = std::fma(values[t][r][s], scales[r][s] * blocks[s], total[r]);
        } else if (rows == block) {  // four sums at once hide the latency of each
          for (Index s = 0; s < run.count; ++s)
#pragma GCC unroll 4
            for (Index r = 0; r < block; ++r) total[r] = std::fma(values[t][r][s], scales[r][s], total[r]);
        } else {
          for (Index r = 0; r < rows; ++r)
            for (Index s = 0; s < run.count; ++s) total[r] = std::fma(values[t][r][s], scales[r][s], total[r]);
        }
        for (Index r = 0; r < rows; ++r) y(t, r0 + r) = segment.done() ? total[r] * x.scales[t] : total[r];
      }
    }
    index += run.count;
  }
}

template <class Arch, int MaxByte>
inline void int8_rows(const PackedRows& w, const RoundedActivations& x, MutableMatrix y, Index begin, Index end) {
  if constexpr (Arch::row_tokens > 0)
    if (w.ops->bytes && x.tokens <= Arch::row_tokens && (w.group % 32 == 0 || w.group >= w.extents.cols))
      return int8_row_products<Arch, MaxByte>(w, x, y, begin, end);
  constexpr int T = Arch::tile_tokens, most = Arch::blocked_tiles;
  BytePanel panels[static_cast<std::size_t>(most)];
  const Index cols = w.extents.cols;
  // Lines have the rows of whole tiles, of which the first ones may be before `begin`.
  Index first = w.ops->lines ? begin / int8_tile_rows * int8_tile_rows : begin;
  const auto go = [&]<int Tiles>(std::integral_constant<int, Tiles>) {
    const Index from = std::max(first, begin), to = std::min(end, first + Tiles * int8_tile_rows);
    Segment segment(cols, w.group, x.segment_cols);
    for (Index x_at = 0, index = 0; !segment.done();) {
      const bool begun = index > 0;
      const Segment here = segment;
      for (Index m = 0; m < Tiles; ++m) {
        const Index row = first + m * int8_tile_rows;
        segment = here;
        fill_panel<Arch>(w, w.ops->bytes, row, std::min(int8_tile_rows, end - row), segment, panels[m]);
      }
      const bool last = segment.done();
      Index t = 0;
      const auto tile = [&]<int Tokens>(std::integral_constant<int, Tokens>) {
        // Unscaled sums wait in y between blocks.
        alignas(64) float sums[static_cast<std::size_t>(Tiles)][static_cast<std::size_t>(Tokens)][16] = {};
        const auto each_piece = [&](auto use) {
          for (Index m = 0; m < Tiles; ++m) {
            const Index row = first + m * int8_tile_rows, a = std::max(row, from), b = std::min(row + int8_tile_rows, to);
            for (int i = 0; i < Tokens; ++i)
              use(sums[m][i] + (a - row), y.data + (t + i) * y.stride + a, static_cast<std::size_t>(b - a) * sizeof(float));
          }
        };
        if (begun) each_piece([](float* sum, const float* in_y, std::size_t bytes) { std::memcpy(sum, in_y, bytes); });
        int8_tile<Arch, MaxByte, Tiles, Tokens, (Tokens >= 4 ? 1 : 4 / Tokens)>(
            panels, x.codes + t * x.stride + x_at, x.stride, x.sums + t * x.segments + index,
            x.blocks ? x.blocks + t * x.segments + index : nullptr, x.segments, &sums[0][0][0]);
        if (last)
          for (auto& of_tile : sums)
            for (int i = 0; i < Tokens; ++i) Arch::store(of_tile[i], Arch::scaled(Arch::load(of_tile[i]), x.scales[t + i]));
        each_piece([](const float* sum, float* in_y, std::size_t bytes) { std::memcpy(in_y, sum, bytes); });
        t += Tokens;
      };
      while (x.tokens - t >= T) tile(std::integral_constant<int, T>{});
      if constexpr (T > 4)
        if (x.tokens - t >= 4) tile(std::integral_constant<int, 4>{});
      if constexpr (T > 2)
        if (x.tokens - t >= 2) tile(std::integral_constant<int, 2>{});
      if (x.tokens - t >= 1) tile(std::integral_constant<int, 1>{});
      for (Index s = 0; s < panels[0].segments; ++s) x_at += 4 * panels[0].dwords[static_cast<std::size_t>(s)];
      index += panels[0].segments;
    }
    first += Tiles * int8_tile_rows;
  };
  if constexpr (most > 1)
    while (first + int8_tile_rows < end && x.tokens >= T) go(std::integral_constant<int, most>{});
  while (first < end) go(std::integral_constant<int, 1>{});
}

}  // namespace detail

/// Rows begin .. end - 1 of weights that have an integer form (RowOps::bytes or lines not null) and at least one column: y(token,
/// row). Allocates nothing. The sum of a segment is an exact integer on every instruction set; a value does not depend on the
/// rows and tokens beside it.
template <class Arch = native_arch>
inline void int8_rows(const PackedRows& w, const RoundedActivations& x, MutableMatrix y, Index begin, Index end) {
  constexpr int small = detail::same_products<Arch>(128);
  if constexpr (small < 255)
    if (w.ops->max_byte <= small) return detail::int8_rows<Arch, small>(w, x, y, begin, end);
  detail::int8_rows<Arch, 255>(w, x, y, begin, end);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
