#include <anybit/core/half.hpp>
#include <anybit/format/minifloat.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/scheme/scale_e8m0.hpp>

#include <cmath>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

namespace {
using E2M1 = Minifloat<2, 1>;
using E4M3 = Minifloat<4, 3>;
using E5M2 = Minifloat<5, 2>;
using Binary16 = Minifloat<5, 10>;
using BFloat16 = Minifloat<8, 7>;
}  // namespace

TEST_CASE("E2M1 has sixteen numbers and nothing special") {
  constexpr float levels[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (int c = 0; c < 8; ++c) {
    CHECK(E2M1::decode(static_cast<Code>(c)) == levels[c]);
    CHECK(E2M1::decode(static_cast<Code>(c | 8)) == -levels[c]);
  }
  STATIC_REQUIRE(E2M1::encode(7.9f) == 7);
  STATIC_REQUIRE(E2M1::encode(-0.3f) == 9);
  STATIC_REQUIRE(E2M1::encode(2.6f) == 5);
  CHECK(E2M1::encode(2.5f) == 4);  // between 2 and 3: even code
  CHECK(E2M1::encode(3.5f) == 6);
  CHECK(E2M1::encode(5.0f) == 6);
  CHECK(E2M1::encode(0.25f) == 0);
  CHECK(E2M1::encode(-0.25f) == 0);
  CHECK(E2M1::encode(0.75f) == 2);
}

TEST_CASE("E4M3 has one NaN of each sign and reaches 448") {
  CHECK(E4M3::largest == 448);
  CHECK(E4M3::largest_code == 0x7E);
  CHECK(std::isnan(E4M3::decode(0x7F)));
  CHECK(std::isnan(E4M3::decode(0xFF)));
  CHECK(E4M3::decode(0x01) == 0x1p-9f);
  CHECK(E4M3::decode(0x08) == 0x1p-6f);
  CHECK(E4M3::encode(1e9f) == 0x7E);
  CHECK(E4M3::encode(-1e9f) == 0xFE);
  CHECK(E4M3::encode(0x1p-10f) == 0);               // half of the smallest: even
  CHECK(E4M3::encode(0x1.8p-9f) == 0x02);           // 1.5 of the smallest: even
  CHECK(E4M3::encode(0x1p-6f - 0x1p-11f) == 0x08);  // the largest subnormal rounds up into the normals
}

TEST_CASE("E5M2 has IEEE's infinity and NaN, which the encoder never writes") {
  CHECK(E5M2::largest == 57344);
  CHECK(E5M2::decode(0x7C) == std::numeric_limits<float>::infinity());
  CHECK(E5M2::decode(0xFC) == -std::numeric_limits<float>::infinity());
  for (const int c : {0x7D, 0x7E, 0x7F, 0xFD}) CHECK(std::isnan(E5M2::decode(static_cast<Code>(c))));
  CHECK(E5M2::encode(std::numeric_limits<float>::infinity()) == 0x7B);
  CHECK(E5M2::encode(-61440.0f) == 0xFB);
}

TEST_CASE("E5M10 decodes and encodes as binary16, E8M7 as bfloat16") {
  int wrong = 0;
  for (unsigned c = 0; c < 65536; ++c) {
    const auto code = static_cast<Code>(c);
    for (const bool half : {true, false}) {
      const float truth = half ? f16_to_f32(code) : bf16_to_f32(code),
                  level = half ? Binary16::decode(code) : BFloat16::decode(code);
      wrong +=
          std::isnan(truth) ? !std::isnan(level) : std::bit_cast<std::uint32_t>(level) != std::bit_cast<std::uint32_t>(truth);
      if (!std::isfinite(truth)) continue;
      // The middle to the next code and its neighbours, where rounding decides.
      const float next = half ? f16_to_f32(static_cast<Code>(c + 1)) : bf16_to_f32(static_cast<Code>(c + 1));
      if (!std::isfinite(next)) continue;
      const float middle = truth / 2 + next / 2;
      for (const float x : {truth, std::nextafter(middle, truth), middle, std::nextafter(middle, next)}) {
        const unsigned expected = half ? f32_to_f16(x) : f32_to_bf16(x), got = half ? Binary16::encode(x) : BFloat16::encode(x);
        wrong += expected != got && !(expected == 0x8000 && got == 0);
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("minifloats with few exponent or mantissa bits") {
  CHECK(Minifloat<3, 0>::decode(7) == 16);  // 2^(7 - 3)
  CHECK(Minifloat<3, 0>::decode(1) == 0.25f);
  CHECK(Minifloat<3, 0>::encode(3.1f) == 5);
  CHECK(Minifloat<1, 2>::decode(3) == 1.5f);  // bias 0: steps of 0.5, like an integer
  CHECK(Minifloat<1, 2>::decode(7) == 3.5f);
  CHECK(Minifloat<2, 3>::largest == 7.5f);
  CHECK(Minifloat<3, 2>::largest == 28);
}

TEST_CASE("MXFP4 gives ggml's codes and scales, ties apart") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/ggml.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  for (const std::string distribution : {"normal", "outliers", "blocks", "tiny", "large"}) {
    INFO(distribution);
    const auto x = file->read<float>("x." + distribution).value();
    const auto bytes = file->read<std::uint8_t>("MXFP4." + distribution + ".bytes").value();
    const auto truth = file->read<float>("MXFP4." + distribution + ".deq").value();
    int wrong_scales = 0, wrong_codes = 0, wrong_values = 0, ties = 0;
    for (std::size_t block = 0; block * 32 < x.size(); ++block) {
      const std::span<const float> w(x.data() + block * 32, 32);
      const std::uint8_t* const b = bytes.data() + block * 17;
      Affine a = E2M1::fit(w);
      using Store = ScaleE8M0::of<Minifloat<2, 1>>;
      Store::round_trip({&a.scale, 1});
      wrong_scales += Store::encode(a.scale) != b[0] && abs_max(w) > 0;
      for (std::size_t i = 0; i < 32; ++i) {
        const auto theirs = static_cast<Code>(i < 16 ? b[1 + i] & 15 : b[1 + i - 16] >> 4);
        const Code ours = quantize_value<E2M1>(w[i], a);
        wrong_values += dequantize_value<E2M1>(theirs, a) != truth[block * 32 + i];
        if (ours == theirs) continue;
        // ggml takes the first of two levels at the same distance, the standard (and this) the even code.
        const float v = w[i] / a.scale;
        if (std::abs(v - E2M1::decode(ours)) == std::abs(v - E2M1::decode(theirs)))
          ++ties;
        else
          ++wrong_codes;
      }
    }
    CHECK(wrong_scales == 0);
    CHECK(wrong_codes == 0);
    CHECK(wrong_values == 0);
    CHECK(ties <= 64);
  }
}
