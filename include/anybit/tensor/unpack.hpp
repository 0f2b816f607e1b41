#pragma once
// The fast way from packed bytes to codes, for kernels and for everything else that reads many of them.

#include <span>

#include <anybit/tensor/packed_tensor.hpp>

namespace anybit::inline ANYBIT_CODE {

/// Codes first .. first + out.size() - 1 of a row; first is a multiple of S::layout::granule and first + out.size() <= cols.
/// Reads nothing past the row's bytes, writes nothing past `out`.
template <AnyScheme S>
ANYBIT_INLINE void unpack_codes(const PackedTensor<S>& t, Index row, Index first, std::span<typename S::code> out) {
  S::layout::template unpack<S::bits>(t.row_codes(row), t.cols(), first, out);
}

}  // namespace anybit::inline ANYBIT_CODE
