#include <anybit/calibrate/stats.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"

using namespace anybit;
using test_layers::random_matrix;

namespace {

constexpr Needs all = Needs::abs_max | Needs::mean_abs | Needs::mean_square | Needs::hessian | Needs::samples;

void check_against_naive(const Stats& s, const Matrix& x) {
  const auto n = static_cast<double>(x.rows());
  CHECK(s.tokens() == x.rows());
  const Matrix h = s.hessian();
  const auto mean_abs = s.mean_abs(), mean_square = s.mean_square();
  for (Index i = 0; i < x.cols(); ++i) {
    float largest = 0;
    double magnitude = 0, square = 0;
    for (Index t = 0; t < x.rows(); ++t) {
      largest = std::max(largest, std::fabs(x(t, i)));
      magnitude += std::fabs(double{x(t, i)});
      square += double{x(t, i)} * double{x(t, i)};
    }
    CHECK(s.abs_max()[static_cast<std::size_t>(i)] == largest);
    CHECK(mean_abs[static_cast<std::size_t>(i)] == Approx(magnitude / n));
    CHECK(mean_square[static_cast<std::size_t>(i)] == Approx(square / n));
    for (Index j = 0; j < x.cols(); ++j) {
      double product = 0;
      for (Index t = 0; t < x.rows(); ++t) product += double{x(t, i)} * double{x(t, j)};
      CHECK(double{h(i, j)} == Approx(2 * product / n).epsilon(1e-5).margin(1e-5 * std::sqrt(square / n)));
    }
  }
}

}  // namespace

TEST_CASE("statistics are those of the definition, at odd sizes") {
  for (const auto& [tokens, inputs] : {std::pair<Index, Index>{1, 1}, {7, 1}, {1, 5}, {300, 19}, {513, 33}}) {
    const Matrix x = random_matrix(tokens, inputs, 3);
    Stats s(inputs, all);
    REQUIRE(s.accumulate(x.view()).ok());
    check_against_naive(s, x);
  }
}

TEST_CASE("streaming and merging give what the whole gives") {
  const Matrix x = random_matrix(700, 21, 5);
  Stats whole(21, all), first(21, all), second(21, all), streamed(21, all);
  REQUIRE(whole.accumulate(x.view()).ok());
  REQUIRE(first.accumulate(x.view().row_range(0, 311)).ok());
  REQUIRE(second.accumulate(x.view().row_range(311, 700)).ok());
  REQUIRE(first.merge(second).ok());
  for (Index t = 0; t < 700; t += 13) REQUIRE(streamed.accumulate(x.view().row_range(t, std::min<Index>(t + 13, 700))).ok());
  check_against_naive(first, x);
  check_against_naive(streamed, x);
  CHECK(first.samples().rows <= Stats::default_sample_cap);
  // Samples of one stream are evenly spread, whatever the cut.
  REQUIRE(whole.samples().rows == streamed.samples().rows);
  CHECK(whole.sample_stride() == 2);
  for (Index r = 0; r < whole.samples().rows; ++r)
    for (Index c = 0; c < 21; ++c) {
      CHECK(whole.samples()(r, c) == x(2 * r, c));
      CHECK(streamed.samples()(r, c) == x(2 * r, c));
    }
}

TEST_CASE("strided views and empty batches") {
  const Matrix x = random_matrix(9, 8, 2);
  const ConstMatrix part(x.data() + 1, 9, 3, 8);
  Stats s(3, all);
  REQUIRE(s.accumulate(part).ok());
  REQUIRE(s.accumulate(ConstMatrix(x.data(), 0, 3)).ok());
  check_against_naive(s, Matrix(part));
  Stats none(0, all);
  CHECK(none.accumulate(ConstMatrix(x.data(), 4, 0)).ok());
  CHECK(none.samples().rows == 0);
}

