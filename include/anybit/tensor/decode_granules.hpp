#pragma once
// Weights of a scheme that decodes granule by granule, whole or not.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstring>

#include <anybit/scheme/concepts.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Columns first .. first + n - 1 of rows row .. row + rows - 1, all of which exist; rows are `stride` apart in `out`.
template <PackedScheme S>
void decode_granules(Sections sections, Extents e, Index row, Index rows, Index first, Index n, float* out, Index stride) {
  constexpr Index height = S::granule_rows, width = S::granule_cols;
  float granule[static_cast<std::size_t>(height * width)];
  for (Index r = row / height * height; r < row + rows; r += height)
    for (Index c = first / width * width; c < first + n; c += width) {
      S::decode(sections, e, r, c, granule);
      const Index from = std::max(c, first), count = std::min(c + width, first + n) - from;
      for (Index i = std::max(r, row); i < std::min(r + height, row + rows); ++i)
        std::memcpy(out + (i - row) * stride + (from - first), granule + (i - r) * width + (from - c),
                    static_cast<std::size_t>(count) * sizeof(float));
    }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
