#pragma once
// Integer grids with a zero point and binary16 scales, by each method; the papers of GPTQ and AWQ share them.

#include <anybit/grid/grid_fit.hpp>

#include "method.hpp"

namespace reproduce {

/// One scale and zero point for each run of `group` columns; a whole row if it is `whole_row`. What both methods know: rows at 4
/// and 3 bits, groups of 128 at 4, 3 and 2 bits, groups of 32 at 2 bits.
inline constexpr int whole_row = 0;

Method round_to_nearest(int bits, int group, anybit::Range range = anybit::Range::format,
                        anybit::Search search = anybit::Search::none);
Method gptq(int bits, int group, bool act_order = false, anybit::Search search = anybit::Search::none);

}  // namespace reproduce
