// Compute::int8_static against products written out: codes by the definition, dot products in whole numbers.

#include <cmath>
#include <limits>
#include <random>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/matvec.hpp>
#include <anybit/tensor/quantize.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

struct StaticShape {
  Index rows, cols, tokens;
};
constexpr StaticShape static_shapes[] = {{1, 1, 1},    {3, 7, 2},   {5, 31, 5},    {17, 65, 9},  {16, 129, 1},
                                         {33, 127, 6}, {7, 513, 4}, {19, 640, 16}, {6, 1100, 1}, {40, 200, 31}};

Matrix random_matrix(Index rows, Index cols, unsigned seed, float reach) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, reach);
  Matrix m(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = normal(random);
  return m;
}

long code_of(float x, float scale) {
  const float rounded = std::nearbyint(x / scale);
  return std::lround(static_cast<double>(rounded > 127 ? 127.0f : rounded < -127 ? -127.0f : rounded));
}

/// scale * sum over groups of (the group's scale * sum of (code - zero) * activation code), the inner sums in whole numbers, the
/// outer ones in double.
template <AnyScheme S>
std::vector<double> by_hand(const QuantizedMatrix<S>& q, ConstMatrix x, float scale) {
  std::vector<double> y;
  const Index group = S::granularity::group_cols(x.cols);
  for (Index t = 0; t < x.rows; ++t)
    for (Index r = 0; r < q.extents.rows; ++r) {
      double total = 0;
      for (Index first = 0, g = 0; first < x.cols; first += group, ++g) {
        const Affine a = q.affine(r, g);
        long sum = 0;
        for (Index j = first; j < std::min(first + group, x.cols); ++j)
          sum += std::lround(static_cast<double>(S::format::decode(q.row(r)[static_cast<std::size_t>(j)]) - a.zero)) *
                 code_of(x(t, j), scale);
        total += static_cast<double>(sum) * static_cast<double>(a.scale);
      }
      y.push_back(total * static_cast<double>(scale));
    }
  return y;
}

template <AnyScheme S>
void check_scheme(bool exact) {
  unsigned seed = 1;
  for (const StaticShape& shape : static_shapes) {
    const Index rows = shape.rows, cols = shape.cols, tokens = shape.tokens;
    CAPTURE(std::string(S::name.view()), rows, cols, tokens);
    const Matrix x = random_matrix(tokens, cols, seed, 1), w = random_matrix(rows, cols, seed + 100, 1);
    ++seed;
    QuantizedMatrix<S> q = quantize_nearest<S>(w.view()).value();
    if (exact)
      for (Affine& a : q.affines) a.scale = 0.25f;
    AnyPacked plain{pack(q)}, tiled = plain;
    tiled.prepare(Compute::int8_static);
    Workspace workspace;
    for (const float scale : {0.03125f, 0.0078125f}) {  // reaches to 4 and to 1: the latter cuts off a third of the values
      const auto expected = by_hand(q, x.view(), scale);
      Matrix y(tokens, rows), other(tokens, rows);
      const ActivationMode mode = ActivationMode::int8_static(scale);
      plain.matmul(x.view(), y.view(), mode, {}, workspace);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        const auto found = static_cast<double>(y.data()[i]);
        if (exact)
          REQUIRE(found == expected[i]);
        else
          REQUIRE(found == Approx(expected[i]).epsilon(1e-5).margin(1e-4));
      }
      const auto same = [&] { return std::equal(y.data(), y.data() + tokens * rows, other.data()); };
      for (const Index threads : {1, 2, 3}) {
        ThreadPool pool(threads);
        for (const AnyPacked* packed : {&plain, &tiled}) {
          packed->matmul(x.view(), other.view(), mode, pool, workspace);
          REQUIRE(same());
        }
      }
      for (Index t = 0; t < tokens; ++t)  // no token is told by its neighbours
        tiled.matmul(x.view().row_range(t, t + 1), other.view().row_range(t, t + 1), mode, {}, workspace);
      REQUIRE(same());
    }
  }
}

}  // namespace

TEST_CASE("int8_static: one given scale for every token, products in whole numbers") {
  check_scheme<Scheme<SInt<8>, PerRow, ScaleF32>>(true);
  check_scheme<Scheme<UInt<4>, PerGroup<32>, ScaleF32>>(false);
}

