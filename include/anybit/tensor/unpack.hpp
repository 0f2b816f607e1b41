#pragma once
// The fast conversion between packed bytes and codes, for kernels and all other bulk work. The library's layouts
// have vectorized bodies; a user's own layout uses its own pack and unpack.

#include <span>
#include <type_traits>

#include <anybit/scheme/two_of_four.hpp>
#include <anybit/simd/bit_stream.hpp>
#include <anybit/simd/two_of_four.hpp>
#include <anybit/tensor/packed_tensor.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// What L::unpack<Bits>(row, cols, first, out) does.
template <class L, int Bits>
ANYBIT_INLINE void unpack_row(const std::byte* row, Index cols, Index first, std::span<StoredCode<Bits>> out) {
  const auto n = static_cast<Index>(out.size());
  if constexpr (std::is_same_v<L, BitStream> && Bits <= 8)
    simd::unpack_bits<Bits>(row + first / 8 * Bits, out.data(), n);
  else if constexpr (std::is_same_v<L, BitStream>)
    simd::unpack_wide_bits<Bits>(row + first / 8 * Bits, out.data(), n);
  else if constexpr (std::is_same_v<L, Base3>)
    simd::unpack_base3(row + first / 5, out.data(), n);
  else if constexpr (is_two_of_four_v<L> && Bits <= 8)
    simd::unpack_two_of_four<Bits>(row + first / 32 * L::template field_bits<Bits>, out.data(), n,
                                   static_cast<std::uint8_t>(L::zero_code), two_of_four_patterns);
  else
    L::template unpack<Bits>(row, cols, first, out);
}

/// What L::pack<Bits>(codes, row) does.
template <class L, int Bits>
ANYBIT_INLINE void pack_row(std::span<const StoredCode<Bits>> codes, std::byte* row) {
  const auto n = static_cast<Index>(codes.size());
  if constexpr (std::is_same_v<L, BitStream> && Bits <= 8)
    simd::pack_bits<Bits>(codes.data(), row, n);
  else if constexpr (std::is_same_v<L, BitStream>)
    simd::pack_wide_bits<Bits>(codes.data(), row, n);
  else if constexpr (std::is_same_v<L, Base3>)
    simd::pack_base3(codes.data(), row, n);
  else
    L::template pack<Bits>(codes, row);
}

/// Codes first .. first + out.size() - 1 of a row; first is a multiple of S::layout::granule and first + out.size() <= cols.
/// Reads nothing past the row's bytes, writes nothing past `out`.
template <AnyScheme S>
ANYBIT_INLINE void unpack_codes(const PackedTensor<S>& t, Index row, Index first, std::span<typename S::code> out) {
  unpack_row<typename S::layout, S::bits>(t.row_codes(row), t.cols(), first, out);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit
