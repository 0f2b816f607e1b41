#pragma once
// Gradients by central differences of a loss in double precision, and comparison with them.

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/reference/matrix.hpp>

#include "support/catch.hpp"
#include "support/same_bits.hpp"

namespace train_tests {

namespace ref = anybit::reference;
using anybit::Index;

inline anybit::Matrix some(unsigned seed, Index rows, Index cols, float size = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, size);
  anybit::Matrix m(rows, cols);
  for (Index i = 0; i < m.extents().size(); ++i) m.data()[i] = normal(rng);
  return m;
}
inline std::vector<float> some_values(unsigned seed, Index size) {
  const anybit::Matrix m = some(seed, 1, size);
  return {m.data(), m.data() + size};
}

/// d loss() / d at(i), one by one; loss reads `at`.
template <class Loss>
std::vector<double> slopes(std::vector<double>& at, Loss&& loss, double step = 1e-5) {
  std::vector<double> out;
  for (double& x : at) {
    const double here = x;
    x = here + step;
    const double above = loss();
    x = here - step;
    const double below = loss();
    x = here;
    out.push_back((above - below) / (2 * step));
  }
  return out;
}

/// sum_i w_i y_i: a loss whose gradient by y is w.
inline double weighed(const ref::Matrix& y, const anybit::Matrix& w) {
  double sum = 0;
  for (Index r = 0; r < y.rows; ++r)
    for (Index c = 0; c < y.cols; ++c) sum += y(r, c) * static_cast<double>(w(r, c));
  return sum;
}

/// max |got - want| over max |want|.
inline double off(const float* got, const std::vector<double>& want) {
  double difference = 0, most = 1e-30;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(got[i]) - want[i]));
    most = std::max(most, std::abs(want[i]));
  }
  return difference / most;
}
inline void check_gradient(const anybit::Matrix& got, const std::vector<double>& want, double tolerance = 1e-4) {
  REQUIRE(got.extents().size() == static_cast<Index>(want.size()));
  CHECK(off(got.data(), want) < tolerance);
}

/// Runs op(executor) -> Matrix alone and with three threads, whose bits must agree.
template <class Op>
anybit::Matrix alone_and_threaded(Op&& op) {
  anybit::ThreadPool pool(3);
  const anybit::Matrix one = op(anybit::ExecutorRef()), many = op(anybit::ExecutorRef(pool));
  REQUIRE(test_support::same_bits(one, many));
  return one;
}

}  // namespace train_tests
