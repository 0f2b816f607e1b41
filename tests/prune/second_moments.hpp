#pragma once
// Statistics of activations with everything that pruners and SparseGPT read.

#include <anybit/calibrate/stats.hpp>

#include "support/catch.hpp"

namespace test_support {

inline anybit::Stats second_moments(const anybit::Matrix& x) {
  using anybit::Needs;
  anybit::Stats s(x.cols(), Needs::abs_max | Needs::mean_square | Needs::hessian);
  REQUIRE(s.accumulate(x.view()).ok());
  return s;
}

}  // namespace test_support
