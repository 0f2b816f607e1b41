#include <anybit/algorithm/gptq.hpp>

#include <limits>
#include <numeric>
#include <string>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/scheme/scale_e8m0.hpp>

#include "algorithm/reference_loop.hpp"
#include "support/catch.hpp"
#include "support/hostile_executor.hpp"

using namespace anybit;
using namespace test_layers;

namespace {

/// A whole-number grid of step 0.5, whatever the weights: the format carries the step, NoScale keeps it.
struct Halves {
  static constexpr int bits = 8;
  static constexpr auto name = FixedString("halves");
  static constexpr Code encode(float x) { return SInt<8>::encode(2 * x); }
  static constexpr float decode(Code c) { return 0.5f * SInt<8>::decode(c); }
  static constexpr Affine fit(std::span<const float>) { return {1, 0}; }
};

template <class Method>
void check_sound(const Method& method, const Matrix& w, const Stats& stats) {
  using S = typename Method::scheme;
  const auto q = method.quantize(w.view(), stats, {});
  REQUIRE(q.ok());
  const auto& m = q->matrix;
  for (const Affine a : m.affines) REQUIRE((std::isfinite(a.scale) && std::isfinite(a.zero)));
  for (const auto c : m.codes) REQUIRE(c < (1u << S::bits));
  auto as_stored = m;
  grid::round_trip_joint(AnyQuantized(as_stored));
  for (Affine& a : as_stored.affines) a = stored<S>(a);
  CHECK(as_stored.affines == m.affines);
  const Matrix back = dequantize(m);
  const auto nearest = grid::round_to_grid<S>(w.view(), method.grid_fit());
  const Square h = hessian_of(stats);
  const double mine = objective(w.view(), back.view(), h), plain = objective(w.view(), dequantize(nearest).view(), h);
  CHECK(mine <= plain + 1e-9 * std::fabs(plain) + 1e-12 * std::fabs(objective(w.view(), Matrix(w.rows(), w.cols()).view(), h)));
  CHECK((q->report.done == q->report.requested) == (q->report.done.find("gptq") == 0));
  if (plain >= 0) CHECK(std::isfinite(*q->report.output_error));
}

}  // namespace

TEST_CASE("gptq: the worked example") {
  const std::vector<double> h{3, 2, 2, 2, 3, 1, 2, 1, 3};
  Stats stats(3, Needs::hessian);
  REQUIRE(stats.set_hessian({h.data(), 3, 3}, 4).ok());
  Matrix w(2, 3);
  const float rows[2][3] = {{0.70f, 0.15f, 0.20f}, {0.30f, -0.70f, 0.60f}};
  for (Index r = 0; r < 2; ++r)
    for (Index c = 0; c < 3; ++c) w(r, c) = rows[r][c];
  const auto q = Gptq<Scheme<Halves, PerTensor, NoScale>>{}.quantize(w.view(), stats, {});
  REQUIRE(q.ok());
  const float expected[2][3] = {{0.5f, 0, 0.5f}, {0.5f, -1.0f, 0.5f}};
  const Matrix back = dequantize(q->matrix);
  for (Index r = 0; r < 2; ++r)
    for (Index c = 0; c < 3; ++c) CHECK(back(r, c) == expected[r][c]);
  CHECK(objective(w.view(), back.view(), hessian_of(stats)) == Approx(0.2475 + 0.16));
}

TEST_CASE("the feedback factor is that of the paper: chol(H^-1) = R^-1") {
  const std::vector<double> h{3, 2, 2, 2, 3, 1, 2, 1, 3};
  Report report;
  const Index order[] = {0, 1, 2};
  const double diagonal[] = {3, 3, 3};
  const auto f = gptq::damped_factor<double>({{h.data(), 3, 3}, order, diagonal}, 0.01, report);
  REQUIRE(f);
  CHECK(report.fallbacks.empty());
  CHECK(f->damping == Approx(0.03));
  // U = R^-1 and F = R diag(R)^-1 give F_01 = -U_01 / U_00, F_12 = -U_12 / U_11, with the U of the worked example.
  CHECK(f->column(1)[0] == Approx(0.48550087 / 0.97828424));
  CHECK(f->column(2)[1] == Approx(0.20085292 / 0.60858434));
}

