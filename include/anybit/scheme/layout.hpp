#pragma once
// The concept of a layout: the bytes of one row's codes. Rows start on a byte.

#include <concepts>
#include <span>
#include <string_view>

#include <anybit/core/fixed_string.hpp>
#include <anybit/core/types.hpp>
#include <anybit/format/format.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// granule                    codes that share no byte with their neighbours: unpacking may start at any multiple of it
/// packed_bytes<Bits>(n)      bytes of a row of n codes
/// pack<Bits>(codes, out)     writes packed_bytes(codes.size()) bytes; unused bits of the last byte are 0
/// unpack<Bits>(in, n, first, out)   codes first .. first + out.size() - 1 of a row of n; first is a multiple of granule.
///                            Never reads past packed_bytes(n).
/// Codes must be below 2^Bits (below 3 for base 3).
/// A layout that does not hold every row of such codes also has
/// misfit<Bits>(codes)        the first code that keeps a row from being packed, or -1
/// and a `zero_code`, which the format must decode to 0, if one code is special to it.
template <class L, int Bits>
concept PackLayout = requires(Index n, std::span<const StoredCode<Bits>> codes, std::span<StoredCode<Bits>> out, std::byte* bytes,
                              const std::byte* in) {
  { L::name } -> std::convertible_to<std::string_view>;
  { L::granule } -> std::convertible_to<Index>;
  { L::template packed_bytes<Bits>(n) } -> std::same_as<Index>;
  L::template pack<Bits>(codes, bytes);
  L::template unpack<Bits>(in, n, n, out);
};

template <class L, int Bits>
concept PartialLayout =
    PackLayout<L, Bits> && requires(std::span<const StoredCode<Bits>> codes) { L::template misfit<Bits>(codes); };

}  // namespace ANYBIT_ABI
}  // namespace anybit
