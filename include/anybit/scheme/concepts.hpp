#pragma once
// The two kinds of schemes. A PackedScheme says how bytes become weights, which is all that files, run-time handles and products
// ask for. A ScalarScheme (Scheme<Format, Granularity, ScaleStore, Layout>) gives every weight a code of its own besides, which
// is what algorithms choose.

#include <array>
#include <concepts>
#include <cstddef>
#include <span>
#include <string_view>

#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Four characters, by which files tell the sections of a packed tensor apart.
using SectionTag = std::array<char, 4>;
namespace section_tags {
inline constexpr SectionTag codes{'c', 'o', 'd', 'e'}, scales{'s', 'c', 'a', 'l'}, zeros{'z', 'e', 'r', 'o'};
/// The original column of each stored column, 4 bytes each. Any tensor may have it; no scheme lists it.
inline constexpr SectionTag order{'o', 'r', 'd', 'r'};
}  // namespace section_tags

struct SectionSize {
  SectionTag tag;
  Index bytes;
  bool at_most = false;  ///< the weights decide how many it has, up to `bytes`
};
/// The bytes of a tensor's sections, as the scheme lists them.
using Sections = std::span<const std::span<const std::byte>>;

/// name                      unique; files record it
/// sections(e)               tags and sizes of the sections of a matrix of extents e, an array; a constant number of them. One of
///                           variable size (SectionSize::at_most) asks for a check()
/// granule_rows, granule_cols    weights that are decoded together: 1 to 16 rows, 1 to 512 columns
/// decode(s, e, row, col, out)   the weights of the granule that starts at (row, col), multiples of the granule's size, into
///                           granule_rows x granule_cols floats, row after row; those past the matrix's end may be anything.
///                           Reads nothing past the sections; any bytes decode to something.
/// A scheme whose bytes may be impossible also has check(s, e) -> Status; whoever opens a file asks it, and decode may then rely
/// on it. One that prepares for decoding has a type Decoder besides, made from its sections and called like decode: loops over
/// granules make one.
template <class S>
concept PackedScheme = requires(Sections s, Extents e, Index i, float* out) {
  { S::name } -> std::convertible_to<std::string_view>;
  { std::span<const SectionSize>(S::sections(e)) };
  { S::granule_rows } -> std::convertible_to<Index>;
  { S::granule_cols } -> std::convertible_to<Index>;
  requires(S::granule_rows >= 1 && S::granule_rows <= 16 && S::granule_cols >= 1 && S::granule_cols <= 512);
  S::decode(s, e, i, i, out);
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
