#pragma once
// The search for NaN and infinity in what comes from outside.

#include <bit>
#include <cstdint>
#include <utility>

#include <anybit/core/view.hpp>

namespace anybit::calibrate {
inline namespace ANYBIT_CODE {

/// By its bits, so that -ffast-math cannot argue it away.
ANYBIT_INLINE bool is_finite(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7F800000u) != 0x7F800000u; }

/// Where a matrix has its first NaN or infinity, or {-1, -1}.
inline std::pair<Index, Index> find_not_finite(ConstMatrix m) {
  for (Index r = 0; r < m.rows; ++r) {
    std::uint32_t bad = 0;
    for (const float v : m.row(r)) bad |= static_cast<std::uint32_t>(!is_finite(v));
    if (bad == 0) continue;
    for (Index c = 0; c < m.cols; ++c)
      if (!is_finite(m(r, c))) return {r, c};
  }
  return {-1, -1};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::calibrate
