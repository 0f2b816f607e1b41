#include <anybit/scheme/double_quant.hpp>
#include <anybit/scheme/scale_store.hpp>
#include <anybit/testing/scheme_laws.hpp>

#include "support/catch.hpp"

using namespace anybit;
using anybit::testing::check_scale_store_laws;

TEST_CASE("every scale store keeps the laws") {
  CHECK(check_scale_store_laws<NoScale>() == "");
  CHECK(check_scale_store_laws<ScaleF32>() == "");
  CHECK(check_scale_store_laws<ScaleF16>() == "");
  CHECK(check_scale_store_laws<ScaleBF16>() == "");
  CHECK(check_scale_store_laws<ScaleE8M0>() == "");
  CHECK(check_scale_store_laws<DoubleQuant<256>>() == "");
  CHECK(check_scale_store_laws<DoubleQuant<32>>() == "");
  CHECK(check_scale_store_laws<DoubleQuant<1>>() == "");
}