TEST_CASE("int8_static: formats without integers multiply the rounded values in float") {
  using S = Scheme<Nf4, PerGroup<64>>;
  const Matrix x = random_matrix(5, 130, 1, 1), w = random_matrix(9, 130, 2, 1);
  const auto q = quantize_nearest<S>(w.view()).value();
  const auto packed = pack(q);
  Matrix rounded(5, 130), y(5, 9);
  for (Index t = 0; t < 5; ++t)
    for (Index j = 0; j < 130; ++j) rounded(t, j) = 0.01f * static_cast<float>(code_of(x(t, j), 0.01f));
  Workspace workspace;
  matmul(packed, x.view(), y.view(), ActivationMode::int8_static(0.01f), workspace);
  const Matrix back = dequantize(q);
  for (Index t = 0; t < 5; ++t)
    for (Index r = 0; r < 9; ++r) {
      double sum = 0;
      for (Index j = 0; j < 130; ++j) sum += static_cast<double>(rounded(t, j)) * static_cast<double>(back(r, j));
      CHECK(static_cast<double>(y(t, r)) == Approx(sum).epsilon(1e-5).margin(1e-5));
    }
}

TEST_CASE("int8_static: values beyond the scale are cut off on both sides alike, whatever their size") {
  using S = Scheme<SInt<8>, PerRow, ScaleF32>;
  QuantizedMatrix<S> q({1, 3});
  q.codes = {static_cast<S::code>(SInt<8>::encode(1)), static_cast<S::code>(SInt<8>::encode(1)),
             static_cast<S::code>(SInt<8>::encode(1))};
  q.affines[0].scale = 1;
  const auto packed = pack(q);
  Workspace workspace;
  const auto product = [&](std::initializer_list<float> values, float scale) {
    float y = 0;
    matvec(packed, std::span(values.begin(), values.size()), std::span(&y, 1), ActivationMode::int8_static(scale), workspace);
    return y;
  };
  CHECK(product({126.4f, 0, 0}, 1) == 126);
  CHECK(product({127.5f, 0, 0}, 1) == 127);
  CHECK(product({-300, 0, 0}, 1) == -127);
  CHECK(product({1e30f, 2.5f, -3.5f}, 1) == 127 + 2 - 4);  // ties to even
  CHECK(product({-3e38f, 1, 1}, 1) == -127 + 2);
  CHECK(product({3e38f, 0, 0}, std::numeric_limits<float>::min()) == 127 * std::numeric_limits<float>::min());
  CHECK(product({0, 0, 0}, 1) == 0);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Matrix x(2, 3), y(2, 1);
    x(0, 0) = 5, x(1, 1) = bad;
    matmul(packed, x.view(), y.view(), ActivationMode::int8_static(1), workspace);
    CHECK(y(0, 0) == 5);
    CHECK(std::isnan(y(1, 0)));
  }
}

TEST_CASE("int8_static: a token's own scale given beforehand is int8_per_token") {
  using S = Scheme<SInt<8>, PerRow, ScaleF32>;
  const Matrix x = random_matrix(1, 300, 3, 2);
  const auto packed = pack(quantize_nearest<S>(random_matrix(20, 300, 4, 1).view()).value());
  float largest = 0;
  for (const float v : x.view().row(0)) largest = std::max(largest, std::fabs(v));
  Matrix a(1, 20), b(1, 20);
  Workspace workspace;
  matmul(packed, x.view(), a.view(), Compute::int8_per_token, workspace);
  matmul(packed, x.view(), b.view(), ActivationMode::int8_static(largest / 127), workspace);
  CHECK(std::equal(a.data(), a.data() + 20, b.data()));
}

TEST_CASE("ActivationMode: what a scale may be") {
  for (const float good : {1.0f, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max()})
    CHECK(ActivationMode::valid_scale(good));
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    CHECK_FALSE(ActivationMode::valid_scale(bad));
  CHECK(ActivationMode(Compute::bf16).compute() == Compute::bf16);
  CHECK(ActivationMode(Compute::int8_per_token).scale() == 0);
  CHECK(ActivationMode::int8_static(0.5f).scale() == 0.5f);
  CHECK(rounds_to_int8(ActivationMode::int8_static(0.5f).compute()));
}