/// Codes that differ from those of the published loop in double, on the grids that the method chose.
template <class Method>
Index codes_off(const Method& method, const Matrix& w, const Stats& stats) {
  const auto q = method.quantize(w.view(), stats, {});
  REQUIRE(q.ok());
  CHECK(q->report.as_requested());
  using S = typename Method::scheme;
  std::vector<Index> natural(static_cast<std::size_t>(w.cols()));
  std::iota(natural.begin(), natural.end(), Index{0});
  const Matrix expected = reference_loop<typename S::format>(
      w, loop_factor(hessian_of(stats), double{method.damp}, natural), natural, {},
      [&](Index r, std::size_t i, const auto&) { return q->matrix.affine(r, Index(i) / S::granularity::group_cols(w.cols())); });
  const Matrix back = dequantize(q->matrix);
  Index off = 0;
  for (Index r = 0; r < w.rows(); ++r)
    for (Index c = 0; c < w.cols(); ++c) off += back(r, c) != expected(r, c);
  return off;
}

TEST_CASE("gptq gives the codes of the published loop in double, for every kind of format") {
  const Matrix w = random_matrix(9, 61, 11, 0.1f), x = correlated(150, 61, 12);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  const auto check = [&](const auto& method) {
    INFO(method.describe());
    CHECK(codes_off(method, w, stats) <= 2);
  };
  for (const Index block : {Index{1}, Index{7}, Index{61}, Index{128}}) {
    check(Gptq<UInt<4>, PerRow, ScaleF32>{.block = block, .static_groups = true});
    check(Gptq<Superfloat<5>, PerGroup<16>>{.block = block, .static_groups = true});
    check(Gptq<Nf4, PerGroup<16>, DoubleQuant<256>>{.block = block});
    check(Gptq<Minifloat<2, 1>, PerGroup<32>, ScaleE8M0>{.block = block, .static_groups = true});
    check(Gptq<Ternary, PerTensor, ScaleF32, Base3>{.block = block});
  }
}

TEST_CASE("gptq lowers the output error where inputs are correlated") {
  const Matrix w = random_matrix(24, 96, 1, 0.05f), x = correlated(400, 96, 2);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  const auto check = [&]<class Method>(const Method& method, double factor) {
    const auto q = method.quantize(w.view(), stats, {});
    REQUIRE(q.ok());
    const auto nearest = Nearest<typename Method::scheme>{}.quantize(w.view(), stats);
    INFO(q->report.requested);
    CHECK(*q->report.output_error < factor * *nearest->report.output_error);
  };
  check(Gptq<UInt<4>, PerGroup<32>>{}, 0.8);
  check(Gptq<UInt<3>, PerGroup<32>>{.act_order = true}, 0.8);
  check(Gptq<Superfloat<4>, PerGroup<32>>{}, 0.8);
  check(Gptq<Nf4, PerGroup<64>, DoubleQuant<256>>{}, 0.8);
  check(Gptq<SInt<2>, PerGroup<32>>{.search = Search::mse}, 0.9);
}

TEST_CASE("gptq gives the codes of the published loop where products are cut into several pieces") {
  // More rows than a tile in one task, more columns than a panel, blocks and groups that end apart.
  const Matrix w = random_matrix(530, 601, 11, 0.1f), x = correlated(900, 601, 12);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  REQUIRE(dense::task_rows(530) > gptq::row_tile);
  REQUIRE(gptq::Band<>::panel < 601);
  const Index few = 530 * 601 / 5000;  // ties and near ties that float decides otherwise
  CHECK(codes_off(Gptq<UInt<4>, PerRow, ScaleF32>{.static_groups = true}, w, stats) <= few);
  CHECK(codes_off(Gptq<Superfloat<5>, PerGroup<96>>{.block = 40}, w, stats) <= few);
}

TEST_CASE("the reported output error is that of the result") {
  const Matrix w = random_matrix(70, 60, 4, 0.1f);
  for (const Index tokens : {Index{12}, Index{400}}) {
    Matrix x = correlated(tokens, 60, 5);
    for (const bool dead : {false, true}) {
      if (dead)
        for (Index t = 0; t < tokens; ++t) x(t, 7) = 0;
      const auto stats = *accumulate<Needs::hessian>(x.view());
      const Square h = hessian_of(stats);
      const auto check = [&](const auto& method) {
        const auto q = method.quantize(w.view(), stats, {});
        REQUIRE(q.ok());
        INFO(tokens << " tokens, " << q->report.done);
        const double error = objective(w.view(), dequantize(q->matrix).view(), h),
                     whole = objective(w.view(), Matrix(70, 60).view(), h);
        CHECK(*q->report.output_error == Approx(std::sqrt(error / whole)).epsilon(1e-3));
      };
      check(Gptq<UInt<4>, PerGroup<16>>{});
      check(Gptq<UInt<3>, PerGroup<16>>{.damp = 0.5f, .block = 7, .act_order = true});
      check(Gptq<UInt<3>, PerGroup<16>>{.refine = 2});
    }
  }
}

TEST_CASE("gptq that is not verified gives the same, and no output error") {
  const Matrix w = random_matrix(70, 60, 4, 0.1f), x = correlated(400, 60, 5);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  const Gptq<UInt<4>, PerGroup<16>> method{.act_order = true};
  const auto verified = method.quantize(w.view(), stats, {}), plain = method.quantize(w.view(), stats, {.verify = false});
  REQUIRE((verified.ok() && plain.ok()));
  CHECK(plain->matrix == verified->matrix);
  CHECK(plain->report.done == verified->report.done);
  CHECK(plain->report.weight_error == verified->report.weight_error);
  CHECK(!plain->report.output_error);
  // Where there is no factor, rounding to nearest takes its place as ever.
  Stats none(60, Needs::hessian);
  REQUIRE(none.set_hessian(MatrixView<const double>(std::vector<double>(3600).data(), 60, 60), 4).ok());
  const auto nearest = method.quantize(w.view(), none, {.verify = false});
  REQUIRE(nearest.ok());
  CHECK(nearest->report.done.find("nearest") == 0);
}

TEST_CASE("a factor in float is that in double, or none") {
  const Matrix x = correlated(300, 200, 5);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  std::vector<double> h(200 * 200), diagonal(200);
  stats.hessian(MatrixView<double>(h.data(), 200, 200));
  std::vector<Index> order(200);
  std::iota(order.rbegin(), order.rend(), Index{0});
  for (const double unit : {1.0, 1e-60, 1e60}) {  // no Hessian is too large or too small for it
    std::vector<double> scaled(h);
    for (double& v : scaled) v *= unit;
    double mean = 0;
    for (std::size_t i = 0; i < 200; ++i) {
      diagonal[i] = scaled[i * 201];
      mean += diagonal[i] / 200;
    }
    const gptq::detail::OrderedHessian<double> from{{scaled.data(), 200, 200}, order, diagonal};
    const auto narrow = gptq::detail::try_factor<float>(from, 0.05 * mean),
               wide = gptq::detail::try_factor<double>(from, 0.05 * mean);
    REQUIRE((narrow && wide));
    double worst = 0;
    for (Index i = 0; i < 200; ++i) {
      CHECK(narrow->pivots[static_cast<std::size_t>(i)] == Approx(wide->pivots[static_cast<std::size_t>(i)]).epsilon(1e-4));
      for (Index j = 0; j < i; ++j) worst = std::max(worst, double{std::fabs(narrow->column(i)[j] - wide->column(i)[j])});
    }
    CHECK(worst < 1e-3);
    CHECK(narrow->unit == Approx(wide->unit).epsilon(1e-4));
  }
  // Two inputs that are almost the same: float would be off by some per cent.
  const double far = 1 - 1e-6;
  const std::vector<double> same{1, far, far, 1};
  const Index natural[] = {0, 1};
  const double ones[] = {1, 1};
  CHECK(!gptq::detail::try_factor<float, double>({{same.data(), 2, 2}, natural, ones}, 1e-12));
  const auto wide = gptq::detail::try_factor<double, double>({{same.data(), 2, 2}, natural, ones}, 1e-12);
  REQUIRE(wide);
  CHECK(wide->pivots[0] * wide->pivots[0] == Approx(1 - far * far).epsilon(1e-3));
}

TEST_CASE("gptq at sizes that divide by nothing") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {1, 9}, {5, 1}, {3, 31}, {67, 33}, {65, 130}}) {
    const Matrix w = random_matrix(rows, cols, 4, 0.1f), x = correlated(60, cols, 5);
    const auto stats = *accumulate<Needs::hessian>(x.view());
    INFO(rows << " x " << cols);
    check_sound(Gptq<UInt<4>, PerGroup<128>>{}, w, stats);
    check_sound(Gptq<UInt<4>, PerGroup<1>>{.block = 3}, w, stats);
    check_sound(Gptq<UInt<3>, PerGroup<7>>{.block = 5}, w, stats);
    check_sound(Gptq<UInt<3>, PerGroup<7>>{.block = 5, .act_order = true}, w, stats);
    check_sound(Gptq<UInt<3>, PerGroup<7>>{.act_order = true, .static_groups = true}, w, stats);
    check_sound(Gptq<Superfloat<3>, PerGroup<200>, ScaleF32>{.block = 16}, w, stats);
    check_sound(Gptq<Nf4, PerGroup<64>, DoubleQuant<256>>{.act_order = true}, w, stats);
    check_sound(Gptq<Ternary, PerTensor, ScaleF32, Base3>{}, w, stats);
  }
}

TEST_CASE("results are equal for any number of threads and any slices") {
  const Matrix w = random_matrix(200, 70, 4, 0.1f), x = correlated(100, 70, 5);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  const Gptq<UInt<4>, PerGroup<32>> method{.act_order = true, .search = Search::mse};
  const auto serial = method.quantize(w.view(), stats, {});
  for (const int threads : {2, 3, 8}) {
    ThreadPool pool(threads);
    QuantizeOptions options;
    options.executor = pool;
    const auto q = method.quantize(w.view(), stats, options);
    CHECK(q->matrix == serial->matrix);
    CHECK(q->report.output_error == serial->report.output_error);
  }
  test_support::HostileExecutor hostile;
  const auto q = method.quantize(w.view(), stats, {.executor = hostile});
  CHECK(q->matrix == serial->matrix);
  CHECK(q->report.output_error == serial->report.output_error);
}

TEST_CASE("the ladder: 300 Hessians that nobody would wish for") {
  std::mt19937 gen(99);
  std::normal_distribution<double> normal;
  int nearest_used = 0, raised = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const Index n = 1 + trial % 23;
    const auto at = [n](Index i, Index j) { return static_cast<std::size_t>(i * n + j); };
    std::vector<double> h(static_cast<std::size_t>(n * n));
    const int kind = trial % 10, rank = kind == 0 ? 1 : kind == 1 ? static_cast<int>(n / 2) : static_cast<int>(n);
    for (int k = 0; k < rank; ++k) {
      std::vector<double> v(static_cast<std::size_t>(n));
      for (Index i = 0; i < n; ++i) {
        v[static_cast<std::size_t>(i)] = normal(gen);
        if (kind == 2) v[static_cast<std::size_t>(i)] *= i % 2 ? 1e30 : 1e-30;
        if (kind == 3) v[static_cast<std::size_t>(i)] *= 1e-30;
        if (kind == 4 && i % 2) v[static_cast<std::size_t>(i)] = v[static_cast<std::size_t>(i - 1)];  // duplicated columns
        if (kind == 5 && i % 3 == 0) v[static_cast<std::size_t>(i)] = 0;                              // dead columns
        if (kind == 6) v[static_cast<std::size_t>(i)] = 0;                                            // all dead
        if (kind == 7) v[static_cast<std::size_t>(i)] *= 1e75;
      }
      for (Index i = 0; i < n; ++i)
        for (Index j = 0; j < n; ++j) h[at(i, j)] += v[static_cast<std::size_t>(i)] * v[static_cast<std::size_t>(j)];
    }
    if (kind == 8)  // indefinite
      for (Index i = 0; i < n; ++i)
        for (Index j = 0; j < i; ++j) h[at(i, j)] = h[at(j, i)] = 10 * normal(gen);
    if (kind == 9)
      for (Index i = 0; i < n; ++i) h[at(i, i)] += std::pow(10.0, -15.0 * static_cast<double>(i));
    Stats stats(n, Needs::hessian);
    REQUIRE(stats.set_hessian({h.data(), n, n}, 7).ok());
    const Matrix w = random_matrix(6, n, static_cast<unsigned>(trial), trial % 3 == 0 ? 1e-3f : 1.0f);
    INFO("trial " << trial << ", kind " << kind << ", n " << n);
    check_sound(Gptq<UInt<3>, PerGroup<8>>{.act_order = trial % 2 == 0}, w, stats);
    check_sound(Gptq<Superfloat<4>, PerGroup<8>>{}, w, stats);
    const auto q = Gptq<UInt<3>, PerGroup<8>>{}.quantize(w.view(), stats, {});
    nearest_used += q->report.done.find("nearest") == 0;
    raised += !q->report.as_requested() && q->report.done.find("nearest") != 0;
    const auto strict = Gptq<UInt<3>, PerGroup<8>>{}.quantize(w.view(), stats, {.strict = true});
    CHECK(strict.ok() == q->report.as_requested());
    if (!strict.ok()) CHECK(strict.error().code == ErrorCode::degraded);
  }
  CHECK(nearest_used > 0);  // the rungs are really climbed
  CHECK(raised > 0);
}

