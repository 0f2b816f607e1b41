#pragma once
// A scheme at run time: its name, its groups, its bytes. Whoever needs more of a scheme derives a table from this one, so that a
// program compiles only what it calls: RoundingOps (tensor/rounding_ops.hpp) chooses codes, kernel::RowOps decodes rows,
// kernel::TileOps makes the kernel layout, kernel::PackedOps is behind the handle AnyPacked.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <string_view>
#include <type_traits>
#include <utility>

#include <anybit/scheme/scheme.hpp>
#include <anybit/scheme/trellis.hpp>
#include <anybit/tensor/packed_tensor.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// The functions and facts that every scheme has. Where neither weights have codes of their own nor groups scales (EXL3, a user's
/// PackedScheme), a row is one group, and scales are none.
struct SchemeOps {
  std::string_view name;

  // Groups.
  bool per_tensor, per_row;
  Index (*group_cols)(Index cols);  ///< at least 1; the last group of a row may be shorter
  Index (*groups_per_row)(Index cols);
  Index (*index)(Extents e, Index row, Index group);  ///< of a group's scale and zero point

  // Scales.
  bool joint_scales;    ///< stored jointly
  bool no_scales;       ///< not stored
  float largest_scale;  ///< scales above are stored as this one is

  // Bytes.
  double (*bits_per_weight)(Extents e);  ///< where the weights decide (SectionSize::at_most), the most
  /// All zeros, for a method to fill in; of the most bytes where the weights decide how many.
  PackedBytes (*allocate)(Extents e, bool with_column_order, std::string_view provenance);
  /// The reason why bytes are no tensor of this scheme, or Ok.
  Status (*check)(const PackedBytes&);
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit {
inline namespace ANYBIT_CODE {
namespace detail {

template <class S>
double bits_of_sections(Extents e) {
  Index bytes = 0;
  for (const SectionSize& s : S::sections(e)) bytes += s.bytes;
  return e.size() == 0 ? 0 : 8 * static_cast<double>(bytes) / static_cast<double>(e.size());
}

/// Members of scheme_ops_v that differ between the two kinds of schemes.
template <class S>
struct GroupsOf {
  static constexpr bool per_tensor = false, per_row = true, joint_scales = false, no_scales = true;
  static constexpr float largest_scale = 0;
  static Index group_cols(Index cols) { return std::max<Index>(cols, 1); }
  static Index groups_per_row(Index) { return 1; }
  static Index index(Extents, Index row, Index) { return row; }
  static double bits_per_weight(Extents e) { return bits_of_sections<S>(e); }
};
/// A scheme with scales of its groups.
template <class S>
  requires ScalarScheme<S> || TrellisScheme<S>
struct GroupsOf<S> {
  using Granularity = typename S::granularity;
  using Store = typename S::scale_store;
  static constexpr bool per_tensor = std::is_same_v<Granularity, PerTensor>, per_row = std::is_same_v<Granularity, PerRow>;
  static constexpr bool joint_scales = Store::joint, no_scales = std::is_same_v<Store, NoScale>;
  static constexpr float largest_scale = Store::largest;
  static Index group_cols(Index cols) { return std::max<Index>(Granularity::group_cols(cols), 1); }
  static Index groups_per_row(Index cols) { return Granularity::groups_per_row(cols); }
  static Index index(Extents e, Index row, Index group) { return Granularity::index(e, row, group); }
  static double bits_per_weight(Extents e) {
    if constexpr (ScalarScheme<S>)
      return S::bits_per_weight(e);
    else
      return bits_of_sections<S>(e);
  }
};

template <PackedScheme S>
PackedBytes allocate_packed(Extents e, bool with_column_order, std::string_view provenance) {
  return std::move(PackedTensor<S>::allocate(e, with_column_order, provenance).bytes());
}

}  // namespace detail

template <PackedScheme S>
inline constexpr SchemeOps scheme_ops_v{.name = S::name,
                                        .per_tensor = detail::GroupsOf<S>::per_tensor,
                                        .per_row = detail::GroupsOf<S>::per_row,
                                        .group_cols = &detail::GroupsOf<S>::group_cols,
                                        .groups_per_row = &detail::GroupsOf<S>::groups_per_row,
                                        .index = &detail::GroupsOf<S>::index,
                                        .joint_scales = detail::GroupsOf<S>::joint_scales,
                                        .no_scales = detail::GroupsOf<S>::no_scales,
                                        .largest_scale = detail::GroupsOf<S>::largest_scale,
                                        .bits_per_weight = &detail::GroupsOf<S>::bits_per_weight,
                                        .allocate = &detail::allocate_packed<S>,
                                        .check = &PackedTensor<S>::template check<>};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
