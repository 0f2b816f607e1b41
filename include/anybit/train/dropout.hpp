#pragma once
// Dropout (Srivastava et al., 2014) of what adapters read, from random numbers by counter: the backward pass draws the same mask
// again.

#include <cstdint>

#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/train/random.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

struct Dropout {
  float rate = 0;          ///< 0 <= rate < 1: the share of values that become 0; the others are divided by 1 - rate
  std::uint64_t seed = 0;  ///< of the run
  std::uint64_t step = 0;  ///< another mask for every micro-batch
};

/// Of one linear: mask of element (t, j) is Draws(seed, step 2^20 + linear).uniform(t cols + j) >= rate.
class DropoutMask {
 public:
  DropoutMask(const Dropout& d, std::uint64_t linear)
      : rate_(d.rate), factor_(1.0f / (1.0f - d.rate)), draws_(d.seed, (d.step << 20) + linear) {}

  /// y = dropout(x), or y += dropout(x), which is also the gradient by x; shapes are equal.
  void apply(ConstMatrix x, MutableMatrix y, bool add, ExecutorRef executor) const {
    ANYBIT_CHECK(x.extents() == y.extents(), "DropoutMask::apply: shapes differ");
    executor.parallel_for(x.rows, 4, [&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t)
        for (Index j = 0; j < x.cols; ++j) {
          const bool kept = draws_.uniform(static_cast<std::uint64_t>(t * x.cols + j)) >= rate_;
          y(t, j) = (add ? y(t, j) : 0.0f) + (kept ? x(t, j) * factor_ : 0.0f);
        }
    });
  }

 private:
  float rate_, factor_;
  Draws draws_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::train
