#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <anybit/core/half.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/scheme/scale_e5m3.hpp>
#include <anybit/scheme/scale_e8m0.hpp>
#include <anybit/scheme/scale_store.hpp>
#include <anybit/scheme/scheme.hpp>
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
  CHECK(check_scale_store_laws<ScaleE8M0::of<Minifloat<2, 1>>>() == "");
  CHECK(check_scale_store_laws<ScaleE8M0::of<Minifloat<4, 3>>>() == "");
  CHECK(check_scale_store_laws<ScaleE8M0::of<Superfloat<5>>>() == "");
  CHECK(check_scale_store_laws<ScaleE8M0::of<Ternary>>() == "");
  CHECK(check_scale_store_laws<ScaleE8M0Up>() == "");
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

namespace {

/// How often the store's scale for a single weight of any mantissa and exponent differs from the one that `rule` takes for it.
template <class F, class Store, class Rule>
int scales_unlike(Rule rule) {
  using S = Scheme<F, PerGroup<32>, Store>;
  int unlike = 0;
  for (int e = -100; e < 128; ++e)
    for (const float m : {1.0f, std::nextafter(1.0f, 2.0f), 1.125f, 1.25f, std::nextafter(1.5f, 1.0f), 1.5f, 1.7f, 1.75f,
                          std::nextafter(1.75f, 2.0f), 1.9f, std::nextafter(2.0f, 1.0f)}) {
      const float largest = std::ldexp(m, e);
      float s = F::fit({&largest, 1}).scale;
      S::scale_store::round_trip({&s, 1});
      unlike += s != rule(largest);
    }
  return unlike;
}

/// MX specification v1.0, section 6.3: shared exponent = floor(log2(max |V_i|)) - emax of the element type.
template <class F>
int scales_unlike_specification(int emax) {
  return scales_unlike<F, ScaleE8M0>([&](float largest) { return std::ldexp(1.0f, std::min(std::ilogb(largest) - emax, 127)); });
}

}  // namespace

TEST_CASE("E8M0 takes the scale of the Microscaling specification for every format") {
  CHECK(scales_unlike_specification<Minifloat<2, 1>>(2) == 0);
  CHECK(scales_unlike_specification<Minifloat<2, 3>>(2) == 0);
  CHECK(scales_unlike_specification<Minifloat<3, 2>>(4) == 0);
  CHECK(scales_unlike_specification<Minifloat<4, 3>>(8) == 0);
  CHECK(scales_unlike_specification<Minifloat<5, 2>>(15) == 0);
  CHECK(scales_unlike_specification<Minifloat<3, 4>>(4) == 0);
  CHECK(scales_unlike_specification<Nf4>(0) == 0);
  CHECK(scales_unlike_specification<Superfloat<4>>(-1) == 0);
  // 32 weights of 1.125 come back as they were.
  using S = Scheme<Minifloat<4, 3>, PerGroup<32>, ScaleE8M0>;
  const std::vector<float> w(32, 1.125f);
  Affine a = S::format::fit(w);
  S::scale_store::round_trip({&a.scale, 1});
  CHECK(a.scale == 0x1p-8f);
  CHECK(dequantize_value<S::format>(quantize_value<S::format>(1.125f, a), a) == 1.125f);
  CHECK(S::name.view() == "e4m3/g32/e8m0/bits");
}

TEST_CASE("E8M0 of a format whose fit is a mean: the nearest power of two") {
  for (const float gamma : {1.0f, 1.3f, 1.34f, 1.9f, 2.0f}) {
    float s = gamma;
    ScaleE8M0::of<Ternary>::round_trip({&s, 1});
    CHECK(s == (gamma < 4.0f / 3 ? 1.0f : 2.0f));
  }
}

TEST_CASE("E8M0 rounded up clips no weight") {
  const auto smallest_without_clipping = [](float level) {
    return [level](float largest) {
      int e = -127;
      while (e < 127 && std::ldexp(level, e) < largest) ++e;
      return std::ldexp(1.0f, e);
    };
  };
  // A rounded quotient may hide one unit in the last place above a power of two; none of these mantissas is such a one for 6.
  CHECK(scales_unlike<Minifloat<2, 1>, ScaleE8M0Up>(smallest_without_clipping(6)) == 0);
  float s[] = {0, 1, std::nextafter(1.0f, 2.0f), 0x1p127f, std::numeric_limits<float>::max(), 0x1p-149f};
  ScaleE8M0Up::round_trip(s);
  CHECK(std::vector<float>(std::begin(s), std::end(s)) == std::vector<float>{0x1p-127f, 1, 2, 0x1p127f, 0x1p127f, 0x1p-127f});
}
