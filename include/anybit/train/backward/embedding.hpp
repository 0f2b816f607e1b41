#pragma once
// Gradient of the rows that an embedding looks up (nn/embedding.hpp).

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit::train::backward {
inline namespace ANYBIT_CODE {

/// dtable(ids_t, j) += share dx_tj, t in order; dx (ids, width), dtable (vocabulary, width). Threads take stripes of columns, so
/// that a token that comes twice is summed in one order.
inline void embed(std::span<const std::int32_t> ids, ConstMatrix dx, MutableMatrix dtable, ExecutorRef executor,
                  float share = 1) {
  ANYBIT_CHECK(static_cast<Index>(ids.size()) == dx.rows && dx.cols == dtable.cols, "backward::embed: shapes differ");
  parallel_tiles(executor, dx.cols, 64, [&](Index begin, Index end) {
    for (Index t = 0; t < dx.rows; ++t) {
      const Index row = ids[static_cast<std::size_t>(t)];
      ANYBIT_CHECK(row >= 0 && row < dtable.rows, "backward::embed: no such row");
      for (Index j = begin; j < end; ++j) dtable(row, j) += share * dx(t, j);
    }
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::backward

#include <anybit/core/macros_end.hpp>
