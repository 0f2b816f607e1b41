// Hessians weighted by gradients: the readable twin, and laws.

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <tuple>

#include <anybit/calibrate/guided_hessian.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/reference/guided_hessian.hpp>

#include "support/catch.hpp"

using namespace anybit;
namespace ref = anybit::reference;

namespace {

Matrix drawn(unsigned seed, Index rows, Index cols, float size) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, size);
  Matrix m(rows, cols);
  for (Index i = 0; i < m.extents().size(); ++i) m.data()[i] = normal(random);
  return m;
}

GuidedHessian guided(const Matrix& x, const Matrix& dy, Index groups, ExecutorRef executor = {}) {
  GuidedHessian h = GuidedHessian::make({dy.cols(), x.cols()}, groups).value();
  REQUIRE(h.accumulate(x.view(), dy.view(), executor).ok());
  return h;
}

double largest(const ref::Matrix& m) {
  double most = 0;
  for (const double v : m.values) most = std::max(most, std::abs(v));
  return most;
}

void check_equal(const Matrix& got, const ref::Matrix& want, double factor = 1) {
  REQUIRE(got.extents() == Extents{want.rows, want.cols});
  double off = 0;
  for (Index i = 0; i < want.rows; ++i)
    for (Index j = 0; j < want.cols; ++j) off = std::max(off, std::abs(static_cast<double>(got(i, j)) - factor * want(i, j)));
  CHECK(off <= 3e-6 * factor * largest(want));
}

}  // namespace

TEST_CASE("guided Hessians are those of the twin: ragged groups, gradients of any size, any cut of the tokens") {
  ThreadPool three(3);
  for (const auto& [tokens, inputs, outputs, groups] :
       {std::tuple<Index, Index, Index, Index>{37, 5, 11, 3}, {300, 130, 9, 4}, {1, 1, 1, 1}, {8, 7, 4, 4}})
    for (const float size : {1.0f, 1e-7f, 1e9f}) {
      CAPTURE(tokens, inputs, outputs, groups, size);
      const Matrix x = drawn(1, tokens, inputs, 2), dy = drawn(2, tokens, outputs, size);
      const GuidedHessian h = guided(x, dy, groups), threaded = guided(x, dy, groups, three);
      const auto want = ref::guided_hessians(ref::matrix_of(x), ref::matrix_of(dy), groups);
      Index rows = 0;
      for (Index k = 0; k < groups; ++k) {
        CHECK(h.begin(k) == rows);
        rows = h.end(k);
        check_equal(h.at(k).hessian(), want[static_cast<std::size_t>(k)]);
        CHECK(h.at(k).to_bytes() == threaded.at(k).to_bytes());
      }
      CHECK(rows == outputs);
      CHECK(h.tokens() == tokens);
      GuidedHessian cut = GuidedHessian::make({outputs, inputs}, groups).value();
      const Index half = tokens / 2;
      REQUIRE(cut.accumulate(x.view().row_range(0, half), dy.view().row_range(0, half)).ok());
      REQUIRE(cut.accumulate(x.view().row_range(half, tokens), dy.view().row_range(half, tokens)).ok());
      check_equal(cut.at(0).hessian(), want[0]);
    }
}

TEST_CASE("guided Hessians: constant gradients give the plain Hessian up to a factor, one row per group the Fisher diagonal") {
  const Matrix x = drawn(3, 41, 6, 1);
  Matrix constant(41, 7);
  std::fill_n(constant.data(), constant.extents().size(), -0.5f);
  Stats plain(6, Needs::hessian | Needs::abs_max);
  REQUIRE(plain.accumulate(x.view()).ok());
  const GuidedHessian same = guided(x, constant, 2);
  for (Index k = 0; k < 2; ++k) check_equal(same.at(k).hessian(), ref::matrix_of(plain.hessian()), 0.25);
  // In place of the plain one: the other statistics stay.
  const Stats put = same.stats(1, plain).value();
  check_equal(put.hessian(), ref::matrix_of(plain.hessian()), 0.25);
  CHECK(put.tokens() == plain.tokens());
  CHECK(std::equal(put.abs_max().begin(), put.abs_max().end(), plain.abs_max().begin()));

  const Matrix dy = drawn(4, 41, 7, 0.1f);
  const GuidedHessian rows = guided(x, dy, 7);
  for (Index k = 0; k < 7; ++k)
    for (Index j = 0; j < 6; ++j) {
      double fisher = 0;
      for (Index t = 0; t < 41; ++t) {
        const double g = static_cast<double>(dy(t, k)) * static_cast<double>(x(t, j));
        fisher += g * g / 41;
      }
      CHECK(static_cast<double>(rows.at(k).hessian()(j, j)) == Approx(2 * fisher).epsilon(1e-5));
    }
}

TEST_CASE("guided Hessians: what they refuse, and outputs without gradients") {
  CHECK(GuidedHessian::make({3, 8}, 4).error().message == "guided: 4 groups of 3 outputs; give 1 to 3");
  CHECK(GuidedHessian::make({3, 8}, 0).error().message == "guided: 0 groups of 3 outputs; give 1 to 3");
  Matrix x = drawn(5, 4, 8, 1), dy = drawn(6, 4, 3, 1);
  GuidedHessian h = GuidedHessian::make({3, 8}, 3).value();
  CHECK(h.accumulate(x.view(), dy.view().row_range(0, 3)).error().message ==
        "guided: activations of 4 x 8 and gradients of 3 x 3 for a layer of 8 inputs and 3 outputs");
  REQUIRE(h.accumulate(x.view(), dy.view()).ok());
  const auto before = h.at(0).to_bytes();
  dy(2, 1) = std::numeric_limits<float>::infinity();
  CHECK(h.accumulate(x.view(), dy.view()).error().message.starts_with("guided: the gradient of token 6, output 1 is inf"));
  dy(2, 1) = 0, x(1, 7) = std::numeric_limits<float>::quiet_NaN();
  CHECK(h.accumulate(x.view(), dy.view()).error().message.starts_with("guided: the activation of token 5, input 7 is "));
  CHECK(h.at(0).to_bytes() == before);

  GuidedHessian half = GuidedHessian::make({3, 8}, 3).value();
  x(1, 7) = 1;
  for (Index t = 0; t < 4; ++t) dy(t, 1) = 0;
  REQUIRE(half.accumulate(x.view(), dy.view()).ok());
  CHECK(!half.silent(0));
  CHECK(half.silent(1));
  CHECK(!half.silent(2));
}
