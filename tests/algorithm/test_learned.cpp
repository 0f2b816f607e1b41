// Learned rounding: signs by hand, the twin in double, and its laws.

#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/learned.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/reference/learned_rounding.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/testing/algorithm_laws.hpp>
#include <anybit/transform/awq.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace test_layers;

namespace {

struct LearnedLayer {
  Matrix w, x;
  Stats stats;
  Square h;

  LearnedLayer(Index rows, Index cols, Needs needs = Needs::hessian)
      : w(random_matrix(rows, cols, 21, 0.1f)), x(correlated(3 * cols, cols, 22)), stats(cols, needs) {
    const Matrix x0 = correlated(3 * cols, cols, 23);
    if (covers(needs, Needs::input_drift)) {
      Matrix mixed = x;
      for (Index i = 0; i < x.extents().size(); ++i) mixed.data()[i] += 0.3f * x0.data()[i];
      REQUIRE(stats.accumulate(x.view(), mixed.view()).ok());
    } else {
      REQUIRE(stats.accumulate(x.view()).ok());
    }
    h = hessian_of(stats);
  }
  template <class A>
  QuantizedMatrix<typename A::scheme> quantized(const A& a, ExecutorRef executor = {}) const {
    auto q = a.quantize(w.view(), stats, {.executor = executor});
    INFO(a.describe() << (q ? "" : q.error().message));
    REQUIRE(q.ok());
    return q->matrix;
  }
  template <class A>
  double error(const A& a) const {
    return objective(w.view(), dequantize(quantized(a)).view(), h);
  }
};

/// No iterations: the start. Some: no row is worse.
template <class Scheme>
void check_against_start(const LearnedLayer& layer, const char* name) {
  INFO(name);
  const auto nearest = layer.quantized(Nearest<Scheme>{});
  CHECK(layer.quantized(Learned<Scheme>{.iterations = 0}).codes == nearest.codes);
  CHECK(layer.quantized(Learned<Scheme>{.iterations = 0}).affines == nearest.affines);
  const Matrix before = dequantize(nearest), after = dequantize(layer.quantized(Learned<Scheme>{.iterations = 60}));
  double all_before = 0, all_after = 0;
  for (Index r = 0; r < layer.w.rows(); ++r) {
    const auto error = [&](const Matrix& q) {
      return objective(layer.w.view().row_range(r, r + 1), q.view().row_range(r, r + 1), layer.h);
    };
    CHECK(error(after) <= error(before) * (1 + 1e-5));
    all_before += error(before), all_after += error(after);
  }
  CHECK(all_after < 0.7 * all_before);
}

}  // namespace

TEST_CASE("learned rounding: the signs of the first step, by hand") {
  // One group, 2 bits, s = 1, z = 1: levels -1 .. 2. H = I, so the slope of a weight is 2 (w^ - w).
  reference::Matrix w(1, 4), h(4, 4);
  w(0, 0) = -1, w(0, 1) = 0.25, w(0, 2) = 1.75, w(0, 3) = 2;
  for (Index i = 0; i < 4; ++i) h(i, i) = 1;
  const auto learned = reference::learned_rounding(w, h, {.bits = 2, .iterations = 1, .rate = 0.3});
  // w^ = -1, 0, 2, 2: E = 0, -0.25, 0.25, 0.
  CHECK(learned.first.offsets.values == std::vector<double>{0, -1, 1, 0});
  // dL/ds = sum 2 E (w^ - w) / s = 2 (0.0625 + 0.0625) > 0; p: h / N > 0; m: -l / N > 0.
  CHECK(learned.first.ends.values == std::vector<double>{1, 1});
  CHECK(learned.losses[0] == 0.125);
}

TEST_CASE("learned rounding: a weight beyond the grid moves the end of the grid and not its offset") {
  // 3 is beyond 1, the greatest level: w^ - w = -2 there.
  Matrix w(1, 3), slope(1, 3);
  w(0, 0) = 3, w(0, 1) = -1, w(0, 2) = 0;
  QuantizedMatrix<Scheme<SInt<2>, PerRow, ScaleF32>> q(w.extents());
  q.affines[0] = {1, 0};
  const AnyQuantized any(q);
  grid::encode_nearest(w.view(), {}, any);
  learned::Rows rows(w.view(), any, 0, 1, true, false);
  rows.round();
  CHECK(rows.values()(0, 0) == 1);
  slope(0, 0) = -4;
  rows.step(slope.view(), 0.5f, 0.125f);
  rows.round();
  CHECK(rows.values()(0, 0) == 1.125f);  // dL/ds = -4 * 1 < 0: the scale grows by an eighth
  CHECK(rows.values()(0, 1) == -1.125f);
  slope(0, 0) = 0, slope(0, 1) = 1, slope(0, 2) = -1;
  rows.step(slope.view(), 0.5f, 0);
  rows.step(slope.view(), 0.5f, 0);  // offsets end at a half
  rows.round();
  CHECK(rows.values()(0, 1) == -1.125f);  // -1 / 1.125 - 1/2 rounds to -1
  slope(0, 1) = -1, slope(0, 2) = 0;
  rows.step(slope.view(), 0.5f, 0);
  rows.step(slope.view(), 0.5f, 0);
  rows.round();
  CHECK(rows.values()(0, 1) == 0);  // -1 / 1.125 + 1/2 rounds to 0
}

