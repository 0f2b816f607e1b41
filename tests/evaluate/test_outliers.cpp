#include <anybit/evaluate/outliers.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "model/random_decoder.hpp"
#include "support/catch.hpp"

using namespace anybit;

TEST_CASE("outliers of a small matrix, by hand") {
  Matrix x(2, 3);
  const float values[] = {1, -127, 2, -3, 63.5f, 0};
  std::copy(std::begin(values), std::end(values), x.data());
  const auto o = evaluate::outliers(x.view());
  CHECK(o.largest == 127);
  CHECK(o.median_channel == 3);
  CHECK(o.ratio() == Approx(127.0 / 3));
  double mean = 0, second = 0, fourth = 0, squares = 0;
  for (const float v : values) mean += double{v} / 6, squares += double{v} * double{v};
  for (const float v : values) second += std::pow(v - mean, 2) / 6, fourth += std::pow(v - mean, 4) / 6;
  CHECK(o.kurtosis == Approx(fourth / (second * second)));
  // One scale: 1. Only 63.5 is off, by 0.5. A scale a token: 1 and 0.5; nothing is off.
  CHECK(o.int8_static == Approx(0.5 / std::sqrt(squares)));
  CHECK(o.int8_per_token == 0);

  Matrix silent(2, 2);
  silent(1, 0) = 254;  // a token of zeros beside one that is not
  CHECK(evaluate::outliers(silent.view()).int8_per_token == 0);
  const auto none = evaluate::outliers(Matrix(4, 2).view());
  CHECK(none.largest == 0);
  CHECK(none.ratio() == 0);
  CHECK(none.int8_static == 0);
  CHECK(evaluate::outliers(ConstMatrix{}).kurtosis == 0);
}

TEST_CASE("outliers of a model: every site, and a table of before and after") {
  const model::Decoder d = test_support::random_decoder(2);
  model::Decoder calm = d;
  for (Index i = 0; i < 2; ++i) calm.values(i, "attn_norm").assign(32, 1.0f);
  const std::vector<model::TokenId> ids{3, 14, 15, 9, 2, 6};
  const auto before = evaluate::outliers(d, ids).value(), after = evaluate::outliers(calm, ids).value();
  REQUIRE(before.size() == 8);
  for (const auto& o : before) CHECK(o.largest > 0);
  CHECK(after[0].ratio() < before[0].ratio());
  const std::string table = evaluate::outlier_table(*d.blueprint, before, after);
  CHECK(std::count(table.begin(), table.end(), '\n') == 6);
  CHECK(table.find("| attn_q | ") != std::string::npos);
  CHECK(table.find(" → ") != std::string::npos);
  CHECK_FALSE(evaluate::outliers(d, std::vector<model::TokenId>{-1}).ok());
}
