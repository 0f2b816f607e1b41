#pragma once
// The products of dense matrices that calibrated methods need, and their division into tasks.

#include <algorithm>

#include <anybit/core/types.hpp>
#include <anybit/core/view.hpp>
#include <anybit/dense/product_kernel.hpp>

namespace anybit::dense {
inline namespace ANYBIT_CODE {

/// Rows of one task of such products: several tiles, so that the other factor is read once for them, and few enough that even a
/// small matrix has tasks to go round. It depends on the matrix alone, so results do not depend on the number of threads.
constexpr Index task_rows(Index rows) {
  constexpr Index tile = 64, most = 4 * tile, tasks = 8;
  return std::clamp(round_up(ceil_div(rows, tasks), tile), tile, most);
}

using simd::add_product;
using simd::add_transposed_product;

}  // namespace ANYBIT_CODE
}  // namespace anybit::dense
