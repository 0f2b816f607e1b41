#pragma once
// The weights that share one Affine. A group is a run of columns of one row, except for PerTensor.

#include <concepts>
#include <string_view>

#include <anybit/core/fixed_string.hpp>
#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// group_cols(cols)        columns of a full group; the last group of a row may be shorter
/// groups_per_row(cols)    number of groups that a row is cut into (0 columns: 0)
/// count(extents)          number of Affines of a matrix
/// index(extents, row, g)  which Affine group g of a row uses
template <class G>
concept Granularity = requires(Index i, Extents e) {
  { G::name } -> std::convertible_to<std::string_view>;
  { G::group_cols(i) } -> std::same_as<Index>;
  { G::groups_per_row(i) } -> std::same_as<Index>;
  { G::count(e) } -> std::same_as<Index>;
  { G::index(e, i, i) } -> std::same_as<Index>;
};

struct PerTensor {
  static constexpr auto name = FixedString("tensor");
  static constexpr Index group_cols(Index cols) { return cols; }
  static constexpr Index groups_per_row(Index cols) { return cols > 0 ? 1 : 0; }
  static constexpr Index count(Extents e) { return e.size() > 0 ? 1 : 0; }
  static constexpr Index index(Extents, Index, Index) { return 0; }
};

struct PerRow {
  static constexpr auto name = FixedString("row");
  static constexpr Index group_cols(Index cols) { return cols; }
  static constexpr Index groups_per_row(Index cols) { return cols > 0 ? 1 : 0; }
  static constexpr Index count(Extents e) { return e.cols > 0 ? e.rows : 0; }
  static constexpr Index index(Extents, Index row, Index) { return row; }
};

/// Any size from 1 on; the last group of a row is ragged when Size does not divide the row.
template <int Size>
struct PerGroup {
  static_assert(Size >= 1, "anybit: PerGroup<Size> needs a group size of at least 1");
  static constexpr int size = Size;
  static constexpr auto name = "g" + decimal<Size>();
  static constexpr Index group_cols(Index) { return Size; }
  static constexpr Index groups_per_row(Index cols) { return ceil_div(cols, Size); }
  static constexpr Index count(Extents e) { return e.rows * groups_per_row(e.cols); }
  static constexpr Index index(Extents e, Index row, Index g) { return row * groups_per_row(e.cols) + g; }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
