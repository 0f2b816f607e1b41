#pragma once
// Buckets of relative positions (Raffel et al. 2020, arXiv:1910.10683, section 2.1; their library, mesh_tensorflow, has the
// numbers).
//
//   B' = B / 2 buckets for keys behind the query and B' for keys ahead of it, where both are seen; else B' = B, and keys ahead
//   are none n = |distance|,  m = B' / 2 bucket(n) = n                                                        for n < m
//               min(m + floor(log(n / m) / log(D / m) (B' - m)), B' - 1)  else
//
// The logarithms are of float32, in which such models are trained: at powers of two of n / m rounding decides.

#include <cmath>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// `distance` = position of the key - position of the query.
inline Index relative_bucket(Index distance, bool both_sides, Index buckets, Index longest) {
  Index first = 0, n = -distance;
  if (both_sides) {
    buckets /= 2;
    if (distance > 0) first = buckets, n = distance;
  } else if (n < 0) {
    n = 0;
  }
  const Index single = buckets / 2;
  if (n < single) return first + n;
  const float grown = std::log(static_cast<float>(n) / static_cast<float>(single));
  const float whole = static_cast<float>(std::log(static_cast<double>(longest) / static_cast<double>(single)));
  const Index bucket = single + static_cast<Index>(grown / whole * static_cast<float>(buckets - single));
  return first + (bucket < buckets - 1 ? bucket : buckets - 1);
}

/// AttentionOptions::distance_bias of a table (buckets, heads), for distances up to `longest`, behind which all are in one
/// bucket.
inline Matrix relative_bias(const Matrix& table, bool both_sides, Index longest) {
  Matrix out(table.cols, 2 * longest + 1);
  for (Index h = 0; h < table.cols; ++h)
    for (Index d = -longest; d <= longest; ++d)
      out(h, longest + d) = table(relative_bucket(d, both_sides, table.rows, longest), h);
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
