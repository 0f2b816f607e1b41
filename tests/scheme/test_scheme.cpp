#include <anybit/io/safetensors.hpp>
#include <anybit/scheme/presets.hpp>

#include <set>
#include <string>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

TEST_CASE("granularities count and index their groups, ragged ones too") {
  const Extents e{3, 300};
  CHECK(PerTensor::count(e) == 1);
  CHECK(PerTensor::index(e, 2, 0) == 0);
  CHECK(PerRow::count(e) == 3);
  CHECK(PerRow::index(e, 2, 0) == 2);
  CHECK(PerGroup<128>::groups_per_row(300) == 3);
  CHECK(PerGroup<128>::count(e) == 9);
  CHECK(PerGroup<128>::index(e, 2, 1) == 7);
  CHECK(PerGroup<1>::count(e) == 900);
  CHECK(PerGroup<1000>::count(e) == 3);
  for (const Extents empty : {Extents{0, 0}, Extents{0, 5}, Extents{5, 0}}) {
    CHECK(PerTensor::count(empty) == 0);
    CHECK(PerRow::count(empty) == 0);
    CHECK(PerGroup<32>::count(empty) == 0);
  }
}

TEST_CASE("bits per weight follow from the bytes") {
  const Extents e{4096, 4096};
  CHECK(presets::ScaledSuperfloat<5>::bits_per_weight(e) == 5.125);
  CHECK(presets::AsymmetricInt<4>::bits_per_weight(e) == 4 + 20.0 / 128);
  CHECK(presets::Mxfp4::bits_per_weight(e) == 4.25);
  CHECK(presets::Int8Group32::bits_per_weight(e) == 8.5);
  CHECK(presets::Nf4DoubleQuant::bits_per_weight(e) == Approx(4.127).epsilon(1e-4));
  CHECK(presets::BitNet::bits_per_weight(e) == Approx(1.6).epsilon(2e-3));
  CHECK(presets::PublishedSuperfloat8::bits_per_weight(e) == 8);
  CHECK(presets::ScaledSuperfloat<3>::bits_per_weight({0, 7}) == 0);
  // A ragged row: 3 bits of 9 columns are 4 bytes, and one group has 2 bytes of scale.
  CHECK(presets::ScaledSuperfloat<3>::codes_bytes({2, 9}) == 8);
  CHECK(presets::ScaledSuperfloat<3>::scales_bytes({2, 9}) == 4);
  // Zero points are one run: 4 of 3 bits.
  CHECK(presets::AsymmetricInt<3>::zeros_bytes({2, 200}) == 2);
}

TEST_CASE("presets have names of their own") {
  std::set<std::string> names;
  for_each_type(Presets{}, [&]<class S>() { names.emplace(S::name.view()); });
  CHECK(names.size() == Presets::size);
  CHECK(names.count("superfloat5/g128/f16/bits") == 1);
  CHECK(names.count("nf4/g64/dq256/bits") == 1);
  CHECK(names.count("ternary/tensor/f32/base3") == 1);
}

TEST_CASE("E8M0: the bytes at both ends") {
  CHECK(ScaleE8M0::encode(0) == 0);
  CHECK(ScaleE8M0::decode(0) == 0x1p-127f);
  CHECK(ScaleE8M0::decode(127) == 1);
  CHECK(ScaleE8M0::encode(std::numeric_limits<float>::infinity()) == 254);
}

TEST_CASE("half-precision scales saturate instead of becoming infinite") {
  float s[] = {1e6f, 65504.0f, 65519.0f, 1e-9f, std::numeric_limits<float>::infinity()};
  ScaleF16::round_trip(s);
  CHECK(s[0] == 65504);
  CHECK(s[1] == 65504);
  CHECK(s[2] == 65504);
  CHECK(s[3] == 0);
  CHECK(s[4] == 65504);
  float b[] = {std::numeric_limits<float>::max()};
  ScaleBF16::round_trip(b);
  CHECK(b[0] == 0x1.FEp127f);
}

TEST_CASE("int8 in groups of 32 holds llama.cpp's Q8_0 exactly") {
  using S = presets::Int8Group32;
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/ggml.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  for (const std::string distribution : {"normal", "outliers", "blocks", "tiny", "large"}) {
    INFO(distribution);
    const auto x = file->read<float>("x." + distribution).value();
    const auto bytes = file->read<std::uint8_t>("Q8_0." + distribution + ".bytes").value();
    const auto truth = file->read<float>("Q8_0." + distribution + ".deq").value();
    int wrong_scales = 0, wrong_values = 0, wrong_codes = 0;
    for (std::size_t block = 0; block * 32 < x.size(); ++block) {
      const std::span<const float> w(x.data() + block * 32, 32);
      const std::uint8_t* const b = bytes.data() + block * 34;
      const auto their_bits = static_cast<std::uint16_t>(b[0] | b[1] << 8);
      const Affine fitted = S::format::fit(w);
      wrong_scales += ScaleF16::encode(fitted.scale) != their_bits && their_bits < 0x7C00;  // theirs may overflow to infinity
      for (std::size_t i = 0; i < 32; ++i) {
        wrong_values +=
            !(dequantize_value<S::format>(b[2 + i], {f16_to_f32(their_bits), 0}) == truth[block * 32 + i]) && their_bits < 0x7C00;
        // ggml divides by the scale before it is rounded to half.
        const int difference = S::format::to_int(quantize_value<S::format>(w[i], fitted)) - S::format::to_int(b[2 + i]);
        wrong_codes += difference != 0;
      }
    }
    CHECK(wrong_scales == 0);
    CHECK(wrong_values == 0);
    CHECK(wrong_codes == 0);
  }
}
