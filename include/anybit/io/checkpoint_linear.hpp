#pragma once
// One linear layer of a quantized checkpoint in memory: the codes that its file has, with scales and zero points, whatever the
// format was.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/format/codebook.hpp>
#include <anybit/format/minifloat.hpp>

namespace anybit::io {
inline namespace ANYBIT_ABI {

/// The values of codes.
enum class Levels {
  integer,  ///< 0 to 2^bits - 1; two's complement of a file is kept as code + 2^(bits-1)
  e2m1,     ///< OCP FP4: MXFP4 and NVFP4
  e4m3,     ///< OCP FP8
  nf4,      ///< bitsandbytes, QLoRA
  fp4,      ///< bitsandbytes' own FP4
};

/// Which weights share a scale and a zero point.
enum class Grouping {
  columns,  ///< `group` columns of one row (or those that group_of_column says)
  flat,     ///< `group` weights of the flattened matrix, across the ends of rows
  strided,  ///< all whose flattened index is the same modulo the number of groups (HQQ's axis 0)
};

/// w(r, c) = scale(i) * (level(code) - zero(i)) with i = scale_index(r, c).
struct CheckpointLinear {
  Extents extents;  ///< outputs x inputs
  Levels levels = Levels::integer;
  int bits = 4;
  Grouping grouping = Grouping::columns;
  Index group = 0;                             ///< at least 1
  std::vector<std::uint8_t> codes;             ///< row-major, in the original order of columns
  std::vector<float> scales;                   ///< count() of them, as the file has them
  float divisor = 1;                           ///< of all scales: NVFP4's global scale, 127 of bitsandbytes' int8
  std::vector<float> zeros;                    ///< in units of levels; empty: middle() everywhere
  std::vector<std::uint32_t> group_of_column;  ///< GPTQ's g_idx where it is not column / group; else empty

  Index groups_per_row() const { return ceil_div(extents.cols, group); }
  /// Scales of the matrix.
  Index count() const {
    return grouping == Grouping::columns ? extents.rows * groups_per_row() : ceil_div(extents.size(), group);
  }
  Index scale_index(Index row, Index col) const {
    if (grouping == Grouping::flat) return (row * extents.cols + col) / group;
    if (grouping == Grouping::strided) return (row * extents.cols + col) % count();
    return row * groups_per_row() +
           (group_of_column.empty() ? col / group : static_cast<Index>(group_of_column[static_cast<std::size_t>(col)]));
  }
  float scale(Index i) const { return scales[static_cast<std::size_t>(i)] / divisor; }
  /// The zero point of symmetric integers; other levels have their own zero.
  float middle() const { return levels == Levels::integer ? static_cast<float>(1 << (bits - 1)) : 0.0f; }
  float zero(Index i) const { return zeros.empty() ? middle() : zeros[static_cast<std::size_t>(i)]; }
  bool symmetric() const {
    for (const float z : zeros)
      if (z != middle()) return false;
    return true;
  }

  /// The same layer, to the bit: also where one names the zero points that the other implies.
  friend bool operator==(const CheckpointLinear& a, const CheckpointLinear& b) {
    if (a.extents != b.extents || a.levels != b.levels || a.bits != b.bits || a.grouping != b.grouping || a.group != b.group ||
        a.codes != b.codes || a.scales != b.scales || a.divisor != b.divisor || a.group_of_column != b.group_of_column)
      return false;
    for (Index i = 0; i < a.count(); ++i)
      if (a.zero(i) != b.zero(i)) return false;
    return true;
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::io

namespace anybit::io {
inline namespace ANYBIT_CODE {

namespace detail {

template <class F>
void fill_levels(std::array<float, 256>& table) {
  for (int c = 0; c < 1 << F::bits; ++c) table[static_cast<std::size_t>(c)] = F::decode(static_cast<Code>(c));
}

}  // namespace detail

/// The level of every code.
inline std::array<float, 256> level_table(Levels levels) {
  std::array<float, 256> table{};
  switch (levels) {
    case Levels::integer:
      for (std::size_t c = 0; c < table.size(); ++c) table[c] = static_cast<float>(c);
      break;
    case Levels::e2m1: detail::fill_levels<Minifloat<2, 1>>(table); break;
    case Levels::e4m3: detail::fill_levels<Minifloat<4, 3>>(table); break;
    case Levels::nf4: detail::fill_levels<Nf4>(table); break;
    case Levels::fp4: detail::fill_levels<Fp4>(table); break;
  }
  return table;
}

/// All weights in float32: one subtraction and one product each, both exact for integers with scales of 16 bits and divisor 1.
inline Matrix dequantize(const CheckpointLinear& l) {
  Matrix w(l.extents.rows, l.extents.cols);
  const std::array<float, 256> table = level_table(l.levels);
  const bool runs = l.grouping == Grouping::columns && l.group_of_column.empty();
  for (Index r = 0; r < l.extents.rows; ++r) {
    const std::uint8_t* const codes = l.codes.data() + r * l.extents.cols;
    float* const to = w.view().row(r).data();
    if (runs) {
      for (Index c = 0, i = r * l.groups_per_row(); c < l.extents.cols; ++i) {
        const float scale = l.scale(i), zero = l.zero(i);
        for (const Index end = std::min(l.extents.cols, c + l.group); c < end; ++c) to[c] = scale * (table[codes[c]] - zero);
      }
      continue;
    }
    for (Index c = 0; c < l.extents.cols; ++c) {
      const Index i = l.scale_index(r, c);
      to[c] = l.scale(i) * (table[codes[c]] - l.zero(i));
    }
  }
  return w;
}

/// Some rows as a layer of their own: a fused tensor taken apart. Only of Grouping::columns.
inline CheckpointLinear take_rows(const CheckpointLinear& l, std::span<const Index> rows) {
  ANYBIT_CHECK(l.grouping == Grouping::columns, "take_rows: groups run across rows");
  CheckpointLinear s = l;
  s.extents.rows = static_cast<Index>(rows.size());
  const auto take = [&]<class T>(const std::vector<T>& all, Index each, std::vector<T>& to) {
    to.clear();
    if (all.empty()) return;
    for (const Index r : rows) {
      ANYBIT_CHECK(0 <= r && r < l.extents.rows, "take_rows: no such row");
      to.insert(to.end(), all.begin() + r * each, all.begin() + (r + 1) * each);
    }
  };
  take(l.codes, l.extents.cols, s.codes);
  take(l.scales, l.groups_per_row(), s.scales);
  take(l.zeros, l.groups_per_row(), s.zeros);
  return s;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
