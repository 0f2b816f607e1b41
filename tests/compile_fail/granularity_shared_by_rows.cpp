// EXPECT: anybit: a granularity must give every row groups of its own, one after the other: groups_per_row == ceil(cols / group_cols), count == rows * groups_per_row, index == row * groups_per_row + g (see scheme/granularity.hpp)
#include <anybit/format/integer.hpp>
#include <anybit/scheme/scheme.hpp>

struct Mine {
  static constexpr std::string_view name = "mine";
  static constexpr anybit::Index group_cols(anybit::Index cols) { return cols; }
  static constexpr anybit::Index groups_per_row(anybit::Index cols) { return cols > 0; }
#ifdef ANYBIT_FIXED
  static constexpr anybit::Index count(anybit::Extents e) { return e.cols > 0 ? e.rows : 0; }
  static constexpr anybit::Index index(anybit::Extents, anybit::Index row, anybit::Index) { return row; }
#else
  static constexpr anybit::Index count(anybit::Extents e) { return e.cols > 0 ? anybit::ceil_div(e.rows, 2) : 0; }
  static constexpr anybit::Index index(anybit::Extents, anybit::Index row, anybit::Index) { return row / 2; }
#endif
};

double bits = anybit::Scheme<anybit::SInt<4>, Mine>::bits_per_weight({64, 64});
