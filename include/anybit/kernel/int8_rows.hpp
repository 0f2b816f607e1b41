#pragma once
// y = x W^T with rounded activations: 16 rows of a block of columns become bytes, interleaved so that a vector holds four
// columns of each row, and every token's codes are broadcast against them four at a time.

#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/arch.hpp>
#include <anybit/kernel/row_source.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

namespace detail {

inline constexpr Index int8_tile_rows = 16;

/// A block of consecutive segments of 16 rows.
struct BytePanel {
  static constexpr Index row_stride = block_cols + decode_slack;
  Index segments = 0;
  std::array<Index, static_cast<std::size_t>(block_cols / 4)> dwords;                         // of each segment
  alignas(64) std::array<std::uint8_t, static_cast<std::size_t>(16 * row_stride)> bytes;      // [dword][row][4]
  alignas(64) std::array<float, static_cast<std::size_t>(block_cols / 4 * 16)> scales;        // [segment][row]
  alignas(64) std::array<std::int32_t, static_cast<std::size_t>(block_cols / 4 * 16)> offsets;
};

/// Segments from column `first` on, as many as fit. Returns the column after them. Rows past `rows` count as zeros.
template <class Arch>
inline Index fill_panel(const RowSource& w, Index row, Index rows, Index first, BytePanel& panel) {
  alignas(64) std::uint8_t rowwise[static_cast<std::size_t>(16 * BytePanel::row_stride)];
  const Index cols = w.extents.cols;
  Index end = first, padded = 0;
  bool gaps = false;
  for (panel.segments = 0; end < cols;) {
    const Index next = segment_end(end, cols, w.group), n = round_up(next - end, 4);
    if (padded + n > block_cols) break;
    gaps = gaps || (n != next - end && next != cols);
    panel.dwords[static_cast<std::size_t>(panel.segments++)] = n / 4;
    padded += n;
    end = next;
  }
  const Index first_group = first / w.group, groups = (end - 1) / w.group - first_group + 1;
  for (Index r = 0; r < 16; ++r) {
    std::uint8_t* out = rowwise + r * BytePanel::row_stride;
    if (r >= rows) {
      std::memset(out, 0, static_cast<std::size_t>(round_up(padded, 64)));
      for (Index s = 0; s < panel.segments; ++s) panel.scales[static_cast<std::size_t>(s * 16 + r)] = 0, panel.offsets[static_cast<std::size_t>(s * 16 + r)] = 0;
      continue;
    }
    float scales[static_cast<std::size_t>(block_cols / 4)];
    std::int32_t offsets[static_cast<std::size_t>(block_cols / 4)];
    w.affines(w.tensor, row + r, first_group, groups, scales, offsets);
    std::uint8_t tight[static_cast<std::size_t>(BytePanel::row_stride)];
    w.bytes(w.tensor, row + r, first, end - first, gaps ? tight : out);
    Index column = first, at = 0;
    for (Index s = 0; s < panel.segments; ++s) {
      const Index next = segment_end(column, cols, w.group), g = column / w.group - first_group;
      if (gaps) {
        std::memset(out + at + 4 * panel.dwords[static_cast<std::size_t>(s)] - 4, 0, 4);
        std::memcpy(out + at, tight + (column - first), static_cast<std::size_t>(next - column));
      }
      panel.scales[static_cast<std::size_t>(s * 16 + r)] = scales[g];
      panel.offsets[static_cast<std::size_t>(s * 16 + r)] = offsets[g];
      at += 4 * panel.dwords[static_cast<std::size_t>(s)];
      column = next;
    }
    for (Index i = gaps ? at : end - first; i % 64 != 0; ++i) out[i] = 0;
  }
  Arch::interleave(rowwise, BytePanel::row_stride, round_up(padded / 4, 16), panel.bytes.data());
  return end;
}

/// Adds a panel's products with `Tokens` tokens to sums[token][row]. `Parts` chains of additions a sum hide their latency.
template <class Arch, int MaxByte, int Tokens, int Parts>
inline void int8_tile(const BytePanel& panel, const std::int8_t* x, Index x_stride, const std::int32_t* x_sums, Index sums_stride, float* sums) {
  typename Arch::Floats total[static_cast<std::size_t>(Tokens)];
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) total[t] = Arch::load(sums + 16 * t);
  const std::uint8_t* bytes = panel.bytes.data();
  for (Index s = 0; s < panel.segments; ++s) {
    const std::int32_t* offsets = panel.offsets.data() + 16 * s;
    typename Arch::Ints dot[static_cast<std::size_t>(Parts)][static_cast<std::size_t>(Tokens)];
#pragma GCC unroll 4
    for (int p = 0; p < Parts; ++p)
#pragma GCC unroll 8
      for (int t = 0; t < Tokens; ++t) dot[p][t] = Arch::products(offsets, p == 0 ? x_sums[t * sums_stride + s] : 0);
    const Index n = panel.dwords[static_cast<std::size_t>(s)];
    Index k = 0;
    for (; k + Parts <= n; k += Parts) {
#pragma GCC unroll 4
      for (int p = 0; p < Parts; ++p) {
        const auto b = Arch::load_bytes(bytes + (k + p) * 64);
#pragma GCC unroll 8
        for (int t = 0; t < Tokens; ++t) dot[p][t] = Arch::template dot4<MaxByte>(dot[p][t], b, x + t * x_stride + 4 * (k + p));
      }
    }
    if constexpr (Parts > 1)
      for (; k < n; ++k) {
        const auto b = Arch::load_bytes(bytes + k * 64);
#pragma GCC unroll 8
        for (int t = 0; t < Tokens; ++t) dot[0][t] = Arch::template dot4<MaxByte>(dot[0][t], b, x + t * x_stride + 4 * k);
      }
    const auto scale = Arch::load(panel.scales.data() + 16 * s);
#pragma GCC unroll 8
    for (int t = 0; t < Tokens; ++t) {
#pragma GCC unroll 4
      for (int p = 1; p < Parts; ++p) dot[0][t] = Arch::add(dot[0][t], dot[p][t]);
      total[t] = Arch::multiply_add(dot[0][t], scale, total[t]);
    }
    bytes += 64 * n;
    x += 4 * n;
  }
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) Arch::store(sums + 16 * t, total[t]);
}

