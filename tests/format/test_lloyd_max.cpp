#include <anybit/evaluate/rate_distortion.hpp>
#include <anybit/format/lloyd_max.hpp>
#include <anybit/testing/format_laws.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

template <int Bits>
void check_width() {
  INFO(Bits);
  using F = LloydMax<Bits>;
  CHECK(testing::check_format_laws<F>() == "");
  const auto optimal = evaluate::lloyd_max(evaluate::GaussianSource{}, 1 << Bits);
  std::vector<double> levels;
  for (int c = 0; c < 1 << Bits; ++c) levels.push_back(double{F::decode(static_cast<Code>(c))});
  std::sort(levels.begin(), levels.end());
  double distortion = 0;  // of these levels, thresholds half way between them
  for (std::size_t i = 0; i < levels.size(); ++i) {
    CHECK(levels[i] == Approx(optimal.levels[i]).epsilon(0x1p-8));  // rounded to 8 binary places
    const double unbounded = std::numeric_limits<double>::infinity();
    const auto m = evaluate::GaussianSource{}.moments(i > 0 ? 0.5 * (levels[i - 1] + levels[i]) : -unbounded,
                                                      i + 1 < levels.size() ? 0.5 * (levels[i] + levels[i + 1]) : unbounded);
    distortion += m.second - 2 * levels[i] * m.first + levels[i] * levels[i] * m.mass;
  }
  CHECK(distortion >= optimal.distortion);
  CHECK(evaluate::decibels(optimal.distortion) - evaluate::decibels(distortion) < 0.015);
}

}  // namespace

TEST_CASE("LloydMax has the levels that Lloyd's conditions give for N(0, 1)") {
  check_width<2>();
  check_width<3>();
  check_width<4>();
  check_width<5>();
  check_width<6>();
}

TEST_CASE("LloydMax: codes are sign and magnitude, the scale is the root mean square") {
  using F = LloydMax<3>;
  STATIC_REQUIRE(F::encode(0.1f) == 0);
  STATIC_REQUIRE(F::encode(-0.1f) == 4);
  STATIC_REQUIRE(F::encode(9) == 3);
  STATIC_REQUIRE(F::encode(-9) == 7);
  STATIC_REQUIRE(F::encode(0) == 4);  // half way between the two levels beside it: the lower one
  const float w[] = {3, -4, 0, 0, 5};
  CHECK(F::fit(w).scale == Approx(std::sqrt(10.0)));
  std::vector<float> many(131);
  double sum = 0;
  for (std::size_t i = 0; i < many.size(); ++i) {
    many[i] = static_cast<float>(i) * 0.25f - 9;
    sum += double{many[i]} * double{many[i]};
  }
  CHECK(F::fit(many).scale == Approx(std::sqrt(sum / 131)));
  static constexpr float fixed[] = {1, -7};
  STATIC_REQUIRE(F::fit(fixed) == Affine{5, 0});
  STATIC_REQUIRE(F::fit(std::span<const float>{}) == Affine{0, 0});
}