TEST_CASE("learned rounding: the fast form against the twin") {
  const LearnedLayer layer(9, 75);  // a ragged last group
  const auto check = [&](auto learned, int bits, bool ends) {
    for (const int iterations : {1, 2, 4}) {
      learned.iterations = iterations, learned.rate = 0.1f, learned.learn_ends = ends;
      const auto expected = reference::learned_rounding(
          reference::matrix_of(layer.w), layer.h,
          {.bits = bits, .group = 32, .iterations = iterations, .rate = double{learned.rate}, .learn_ends = ends});
      const Matrix got = dequantize(layer.quantized(learned));
      Index off = 0;
      for (Index r = 0; r < got.rows(); ++r)
        for (Index c = 0; c < got.cols(); ++c) off += std::fabs(double{got(r, c)} - expected.weights(r, c)) > 1e-5;
      INFO(bits << " bits, " << iterations << " iterations");
      CHECK(off == 0);
    }
  };
  check(Learned<UInt<2>, PerGroup<32>, ScaleF32>{}, 2, true);
  check(Learned<UInt<3>, PerGroup<32>, ScaleF32>{}, 3, true);
  check(Learned<UInt<4>, PerGroup<32>, ScaleF32>{}, 4, false);
}

TEST_CASE("learned rounding: no iterations are the start, more are no worse, for every kind of format") {
  const LearnedLayer layer(11, 70);
  check_against_start<Scheme<UInt<2>, PerGroup<32>>>(layer, "uint2");
  check_against_start<Scheme<SInt<3>, PerGroup<64>>>(layer, "sint3");
  check_against_start<Scheme<Superfloat<4>, PerGroup<13>>>(layer, "superfloat4");
  check_against_start<Scheme<Nf4, PerGroup<32>, DoubleQuant<256>>>(layer, "nf4, scales stored jointly");
  check_against_start<Scheme<UInt<3>, PerTensor>>(layer, "uint3, one scale");
  check_against_start<Scheme<Superfloat<11>, PerRow>>(layer, "superfloat11, codes of two bytes");
}

TEST_CASE("learned rounding: from GPTQ, with drift, and what it wants of its statistics") {
  using S = Scheme<UInt<2>, PerGroup<32>>;
  const LearnedLayer layer(11, 70, Needs::hessian | Needs::input_drift);
  const auto start = layer.quantized(Gptq<S>::best());
  CHECK(layer.quantized(Learned<S>{.iterations = 0, .from_gptq = true}).codes == start.codes);
  CHECK(layer.error(Learned<S>{.iterations = 200, .from_gptq = true}) <=
        objective(layer.w.view(), dequantize(start).view(), layer.h) * (1 + 1e-5));

  // With drift the objective is tr(E H E^T) - 2 tr(W D E^T).
  std::vector<double> drift(70 * 70);
  layer.stats.drift(MatrixView<double>(drift.data(), 70, 70));
  const auto whole = [&](const Matrix& q) {
    double sum = objective(layer.w.view(), q.view(), layer.h);
    for (Index r = 0; r < q.rows(); ++r)
      for (Index i = 0; i < 70; ++i)
        for (Index j = 0; j < 70; ++j)
          sum -=
              2 * double{layer.w(r, i)} * drift[static_cast<std::size_t>(i * 70 + j)] * (double{q(r, j)} - double{layer.w(r, j)});
    return sum;
  };
  CHECK(whole(dequantize(layer.quantized(Learned<S>{.drift = 1}))) < whole(dequantize(layer.quantized(Learned<S>{}))));
  const LearnedLayer plain(3, 20);
  const auto refused = Learned<S>{.drift = 1}.quantize(plain.w.view(), plain.stats);
  REQUIRE(!refused.ok());
  CHECK(refused.error().message.find("input_drift") != std::string::npos);
  const auto message = [&](const Learned<S>& a) { return a.quantize(plain.w.view(), plain.stats).error().message; };
  CHECK(message({.iterations = -1}) == "learned: iterations is -1; it must be 0 to 100000 (200 is usual)");
  CHECK(message({.rate = 2}) == "learned: rate is 2; it must be 0 to 1, where 0 means 1 / iterations");
  CHECK(message({.from_gptq = true, .search = Search::mse}).find("leave out the range and the search") != std::string::npos);
}

TEST_CASE("learned rounding: the laws of algorithms, behind a transform, the same bits for any number of threads") {
  CHECK(testing::check_algorithm_laws(Learned<UInt<2>, PerGroup<16>>{.iterations = 20}) == "");
  CHECK(testing::check_algorithm_laws(Learned<UInt<3>, PerGroup<16>>{.iterations = 20, .range = Range::symmetric}) == "");
  CHECK(testing::check_algorithm_laws(Learned<Superfloat<4>, PerGroup<13>>{.iterations = 20, .search = Search::least_squares}) ==
        "");
  CHECK(testing::check_algorithm_laws(Learned<UInt<2>, PerGroup<16>>{.iterations = 5, .from_gptq = true}) == "");

  using S = Scheme<UInt<2>, PerGroup<32>>;
  const LearnedLayer layer(300, 40, Needs::hessian | Awq::needs);
  ThreadPool two(2);
  const auto one = layer.quantized(Learned<S>{.iterations = 30});
  CHECK(one == layer.quantized(Learned<S>{.iterations = 30}, two));

  const auto recipe = Awq{} | Learned<S>{.iterations = 60};
  CHECK(recipe.describe() == "awq | learned(iterations=60)");
  const ConstMatrix weights[] = {layer.w.view()};
  const auto both = quantize_siblings(recipe, weights, layer.stats);
  const auto alone = quantize_siblings(Awq{} | Nearest<S>{}, weights, layer.stats);
  REQUIRE(both.ok());
  REQUIRE(alone.ok());
  CHECK(*both->matrices[0].report.output_error < *alone->matrices[0].report.output_error);
}