template <class Arch, int MaxByte>
inline void int8_rows(const RowSource& w, const RoundedActivations& x, MutableMatrix y, Index begin, Index end) {
  constexpr int T = Arch::tile_tokens;
  BytePanel panel;
  const Index cols = w.extents.cols;
  for (Index r0 = begin; r0 < end; r0 += int8_tile_rows) {
    const Index rows = std::min(int8_tile_rows, end - r0);
    for (Index first = 0, x_at = 0, segment = 0; first < cols || first == 0;) {
      const Index next = cols == 0 ? 1 : fill_panel<Arch>(w, r0, rows, first, panel);
      if (cols == 0) panel.segments = 0;
      const bool last = next >= cols;
      Index t = 0;
      const auto tile = [&]<int Tokens>(std::integral_constant<int, Tokens>) {
        // Unscaled sums wait in y between blocks.
        alignas(64) float sums[static_cast<std::size_t>(Tokens)][16] = {};
        const auto bytes = static_cast<std::size_t>(rows) * sizeof(float);
        if (first > 0)
          for (int i = 0; i < Tokens; ++i) std::memcpy(sums[i], y.data + (t + i) * y.stride + r0, bytes);
        int8_tile<Arch, MaxByte, Tokens, (Tokens >= 4 ? 1 : 4 / Tokens)>(panel, x.codes + t * x.stride + x_at, x.stride, x.sums + t * x.segments + segment, x.segments, &sums[0][0]);
        for (int i = 0; i < Tokens; ++i) {
          if (last) Arch::store(sums[i], Arch::scaled(Arch::load(sums[i]), x.scales[t + i]));
          std::memcpy(y.data + (t + i) * y.stride + r0, sums[i], bytes);
        }
        t += Tokens;
      };
      while (x.tokens - t >= T) tile(std::integral_constant<int, T>{});
      if constexpr (T > 4)
        if (x.tokens - t >= 4) tile(std::integral_constant<int, 4>{});
      if constexpr (T > 2)
        if (x.tokens - t >= 2) tile(std::integral_constant<int, 2>{});
      if (x.tokens - t >= 1) tile(std::integral_constant<int, 1>{});
      for (Index s = 0; s < panel.segments; ++s) x_at += 4 * panel.dwords[static_cast<std::size_t>(s)];
      segment += panel.segments;
      first = next;
    }
  }
}

}  // namespace detail

/// Rows begin .. end - 1 of weights that have an integer form (w.bytes not null): y(token, row). Allocates nothing. The sum
/// of a segment is an exact integer on every instruction set; a value does not depend on the rows and tokens beside it.
template <class Arch = native_arch>
inline void int8_rows(const RowSource& w, const RoundedActivations& x, MutableMatrix y, Index begin, Index end) {
  if (w.max_byte <= 128) detail::int8_rows<Arch, 128>(w, x, y, begin, end);
  else detail::int8_rows<Arch, 255>(w, x, y, begin, end);
}

}  // namespace anybit::kernel::inline ANYBIT_CODE
