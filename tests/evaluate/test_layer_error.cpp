#include <cmath>
#include <random>

#include <anybit/core/matrix.hpp>
#include <anybit/evaluate/layer_error.hpp>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::evaluate;

TEST_CASE("weight and output error, by hand") {
  const float w[] = {3, 4, 0, 0}, q[] = {3, 3, 0, 0.5f}, x[] = {1, 2};
  const ConstMatrix W(w, 2, 2), Q(q, 2, 2), X(x, 1, 2);
  CHECK(relative_error(W, Q) == Approx(std::sqrt(1.25) / 5));
  // (W - Q) x = (2, -1), W x = (11, 0)
  CHECK(output_error(W, Q, X) == Approx(std::sqrt(5.0) / 11));
  CHECK(relative_error(W, W) == 0);
  CHECK(relative_error({}, {}) == 0);
  const float zeros[4] = {};
  CHECK(relative_error(ConstMatrix(zeros, 2, 2), ConstMatrix(zeros, 2, 2)) == 0);
  CHECK(std::isinf(relative_error(ConstMatrix(zeros, 2, 2), Q)));
}

TEST_CASE("RelativeError of strided parts adds up to the whole") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Matrix a(7, 13), b(7, 13);
  double error = 0, reference = 0;
  for (Index r = 0; r < 7; ++r)
    for (Index c = 0; c < 11; ++c) {
      a(r, c) = normal(random), b(r, c) = a(r, c) + 0.1f * normal(random);
      const double d = double{a(r, c)} - double{b(r, c)};
      error += d * d, reference += double{a(r, c)} * double{a(r, c)};
    }
  const ConstMatrix va(a.data(), 7, 11, 13), vb(b.data(), 7, 11, 13);
  RelativeError top, bottom;
  top.add(va.row_range(0, 3), vb.row_range(0, 3));
  bottom.add(va.row_range(3, 7), vb.row_range(3, 7));
  top.add(bottom);
  CHECK(top.value() == Approx(std::sqrt(error / reference)).epsilon(1e-12));
  CHECK(top.value() == Approx(relative_error(va, vb)).epsilon(1e-12));
}
