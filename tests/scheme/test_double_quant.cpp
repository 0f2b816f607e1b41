#include <anybit/io/safetensors.hpp>
#include <anybit/scheme/presets.hpp>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

TEST_CASE("double quantization: sizes, and the shape of its map") {
  CHECK(DoubleQuant<256>::bytes(0) == 0);
  CHECK(DoubleQuant<256>::bytes(1) == 9);
  CHECK(DoubleQuant<256>::bytes(257) == 4 + 8 + 257);
  CHECK(presets::Nf4DoubleQuant::bits_per_weight({4096, 4096}) == Approx(4 + 8.0 / 64 + 32.0 / (64 * 256)).epsilon(1e-5));
  constexpr auto map = double_quant::signed_dynamic_map();
  CHECK(std::is_sorted(map.begin(), map.end()));
  CHECK(map[0] == Approx(-0.99296875f));
  CHECK(map[double_quant::map_zero] == 0);
  CHECK(map[128] == Approx(5.5e-7f));
  CHECK(map[255] == 1);
}

TEST_CASE("double quantization keeps one scale, equal scales, and a scale far from the others") {
  const auto round_trip = [](std::vector<float> s) {
    DoubleQuant<256>::round_trip(s);
    return s;
  };
  CHECK(round_trip({0.37f}) == std::vector<float>{0.37f});
  CHECK(round_trip({0, 0, 0}) == std::vector<float>{0, 0, 0});
  CHECK(round_trip(std::vector<float>(600, 0.02f)) == std::vector<float>(600, 0.02f));
  const auto s = round_trip({1, 1, 1, 1, 9});
  CHECK(s[0] == 1);
  CHECK(s[4] == Approx(9).epsilon(1e-5));
}

TEST_CASE("double quantization never restores a scale below 0") {
  // The offset is 1, the block scale 100: the level next to -0.01 restores to less than 0 before it is clamped.
  std::vector<float> s(300, 1.0f);
  s[0] = 101;
  s[1] = 0;
  for (std::size_t i = 2; i < 150; ++i) s[i] = 0.01f * static_cast<float>(i % 9);
  DoubleQuant<256>::round_trip(s);
  CHECK(*std::min_element(s.begin(), s.end()) >= 0);
}

TEST_CASE("double quantization reads bitsandbytes' scales and restores as well as it does") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/nf4.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  const auto map = file->read<float>("code.nested_u8_map").value();
  for (std::size_t c = 0; c < 256; ++c) CHECK(double_quant::map.decode(static_cast<Code>(c)) == map[c]);

  for (const std::string name : {"big.nf4.bs64", "big.fp4.bs64", "big.nf4.bs128", "odd.nf4.bs64", "odd.fp4.bs128"}) {
    INFO(name);
    const auto absmax = file->read<float>(name + ".absmax").value();
    const auto codes = file->read<std::uint8_t>(name + ".dq.absmax_u8").value();
    const auto nested = file->read<float>(name + ".dq.nested_absmax").value();
    const auto offset = file->read<float>(name + ".dq.nested_offset").value();
    const auto restored = file->read<float>(name + ".dq.absmax_restored").value();
    const std::size_t n = codes.size();

    // Their codes in our bytes load as their scales, up to the one rounding that they do more.
    std::vector<std::byte> bytes(static_cast<std::size_t>(DoubleQuant<256>::bytes(static_cast<Index>(n))));
    REQUIRE(bytes.size() == 4 + 4 * nested.size() + n);
    std::memcpy(bytes.data(), offset.data(), 4);
    std::memcpy(bytes.data() + 4, nested.data(), 4 * nested.size());
    std::memcpy(bytes.data() + 4 + 4 * nested.size(), codes.data(), n);
    std::vector<float> loaded(n);
    DoubleQuant<256>::load(bytes.data(), static_cast<Index>(n), 0, loaded);
    int different_codes = 0;
    for (std::size_t i = 0; i < n; ++i) {
      CHECK(loaded[i] == Approx(restored[i]).epsilon(2e-7));
      different_codes += double_quant::nearest_code(absmax[i], nested[i / 256], offset[0]) != codes[i];
    }
    CHECK(different_codes <= 1 + static_cast<int>(n / 100));

    std::vector<float> ours = absmax;
    DoubleQuant<256>::round_trip(ours);
    double our_error = 0, their_error = 0;
    for (std::size_t i = 0; i < n; ++i) {
      our_error += std::pow(static_cast<double>(ours[i] - absmax[i]), 2);
      their_error += std::pow(static_cast<double>(restored[i] - absmax[i]), 2);
    }
    CHECK(our_error <= 1.5 * their_error);
  }
}

TEST_CASE("double quantization: codes counted from a table are those of the map") {
  const double_quant::MapEncoder encoder;
  const auto check = [&](std::uint32_t bits) {
    const float x = std::bit_cast<float>(bits);
    if (encoder.encode(x) != double_quant::map.encode(x)) FAIL("at " << x);
  };
  for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 40009) check(static_cast<std::uint32_t>(bits));
  for (Code c = 0; c < 255; ++c) {  // around every border
    const float border = 0.5f * double_quant::map.decode(c) + 0.5f * double_quant::map.decode(c + 1);
    for (const std::uint32_t off : {0u, 1u, 2u, ~0u, ~1u}) check(std::bit_cast<std::uint32_t>(border) + off);
  }
}

TEST_CASE("double quantization finds the offset of restored scales far from their mean, whichever end of the map is used") {
  std::mt19937 random(5);
  const auto uniform = [&](float low, float high) { return std::uniform_real_distribution<float>(low, high)(random); };
  for (int turn = 0; turn < 400; ++turn) {
    const bool upwards = turn % 2 == 0;
    const float offset = uniform(0.02f, 0.08f);
    std::vector<float> s;
    for (int block = 0; block < 5; ++block) {
      const float block_scale =
          double_quant::on_grid(static_cast<double>(uniform(0.1f, 0.5f) * offset), 1, double_quant::block_scale_grid(2 * offset));
      for (unsigned i = 0; i < 16; ++i) {
        const unsigned code = i == 3 ? 0 : static_cast<unsigned>(random() % 60);  // from the outer end of the map
        s.push_back(double_quant::restore(static_cast<Code>(upwards ? 255 - code : code), block_scale, offset));
      }
    }
    s[7] = offset;
    std::vector<float> again = s;
    DoubleQuant<16>::round_trip(again);
    if (again != s) FAIL("turn " << turn << ", offset " << offset);
  }
}
