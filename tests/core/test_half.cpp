#include <cmath>
#include <limits>

#include <anybit/core/half.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

// Independent truth: the value by the definition of binary16, with ldexp.
double half_value(unsigned h) {
  const double sign = h & 0x8000 ? -1 : 1;
  const int exponent = static_cast<int>(h >> 10 & 31), mantissa = static_cast<int>(h & 1023);
  if (exponent == 31) return mantissa ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

}  // namespace

TEST_CASE("every binary16 pattern decodes to its value and back") {
  for (unsigned h = 0; h < 0x10000; ++h) {
    const auto pattern = static_cast<std::uint16_t>(h);
    const float f = f16_to_f32(pattern);
    if (std::isnan(half_value(h))) {
      REQUIRE(std::isnan(f));
      REQUIRE(std::isnan(f16_to_f32(f32_to_f16(f))));
      continue;
    }
    REQUIRE(static_cast<double>(f) == half_value(h));
    REQUIRE(f32_to_f16(f) == pattern);
  }
}

TEST_CASE("binary16 rounds to the nearest value, ties to even") {
  for (unsigned h = 0; h < 0x7BFF; ++h) {
    const double low = half_value(h), high = half_value(h + 1), middle = (low + high) / 2;
    const auto even = static_cast<std::uint16_t>(h & 1 ? h + 1 : h);
    const float tie = static_cast<float>(middle);
    REQUIRE(f32_to_f16(tie) == even);
    REQUIRE(f32_to_f16(-tie) == (even | 0x8000));
    REQUIRE(f32_to_f16(std::nextafter(tie, 0.0f)) == h);
    REQUIRE(f32_to_f16(std::nextafter(tie, 1e9f)) == h + 1);
  }
  CHECK(f32_to_f16(65519.996f) == 0x7BFF);
  CHECK(f32_to_f16(65520.0f) == 0x7C00);
  CHECK(f32_to_f16(std::numeric_limits<float>::infinity()) == 0x7C00);
  CHECK(f32_to_f16(1e-40f) == 0);
  CHECK(f32_to_f16(-0.0f) == 0x8000);
}

TEST_CASE("every bfloat16 pattern is the upper half of a float, rounding is to even") {
  for (unsigned h = 0; h < 0x7F7F; ++h) {
    const auto pattern = static_cast<std::uint16_t>(h);
    const float low = bf16_to_f32(pattern), high = bf16_to_f32(static_cast<std::uint16_t>(h + 1));
    REQUIRE(f32_to_bf16(low) == pattern);
    const float middle = static_cast<float>((static_cast<double>(low) + static_cast<double>(high)) / 2);
    REQUIRE(f32_to_bf16(middle) == (h & 1 ? h + 1 : h));
  }
  CHECK(std::isnan(bf16_to_f32(f32_to_bf16(std::nanf("")))));
  CHECK(f32_to_bf16(std::numeric_limits<float>::max()) == 0x7F80);
}
