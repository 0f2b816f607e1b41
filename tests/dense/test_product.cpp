#include "support/catch.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <anybit/dense/product_kernel.hpp>

using namespace anybit;

namespace {

template <class Real>
struct Dense {
  Index rows, cols, stride;
  std::vector<Real> values;

  Dense(Index r, Index c, Index s, unsigned seed) : rows(r), cols(c), stride(s), values(static_cast<std::size_t>(r * s)) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    for (Real& v : values) v = static_cast<Real>(normal(random));
  }
  MatrixView<Real> view() { return {values.data(), rows, cols, stride}; }
  MatrixView<const Real> view() const { return {values.data(), rows, cols, stride}; }
};

/// Against sums in long double; `epsilon` of Real, of the sum of magnitudes for each of the roundings on the way.
template <class Real>
void check(Index m, Index n, Index depth, bool transposed, Real share) {
  CAPTURE(m, n, depth, transposed, share);
  const Dense<Real> a(transposed ? depth : m, transposed ? m : depth, (transposed ? m : depth) + 3, 1), b(depth, n, n + 1, 2);
  Dense<Real> c(m, n, n + 5, 3);
  const Dense<Real> before = c;
  (transposed ? simd::add_transposed_product<Real> : simd::add_product<Real>)(a.view(), b.view(), c.view(), share);
  for (Index i = 0; i < m; ++i) {
    for (Index j = 0; j < n; ++j) {
      long double exact = 0, size = std::fabs(before.view()(i, j));
      for (Index k = 0; k < depth; ++k) {
        const long double p =
            static_cast<long double>(transposed ? a.view()(k, i) : a.view()(i, k)) * static_cast<long double>(b.view()(k, j));
        exact += p;
        size += std::fabs(p);
      }
      exact = static_cast<long double>(before.view()(i, j)) + static_cast<long double>(share) * exact;
      size *= std::fmax(1, std::fabs(static_cast<long double>(share)));
      const auto limit =
          static_cast<long double>(std::numeric_limits<Real>::epsilon()) * size * std::sqrt(static_cast<long double>(depth + 9));
      if (!(std::fabs(static_cast<long double>(c.view()(i, j)) - exact) <= limit)) FAIL_CHECK(i << ", " << j);
    }
    for (Index j = n; j < c.stride; ++j)  // between the rows nothing is touched
      REQUIRE(c.values[static_cast<std::size_t>(i * c.stride + j)] == before.values[static_cast<std::size_t>(i * c.stride + j)]);
  }
}

template <class Real>
void check_all() {
  for (const Index m : {1, 5, 6, 7, 25, 101})
    for (const Index n : {1, 15, 16, 65, 130})
      for (const Index depth : {1, 17, 256, 257})
        for (const bool transposed : {false, true})
          check<Real>(m, n, depth, transposed, static_cast<Real>(m % 2 == 0 ? 1 : -0.75));
  check<Real>(13, 300, 40, true, 1);  // more columns than one block, few and many rows
  check<Real>(60, 520, 40, false, 1);
}

}  // namespace

TEST_CASE("dense products of every shape and order", "[simd]") {
  check_all<float>();
  check_all<double>();
}

TEST_CASE("a dense product has the same bits however it is cut", "[simd]") {
  const Dense<float> a(600, 131, 131, 1), b(600, 333, 333, 2);
  Dense<float> whole(131, 333, 333, 3), cut = whole;
  simd::add_transposed_product<float>(a.view(), b.view(), whole.view());
  for (Index r = 0; r < 131; r += 29)
    for (Index c = 0; c < 333; c += 50) {
      const Index rows = std::min<Index>(r + 29, 131), cols = std::min<Index>(c + 50, 333);
      simd::add_transposed_product<float>(a.view().col_range(r, rows), b.view().col_range(c, cols),
                                          cut.view().row_range(r, rows).col_range(c, cols));
    }
  CHECK(std::memcmp(whole.values.data(), cut.values.data(), whole.values.size() * sizeof(float)) == 0);
}

TEST_CASE("a product of nothing leaves all as it was, and a NaN stays in its row or column", "[simd]") {
  Dense<float> c(3, 4, 4, 1);
  const Dense<float> before = c;
  simd::add_product<float>(ConstMatrix{nullptr, 3, 0}, ConstMatrix{nullptr, 0, 4}, c.view());
  simd::add_product<float>(ConstMatrix{nullptr, 0, 7}, ConstMatrix{nullptr, 7, 4}, c.view().row_range(0, 0));
  CHECK(c.values == before.values);

  Dense<float> a(9, 20, 20, 2), b(20, 70, 70, 3), d(9, 70, 70, 4);
  a.view()(7, 3) = std::numeric_limits<float>::quiet_NaN();
  b.view()(11, 65) = std::numeric_limits<float>::infinity();
  simd::add_product<float>(std::as_const(a).view(), std::as_const(b).view(), d.view());
  for (Index i = 0; i < 9; ++i)
    for (Index j = 0; j < 70; ++j) CHECK(std::isfinite(d.view()(i, j)) == (i != 7 && j != 65));
}

TEST_CASE("multiples of a row", "[simd]") {
  for (const Index n : {0, 1, 7, 16, 33}) {
    const Dense<double> from(1, 40, 40, 1);
    Dense<double> to(1, 40, 40, 2);
    const Dense<double> before = to;
    simd::add_multiple(0.5, from.values.data(), n, to.values.data());
    for (std::size_t i = 0; i < 40; ++i)
      CHECK(to.values[i] == before.values[i] + (static_cast<Index>(i) < n ? 0.5 * from.values[i] : 0));
  }
}
