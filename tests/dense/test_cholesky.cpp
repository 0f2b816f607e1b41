#include "support/catch.hpp"

#include <limits>
#include <random>

#include <anybit/core/matrix.hpp>
#include <anybit/dense/cholesky.hpp>

using namespace anybit;

namespace {

/// Positive definite, of which only the lower triangle is right.
template <class Real>
std::vector<Real> lower_of_random(Index n, std::vector<Real>& full) {
  std::mt19937 random(static_cast<unsigned>(n));
  std::normal_distribution<double> normal;
  const auto at = [n](Index i, Index j) { return static_cast<std::size_t>(i * n + j); };
  std::vector<double> x(static_cast<std::size_t>(n * (n + 3)));
  for (double& v : x) v = normal(random);
  full.assign(static_cast<std::size_t>(n * n), 0);
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) {
      double sum = i == j ? 0.1 * static_cast<double>(n) : 0;
      for (Index t = 0; t < n + 3; ++t) sum += x[static_cast<std::size_t>(t * n + i)] * x[static_cast<std::size_t>(t * n + j)];
      full[at(i, j)] = static_cast<Real>(sum / static_cast<double>(n));
    }
  std::vector<Real> lower = full;
  for (Index i = 0; i < n; ++i)
    for (Index j = i + 1; j < n; ++j) lower[at(i, j)] = std::numeric_limits<Real>::quiet_NaN();
  return lower;
}

template <class Real>
void check(Index n, double close) {
  INFO(n);
  std::vector<Real> full, r = lower_of_random(n, full);
  REQUIRE(dense::cholesky_from_last(MatrixView<Real>(r.data(), n, n)));
  const auto at = [n](Index i, Index j) { return static_cast<std::size_t>(i * n + j); };
  double worst = 0;
  for (Index i = 0; i < n; ++i) {
    CHECK(r[at(i, i)] > 0);
    for (Index j = i; j < n; ++j) {
      double sum = 0;
      for (Index k = j; k < n; ++k) sum += static_cast<double>(r[at(k, i)]) * static_cast<double>(r[at(k, j)]);
      worst = std::max(worst, std::fabs(sum - static_cast<double>(full[at(i, j)])));
    }
  }
  CHECK(worst < close);
}

}  // namespace

TEST_CASE("L^T L is the matrix, whatever stands right of the diagonal") {
  for (const Index n : {1, 2, 3, 17, 127, 128, 129, 300}) {
    check<float>(n, 3e-6);
    check<double>(n, 1e-14);
  }
}

TEST_CASE("rows that lie apart") {
  std::vector<double> full, lower = lower_of_random<double>(131, full), apart(131 * 140, 7.0);
  const MatrixView<double> view(apart.data(), 131, 131, 140), packed(lower.data(), 131, 131);
  for (Index i = 0; i < 131; ++i)
    for (Index j = 0; j < 131; ++j) view(i, j) = packed(i, j);
  REQUIRE(dense::cholesky_from_last(view));
  REQUIRE(dense::cholesky_from_last(packed));
  for (Index i = 0; i < 131; ++i) {
    for (Index j = 0; j <= i; ++j) REQUIRE(view(i, j) == packed(i, j));
    for (Index j = 131; j < 140; ++j) REQUIRE(apart[static_cast<std::size_t>(i * 140 + j)] == 7.0);
  }
}

TEST_CASE("what is not positive definite has no factor") {
  const auto fails = [](std::vector<double> h, Index n) {
    return !dense::cholesky_from_last(MatrixView<double>(h.data(), n, n));
  };
  CHECK(fails({0}, 1));
  CHECK(fails({-1}, 1));
  CHECK(fails({std::numeric_limits<double>::quiet_NaN()}, 1));
  CHECK(fails({std::numeric_limits<double>::infinity()}, 1));
  CHECK(fails({1, 1, 1, 1}, 2));
  CHECK(fails({1, 2, 2, 1}, 2));
  CHECK(!fails({1, 0.5, 0.5, 1}, 2));
  std::vector<double> full, lower = lower_of_random<double>(200, full);
  lower[3 * 200 + 3] = -1;  // in the block that is reached last
  CHECK(fails(lower, 200));
}
