#pragma once
// Sums over tokens, one per column: gradients of gains and biases.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <span>

#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit::train::backward {
inline namespace ANYBIT_CODE {

/// sums_j += sum_t term(t, j), t = 0 .. rows - 1 in this order whatever the number of threads; each thread takes stripes of
/// columns.
template <class Term>
void add_column_sums(Index rows, std::span<float> sums, ExecutorRef executor, Term&& term) {
  constexpr Index stripe = 64;  // the sums of one stripe stay in the first-level cache
  parallel_tiles(executor, static_cast<Index>(sums.size()), stripe, [&](Index begin, Index end) {
    for (Index first = begin; first < end; first += stripe) {
      const Index last = std::min(first + stripe, end);
      for (Index t = 0; t < rows; ++t)
        for (Index j = first; j < last; ++j) sums[static_cast<std::size_t>(j)] += term(t, j);
    }
  });
}

/// sums_j += sum_t x_tj.
inline void add_column_sums(ConstMatrix x, std::span<float> sums, ExecutorRef executor) {
  ANYBIT_CHECK(static_cast<Index>(sums.size()) == x.cols, "add_column_sums: shapes differ");
  add_column_sums(x.rows, sums, executor, [x](Index t, Index j) { return x(t, j); });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::backward

#include <anybit/core/macros_end.hpp>
