#pragma once
// The weights that share one Affine. A group is a run of columns of one row, except for PerTensor.

#include <concepts>
#include <string_view>
#include <type_traits>

#include <anybit/core/fixed_string.hpp>
#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// group_cols(cols)        columns of a full group, at least 1 if there are columns; the last group of a row may be shorter
/// groups_per_row(cols)    ceil(cols / group_cols(cols)), the number of groups that a row is cut into (0 columns: 0)
/// count(extents)          number of Affines of a matrix: rows * groups_per_row(cols)
/// index(extents, row, g)  which Affine group g of a row uses: row * groups_per_row(cols) + g, because kernels read those of a
///                         row as one run and quantizers work on some rows at a time
/// All are constexpr, and Scheme checks them. Only PerTensor lets rows share an Affine. docs/tutorial/04_a_scheme_of_your_own.md writes one.
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

/// Whether every row has groups of its own, stored one after the other, at these extents.
template <Granularity G>
constexpr bool cuts_rows(Extents e) {
  const Index width = G::group_cols(e.cols), groups = G::groups_per_row(e.cols);
  if (e.cols > 0 && width < 1) return false;
  if (groups != (e.cols > 0 ? ceil_div(e.cols, width) : 0) || G::count(e) != e.rows * groups) return false;
  for (const Index r : {Index{0}, e.rows / 2, e.rows - 1})
    for (const Index g : {Index{0}, groups / 2, groups - 1})
      if (r >= 0 && g >= 0 && r < e.rows && g < groups && G::index(e, r, g) != r * groups + g) return false;
  return true;
}

/// cuts_rows() at shapes that show most mistakes; testing::check_granularity_laws tries many more. PerTensor is known by its
/// name.
template <Granularity G>
constexpr bool is_lawful_granularity() {
  if constexpr (std::is_same_v<G, PerTensor>) return true;
  for (const Index rows : {0, 1, 2, 5})
    for (const Index cols : {0, 1, 7, 32, 33, 96, 128, 130, 1000, 4096})
      if (!cuts_rows<G>({rows, cols})) return false;
  return true;
}

/// Whether the members of G can be called at compile time.
template <class G>
concept ConstexprGranularity = Granularity<G> && requires {
  typename std::bool_constant<(G::group_cols(1), G::groups_per_row(1), G::count(Extents{1, 1}), G::index(Extents{1, 1}, 0, 0),
                               true)>;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
