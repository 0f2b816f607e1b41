#pragma once
// Sums of activations, row by row.

#include <span>

#include <anybit/core/eigen_view.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit::nn {
inline namespace ANYBIT_CODE {

/// Rows that a thread takes at least in loops over tokens; a slice of less work than this costs more than it saves.
inline constexpr Index token_grain = 4;

/// to += x, both (tokens, width).
inline void add(ConstMatrix x, MutableMatrix to, ExecutorRef executor) {
  ANYBIT_CHECK(x.extents() == to.extents(), "nn::add: shapes differ");
  executor.parallel_for(x.rows, 4 * token_grain,
                        [&](Index begin, Index end) { as_eigen(to.row_range(begin, end)) += as_eigen(x.row_range(begin, end)); });
}

/// Adds `bias` (width) to every row of (tokens, width).
inline void add_bias(std::span<const float> bias, MutableMatrix to, ExecutorRef executor) {
  ANYBIT_CHECK(static_cast<Index>(bias.size()) == to.cols, "nn::add_bias: shapes differ");
  executor.parallel_for(to.rows, 4 * token_grain, [&](Index begin, Index end) {
    const Eigen::Map<const Eigen::RowVectorXf> row(bias.data(), to.cols);
    as_eigen(to.row_range(begin, end)).rowwise() += row;
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn
