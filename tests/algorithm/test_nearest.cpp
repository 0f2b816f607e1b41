#include <anybit/algorithm/nearest.hpp>

#include <string>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/scheme/scale_e5m3.hpp>
#include <anybit/scheme/scale_e8m0.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace test_layers;

TEST_CASE("nearest without options is the primitive of the tensor layer") {
  const Matrix w = random_matrix(7, 45, 1);
  const auto check = [&]<class Method>(const Method& method) {
    const auto q = method.quantize(w.view());
    REQUIRE(q.ok());
    CHECK(q->matrix == quantize_nearest<typename Method::scheme>(w.view()).value());
    CHECK(q->report.as_requested());
    CHECK(!q->report.output_error);
  };
  check(Nearest<Superfloat<5>, PerGroup<16>>{});
  check(Nearest<UInt<4>, PerGroup<16>>{});
  check(Nearest<SInt<8>, PerRow, ScaleF32>{});
  check(Nearest<SuperfloatPublished<8>, PerTensor, NoScale>{});
  check(Nearest<Nf4, PerGroup<8>, DoubleQuant<256>>{});
  check(Nearest<Scheme<Ternary, PerTensor, ScaleF32, Base3>>{});
}

TEST_CASE("groups for which a scheme has no grid are fallbacks, and errors in strict mode") {
  // One row with the given largest weights, one a group of 16.
  const auto check = []<class Method>(const Method& method, const std::vector<float>& largest, const std::string& fallback) {
    Matrix w(1, 16 * static_cast<Index>(largest.size()));
    for (Index c = 0; c < w.cols(); ++c)
      w(0, c) = largest[static_cast<std::size_t>(c / 16)] * (c % 16 == 5 ? 1.0f : c % 3 == 0 ? -0.4f : 0.2f);
    const auto q = method.quantize(w.view());
    INFO(Method::scheme::name.view() << ", " << method.describe() << ", " << fallback);
    REQUIRE(q.ok());
    CHECK(q->report.fallbacks == (fallback.empty() ? std::vector<std::string>{} : std::vector<std::string>{fallback}));
    const auto strict = method.quantize(w.view(), {}, {.strict = true});
    CHECK(strict.ok() == fallback.empty());
    if (!strict.ok()) CHECK(strict.error().message.find(fallback) != std::string::npos);
  };
  const std::string of_3 = " of 3 scales are too large for the scale store and were saturated",
                    groups_of_3 = " of 3 groups have weights that are too small for the scheme, and became 0";
  // A loss counts from the first scale above the largest, in every store, and with a search too.
  check(Nearest<Nf4, PerGroup<16>, ScaleF16>{}, {1e5f, 3.3e4f, 0}, "1" + of_3);
  check(Nearest<Nf4, PerGroup<16>, ScaleF16>{}, {65504, 3.3e4f, 0}, "");
  check(Nearest<Nf4, PerGroup<16>, ScaleF16>{}, {65536, 1e5f, -7e4f}, "3" + of_3);
  check(Nearest<Nf4, PerGroup<16>, ScaleF16>{.search = Search::mse}, {1e5f, 3.3e4f, 0}, "1" + of_3);
  check(Nearest<SInt<4>, PerGroup<16>, ScaleE5M3>{}, {61440 * 7.0f, 61500 * 7.0f, 1}, "1" + of_3);
  check(Nearest<Nf4, PerGroup<16>, ScaleBF16>{}, {3.4e38f, 3e38f, 1}, "1" + of_3);
  check(Nearest<Nf4, PerGroup<16>, ScaleF32>{}, {3.4e38f, 3e38f, 1}, "");
  check(Nearest<Superfloat<4>, PerGroup<16>, ScaleE8M0>{}, {1.8e38f, 1.6e38f, 1}, "1" + of_3);
  check(Nearest<UInt<4>, PerGroup<16>, ScaleF16>{}, {2e6f, 1, 0}, "1" + of_3);
  check(Nearest<SInt<8>, PerGroup<16>, NoScale>{}, {100, 7, 3}, "");
  // Weights that are not 0 and become 0 by the store, by the format's fit, or without a scale.
  check(Nearest<Nf4, PerGroup<16>, ScaleF16>{}, {1e-9f, 1e-5f, 0}, "1" + groups_of_3);
  check(Nearest<Ternary, PerGroup<16>, ScaleF32>{}, {1e-6f, 2e-6f, 0}, "2" + groups_of_3);
  check(Nearest<Ternary, PerGroup<16>, ScaleF32>{}, {1e-6f, 1e-3f, 0}, "1" + groups_of_3);
  check(Nearest<SuperfloatPublished<8>, PerGroup<16>, NoScale>{}, {1e-3f, 0.5f, 0}, "1" + groups_of_3);
  check(Nearest<UInt<4>, PerGroup<16>, ScaleF16>{}, {1e-9f, 1, 0}, "1" + groups_of_3);
}

TEST_CASE("the shrink search finds the least error among its candidates") {
  const Matrix w = random_matrix(3, 24, 2);
  const ShrinkSearch shrink{.shrink = 0.5f, .steps = 10, .norm = 2};
  const auto check = [&]<class Method>(const Method& method) {
    using S = typename Method::scheme;
    using F = typename S::format;
    const auto q = method.quantize(w.view());
    REQUIRE(q.ok());
    for (Index r = 0; r < 3; ++r)
      for (Index g = 0; g < 2; ++g) {
        const auto values = w.view().row(r).subspan(static_cast<std::size_t>(12 * g), 12);
        double least = 1e30;
        Affine best;
        for (int i = 0; i < 5; ++i) {  // by hand: the range of the group, cut
          const float kept = static_cast<float>(1 - i / 10.0);
          std::vector<float> cut(values.begin(), values.end());
          for (float& v : cut) v *= kept;
          Affine a = stored<S>(F::fit(cut));
          double error = 0;
          for (const float v : values) error += std::pow(double{dequantize_value<F>(quantize_value<F>(v, a), a)} - double{v}, 2);
          if (error < least) least = error, best = a;
        }
        double found = 0;
        for (std::size_t j = 0; j < 12; ++j)
          found += std::pow(
              double{dequantize_value<F>(q->matrix.row(r)[static_cast<std::size_t>(12 * g) + j], q->matrix.affine(r, g))} -
                  double{values[j]},
              2);
        CHECK(found == Approx(least).epsilon(1e-5));
      }
  };
  check(Nearest<UInt<3>, PerGroup<12>, ScaleF32>{.search = Search::mse, .shrink = shrink});
  check(Nearest<Superfloat<3>, PerGroup<12>>{.search = Search::mse, .shrink = shrink});
  check(Nearest<Nf4, PerGroup<12>>{.search = Search::mse, .shrink = shrink});
}

TEST_CASE("a weighted search spends its error where inputs are small") {
  const Matrix w = random_matrix(16, 32, 3);
  Matrix x = random_matrix(64, 32, 4);
  for (Index t = 0; t < 64; ++t)
    for (Index j = 0; j < 32; j += 4) x(t, j) *= 30;
  const auto stats = *accumulate < Needs::mean_square | Needs::hessian > (x.view());
  using Method = Nearest<UInt<2>, PerGroup<32>>;
  const Method plain{.search = Search::mse, .shrink = {.norm = 2}},
      weighted{.search = Search::mse, .shrink = {.norm = 2}, .weighted = true};
  const auto a = plain.quantize(w.view(), stats), b = weighted.quantize(w.view(), stats);
  CHECK(*b->report.output_error < *a->report.output_error);
  CHECK(b->report.weight_error >= a->report.weight_error);
  CHECK(weighted.quantize(w.view()).error().message.find("mean_square") != std::string::npos);
}

TEST_CASE("least squares: closer weights than the shrink search, and closer outputs if weighted") {
  const Matrix w = random_matrix(24, 64, 5);
  Matrix x = random_matrix(96, 64, 6);
  for (Index t = 0; t < 96; ++t)
    for (Index j = 0; j < 64; j += 5) x(t, j) *= 20;
  const auto stats = *accumulate < Needs::mean_square | Needs::hessian > (x.view());
  const auto check = [&]<class Method>(Method shrink) {
    shrink.search = Search::mse;
    shrink.shrink.norm = 2;
    Method squares{.search = Search::least_squares}, weighted{.search = Search::least_squares, .weighted = true};
    const auto a = shrink.quantize(w.view(), stats), b = squares.quantize(w.view(), stats),
               c = weighted.quantize(w.view(), stats);
    REQUIRE(c.ok());
    CHECK(b->report.weight_error <= a->report.weight_error);
    CHECK(*c->report.output_error < *b->report.output_error);
    CHECK(c->report.weight_error >= b->report.weight_error);
    CHECK(b->matrix.provenance == "nearest(least squares)");
    CHECK(c->matrix.provenance == "nearest(weighted least squares)");
    ThreadPool pool(3);
    CHECK(c->matrix == weighted.quantize(w.view(), stats, {.executor = pool})->matrix);
  };
  check(Nearest<UInt<2>, PerGroup<32>>{});
  check(Nearest<LloydMax<3>, PerGroup<64>>{});
  check(Nearest<Superfloat<3>, PerGroup<48>>{});
}

TEST_CASE("the symmetric range keeps GPTQ's quirk") {
  Matrix w(2, 4);
  const float rows[2][4] = {{-7.5f, 3, 7.5f, 0}, {0, 3, 7.5f, 2}};
  for (Index r = 0; r < 2; ++r)
    for (Index c = 0; c < 4; ++c) w(r, c) = rows[r][c];
  const auto q = Nearest<UInt<4>, PerRow, ScaleF32>{.range = Range::symmetric}.quantize(w.view());
  CHECK(q->matrix.affine(0, 0) == Affine{1, 8});
  CHECK(q->matrix.affine(1, 0) == Affine{0.5f, 8});  // no negative weight: half the range, half of it clipped
  CHECK(dequantize(q->matrix)(0, 2) == 7);
  CHECK(dequantize(q->matrix)(0, 0) == -8);
  CHECK(dequantize(q->matrix)(1, 2) == 3.5f);
}

TEST_CASE("reports of nearest: errors by definition, scales that the store cannot hold") {
  Matrix w = random_matrix(2, 6, 3);
  const Matrix x = random_matrix(30, 6, 4);
  const auto stats = *accumulate<Needs::hessian>(x.view());
  const auto q = Nearest<Superfloat<3>, PerGroup<4>>{}.quantize(w.view(), stats);
  const Matrix back = dequantize(q->matrix), zero(2, 6);
  const Square h = hessian_of(stats);
  CHECK(*q->report.output_error == Approx(std::sqrt(objective(w.view(), back.view(), h) / objective(w.view(), zero.view(), h))));
  CHECK(q->report.bits_per_weight == Approx(8.0 * (2 * 3 + 4 * 2) / 12));
  for (Index i = 0; i < 12; ++i) w.data()[i] *= 1e-12f;
  const auto tiny = Nearest<Superfloat<3>, PerGroup<4>>{}.quantize(w.view());
  REQUIRE(!tiny->report.as_requested());
  CHECK(tiny->report.fallbacks[0].find("4 of 4 groups") != std::string::npos);
  CHECK(Nearest<Superfloat<3>, PerGroup<4>>{}.quantize(w.view(), {}, {.strict = true}).error().code == ErrorCode::degraded);
  CHECK(Nearest<Superfloat<3>, PerGroup<4>, ScaleF32>{}.quantize(w.view(), {}, {.strict = true}).ok());
}

TEST_CASE("nearest refuses bad weights and options") {
  Matrix w = random_matrix(4, 5, 3);
  w(3, 1) = std::nanf("");
  const auto e = Nearest<UInt<4>>{}.quantize(w.view());
  REQUIRE(!e.ok());
  CHECK(e.error().code == ErrorCode::not_finite);
  CHECK(e.error().message.find("row 3, column 1") != std::string::npos);
  CHECK(!Nearest<UInt<4>>{}.quantize(Matrix(0, 0).view()).ok());
  w(3, 1) = 0;
  CHECK(!Nearest<UInt<4>>{.search = Search::mse, .shrink = {.shrink = 1}}.quantize(w.view()).ok());
  CHECK(!Nearest<UInt<4>>{.search = Search::mse, .shrink = {.norm = 0}}.quantize(w.view()).ok());
  CHECK(!Nearest<Nf4>{.range = Range::min_max}.quantize(w.view()).ok());
  CHECK(!Nearest<Nf4>{.search = Search::half_quadratic, .half_quadratic = {.norm = 2}}.quantize(w.view()).ok());
}
