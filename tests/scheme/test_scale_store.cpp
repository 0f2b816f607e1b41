#include <cmath>
#include <limits>

#include <anybit/core/half.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/scheme/scale_e5m3.hpp>
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
  CHECK(check_scale_store_laws<ScaleE5M3>() == "");
  CHECK(check_scale_store_laws<ScaleE8M0>() == "");
  CHECK(check_scale_store_laws<DoubleQuant<256>>() == "");
  CHECK(check_scale_store_laws<DoubleQuant<32>>() == "");
  CHECK(check_scale_store_laws<DoubleQuant<1>>() == "");
}

TEST_CASE("E5M3: the upper bits of binary16; scales go to the nearest, halves to even, what is too large to the largest") {
  static_assert(Binary16Scales<ScaleE5M3> && Binary16Scales<ScaleF16> && !Binary16Scales<ScaleF32>);
  for (unsigned c = 0; c < 248; ++c) {
    INFO("code " << c);
    const auto code = static_cast<std::uint8_t>(c);
    const float value = ScaleE5M3::decode(code);
    CHECK(ScaleE5M3::encode(value) == code);
    CHECK(value == f16_to_f32(static_cast<std::uint16_t>(c << 7)));
    if (c == 247) continue;
    const float next = ScaleE5M3::decode(static_cast<std::uint8_t>(c + 1)), middle = (value + next) / 2;
    CHECK(ScaleE5M3::encode(std::nextafter(middle, 0.0f)) == c);
    CHECK(ScaleE5M3::encode(std::nextafter(middle, next)) == c + 1);
    CHECK(ScaleE5M3::encode(middle) == (c % 2 == 0 ? c : c + 1));
  }
  CHECK(ScaleE5M3::decode(1) == 0x1p-17f);
  for (unsigned c = 247; c < 256; ++c) CHECK(ScaleE5M3::decode(static_cast<std::uint8_t>(c)) == 61440.0f);
  CHECK(ScaleE5M3::encode(std::nextafter(61440.0f, 0.0f)) == 247);
  CHECK(ScaleE5M3::encode(std::numeric_limits<float>::infinity()) == 247);
  CHECK(ScaleE5M3::encode(0x1p-149f) == 0);
}