TEST_CASE("values beyond float's squares are summed in double") {
  Matrix x(3, 3);
  x(0, 0) = 1e30f, x(1, 0) = -2e30f, x(0, 1) = 1e-30f, x(2, 1) = 3e-30f, x(2, 2) = 1;
  Stats s(3, Needs::hessian);
  REQUIRE(s.accumulate(x.view()).ok());
  std::vector<double> h(9);
  s.hessian(MatrixView<double>(h.data(), 3, 3));
  CHECK(h[0] == Approx(2.0 / 3 * 5e60));
  CHECK(h[4] == Approx(2.0 / 3 * 1e-59));
  CHECK(h[1] == Approx(2.0 / 3));
}

TEST_CASE("a value that is not finite names its token and channel and leaves the statistics alone") {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    Matrix x = random_matrix(5, 4, 1);
    Stats s(4, all);
    REQUIRE(s.accumulate(x.view()).ok());
    const auto before = s.to_bytes();
    x(3, 2) = bad;
    const auto e = s.accumulate(x.view());
    REQUIRE(!e.ok());
    CHECK(e.error().code == ErrorCode::not_finite);
    CHECK(e.error().message.find("token 8, channel 2") != std::string::npos);
    CHECK(s.to_bytes() == before);
  }
}

TEST_CASE("statistics that do not fit together do not join") {
  Stats s(4, all), other_size(5, all), other_kind(4, Needs::hessian), other_model(4, all);
  CHECK(!s.accumulate(Matrix(2, 5).view()).ok());
  CHECK(!s.merge(other_size).ok());
  CHECK(!s.merge(other_kind).ok());
  s.fingerprint = "a";
  CHECK(s.merge(other_model).ok());
  other_model.fingerprint = "b";
  CHECK(s.merge(other_model).error().message.find("\"b\"") != std::string::npos);
}

TEST_CASE("bytes and back, and every damage is noticed") {
  const Matrix x = random_matrix(40, 6, 9);
  for (const Needs needs : {all, Needs::none, Needs::hessian, Needs::abs_max | Needs::samples}) {
    Stats s(6, needs, 16);
    s.fingerprint = "model of a test";
    REQUIRE(s.accumulate(x.view()).ok());
    const auto bytes = s.to_bytes();
    auto back = Stats::from_bytes(bytes, "x.stats");
    REQUIRE(back.ok());
    CHECK(back->to_bytes() == bytes);
    CHECK(back->fingerprint == s.fingerprint);
    REQUIRE(back->accumulate(x.view()).ok());  // it goes on
    REQUIRE(s.accumulate(x.view()).ok());
    CHECK(back->to_bytes() == s.to_bytes());
    for (std::size_t cut = 0; cut < bytes.size(); cut += cut < 80 ? 1 : 97) {
      const auto e = Stats::from_bytes(std::span(bytes).first(cut), "x.stats");
      REQUIRE(!e.ok());
      CHECK(e.error().message.find("x.stats") == 0);
    }
    for (std::size_t at = 0; at < 64; ++at) {  // any byte of the header: an error or statistics, never a crash
      auto broken = bytes;
      broken[at] ^= std::byte{0x80};
      (void)Stats::from_bytes(broken, "x.stats").ok();
      broken[at] ^= std::byte{0xFF};
      (void)Stats::from_bytes(broken, "x.stats").ok();
    }
  }
  Stats s(6, Needs::hessian);
  REQUIRE(s.accumulate(x.view()).ok());
  auto bytes = s.to_bytes();
  const double nan = std::nan("");
  std::memcpy(bytes.data() + 64, &nan, sizeof nan);
  CHECK(Stats::from_bytes(bytes, "x.stats").error().code == ErrorCode::not_finite);
}

TEST_CASE("a Hessian from elsewhere") {
  const std::vector<double> h{3, 1, 1, 2}, nan{1, 0, 0, std::nan("")};
  Stats s(2, Needs::abs_max);
  REQUIRE(s.set_hessian({h.data(), 2, 2}, 10).ok());
  CHECK(s.has(Needs::hessian));
  CHECK(s.hessian()(0, 1) == 1);
  CHECK(s.hessian()(1, 1) == 2);
  CHECK(!s.set_hessian({nan.data(), 2, 2}, 10).ok());
  CHECK(!s.set_hessian({h.data(), 1, 1}, 10).ok());
  CHECK(!s.set_hessian({h.data(), 2, 2}, 0).ok());
}
