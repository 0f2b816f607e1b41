#pragma once

#include <algorithm>
#include <cmath>

#include <anybit/core/view.hpp>

#include "support/catch.hpp"

namespace test_support {

/// max |a - b| over all elements of two matrices of one shape.
inline double largest_difference(anybit::ConstMatrix a, anybit::ConstMatrix b) {
  REQUIRE(a.extents() == b.extents());
  double worst = 0;
  for (anybit::Index r = 0; r < a.rows; ++r)
    for (anybit::Index c = 0; c < a.cols; ++c)
      worst = std::max(worst, std::abs(static_cast<double>(a(r, c)) - static_cast<double>(b(r, c))));
  return worst;
}

}  // namespace test_support