TEST_CASE("weights of any size keep codes and scales finite") {
  const Matrix x = correlated(50, 24, 5);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  for (const float size : {1e-44f, 1e-30f, 1e-8f, 1e5f, 1e30f, 3e38f}) {
    Matrix w = random_matrix(4, 24, 8);
    for (Index i = 0; i < w.extents().size(); ++i) w.data()[i] = std::clamp(w.data()[i], -1.0f, 1.0f) * size;
    INFO(size);
    const auto check = [&](const auto& method) {
      const auto q = method.quantize(w.view(), stats, {});
      REQUIRE(q.ok());
      for (const Affine a : q->matrix.affines) CHECK((std::isfinite(a.scale) && a.scale >= 0 && std::isfinite(a.zero)));
    };
    check(Gptq<UInt<4>, PerGroup<8>>{});
    check(Gptq<UInt<4>, PerGroup<8>, ScaleF32>{.range = Range::min_max, .search = Search::mse});
    check(Gptq<Superfloat<4>, PerGroup<8>>{});
    if (size == 1e-30f || size == 1e30f)
      CHECK(!Gptq<UInt<4>, PerGroup<8>>{}.quantize(w.view(), stats, {})->report.as_requested());  // f16 scales
  }
}

TEST_CASE("the published choice of grids: from weights that lack the updates inside the block") {
  // With one block for all columns no group sees any compensation; with a block a group each sees all of it.
  const Matrix w = random_matrix(8, 64, 3, 0.1f), x = correlated(300, 64, 4);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  using Method = Gptq<UInt<3>, PerGroup<16>, ScaleF32>;
  const auto wide = Method{.block = 64}.quantize(w.view(), stats, {}),
             still = Method{.block = 64, .static_groups = true}.quantize(w.view(), stats, {});
  const auto narrow = Method{.block = 16}.quantize(w.view(), stats, {});
  CHECK(wide->matrix.affines == still->matrix.affines);
  CHECK(narrow->matrix.affines != still->matrix.affines);
  for (Index r = 0; r < 8; ++r) CHECK(narrow->matrix.affine(r, 0) == still->matrix.affine(r, 0));
}

TEST_CASE("act-order stores runs of reordered columns, static groups keep the original order") {
  const Matrix w = random_matrix(4, 20, 3), x = correlated(100, 20, 4);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  const auto moved = Gptq<UInt<4>, PerGroup<8>>{.act_order = true}.quantize(w.view(), stats, {});
  REQUIRE(moved->matrix.column_order.size() == 20);
  const Matrix h = stats.hessian();
  for (std::size_t k = 1; k < 20; ++k) {
    const auto before = static_cast<Index>(moved->matrix.column_order[k - 1]),
               here = static_cast<Index>(moved->matrix.column_order[k]);
    CHECK(h(before, before) >= h(here, here));
  }
  CHECK(moved->report.bits_per_weight == Approx(4 + 3 * 20.0 / 20 + 32.0 / 4));
  CHECK(Gptq<UInt<4>, PerGroup<8>>{.act_order = true, .static_groups = true}
            .quantize(w.view(), stats, {})
            ->matrix.column_order.empty());
  CHECK(Gptq<UInt<4>, PerRow>{.act_order = true}.quantize(w.view(), stats, {})->matrix.column_order.empty());
}

TEST_CASE("gptq refuses what it cannot use, naming value and range") {
  const Matrix w = random_matrix(3, 8, 3), x = correlated(20, 8, 4);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  using Method = Gptq<UInt<4>, PerGroup<4>>;
  const auto message = [&](const auto& method, const Stats& s) {
    const auto q = method.quantize(w.view(), s, {});
    REQUIRE(!q.ok());
    return q.error().message;
  };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  CHECK(has(message(Method{.damp = 0}, stats), "damp is 0; it must lie above 0"));
  CHECK(has(message(Method{.damp = -1}, stats), "-1"));
  CHECK(has(message(Method{.damp = std::nanf("")}, stats), "above 0"));
  CHECK(has(message(Method{.block = 0}, stats), "block is 0; it must be at least 1"));
  CHECK(has(message(Method{.search = Search::mse, .shrink = {.steps = 0}}, stats), "steps is 0"));
  CHECK(has(message(Gptq<Superfloat<4>>{.range = Range::symmetric}, stats), "superfloat4"));
  CHECK(has(message(Method{}, Stats(8, Needs::hessian)), "0 tokens"));
  CHECK(has(message(Method{}, Stats(8, Needs::abs_max)), "hessian"));
  CHECK(has(message(Method{}, Stats(9, Needs::hessian)), "9 inputs"));
  Matrix bad = w;
  bad(2, 5) = std::numeric_limits<float>::infinity();
  CHECK(has(Method{}.quantize(bad.view(), stats, {}).error().message, "row 2, column 5"));
  CHECK(!Method{}.quantize(Matrix(0, 8).view(), stats, {}).ok());
}
