#include <anybit/format/codebook.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/testing/format_laws.hpp>

#include <vector>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

namespace mine {

/// AF4 (arXiv 2306.06965, block size 64) in the reverse order that it is published in.
struct Af4 {
  static constexpr int bits = 4;
  static constexpr std::string_view name = "af4";
  static constexpr Codebook<16> book{{1, 0.72424863f, 0.55496234f, 0.42563882f, 0.31675666f, 0.21961274f, 0.12934483f,
                                      0.04273164f, 0, -0.04934812f, -0.14982478f, -0.25607552f, -0.3736951f, -0.51243739f,
                                      -0.69441008f, -1}};
  static constexpr Code encode(float x) { return book.encode(x); }
  static constexpr float decode(Code c) { return book.decode(c); }
  static constexpr Affine fit(std::span<const float> w) { return fit_abs_max<Af4>(w); }
};

/// Five levels, two of them equal, in three bits.
struct Five {
  static constexpr int bits = 3;
  static constexpr int code_count = 5;
  static constexpr std::string_view name = "five";
  static constexpr Codebook<5> book{{2, -1, 0, 2, 0.5f}};
  static constexpr Code encode(float x) { return book.encode(x); }
  static constexpr float decode(Code c) { return book.decode(c); }
  static constexpr Affine fit(std::span<const float> w) { return fit_abs_max<Five>(w); }
};

}  // namespace mine

TEST_CASE("a codebook takes its levels in any order") {
  CHECK(testing::check_format_laws<mine::Af4>() == "");
  STATIC_REQUIRE(mine::Af4::encode(-0.9f) == 15);
  STATIC_REQUIRE(mine::Af4::encode(0.01f) == 8);
  CHECK(max_level<mine::Af4>() == 1);
}

TEST_CASE("a codebook with fewer levels than codes, and equal levels") {
  CHECK(testing::check_format_laws<mine::Five>() == "");
  CHECK(mine::Five::encode(9) == 0);  // of equal levels the lowest code
  CHECK(mine::Five::decode(3) == 2);
  CHECK(mine::Five::decode(7) == 0.5f);   // beyond the last: the last
  CHECK(mine::Five::encode(0.25f) == 2);  // half way: the lower level
  STATIC_REQUIRE(Codebook<1>{{3.0f}}.encode(-7) == 0);
}

TEST_CASE("NF4: a worked example, ties and bytes of bitsandbytes") {
  const float w[] = {0.1f, -0.4f, 0.25f, 0.8f};
  const Affine a = Nf4::fit(w);
  const Code expected[] = {9, 2, 11, 15};
  const float restored[] = {0.128744f, -0.420058f, 0.270332f, 0.8f};
  for (int i = 0; i < 4; ++i) {
    CHECK(quantize_value<Nf4>(w[i], a) == expected[i]);
    CHECK(dequantize_value<Nf4>(expected[i], a) == Approx(restored[i]).epsilon(1e-5));
  }
  STATIC_REQUIRE(Nf4::encode(0.8614784181118011f) == 14);  // a threshold: down
  STATIC_REQUIRE(Nf4::encode(0.8614785f) == 15);
  STATIC_REQUIRE(Nf4::encode(0) == 7);
  STATIC_REQUIRE(Nf4::encode(std::numeric_limits<float>::quiet_NaN()) == 7);
}

TEST_CASE("FP4 of bitsandbytes: the order of its codes and its thresholds") {
  constexpr float twelfths[] = {0, 0.0625f, 8, 12, 4, 6, 2, 3};
  for (int c = 0; c < 8; ++c) {
    CHECK(Fp4::decode(static_cast<Code>(c)) == Approx(twelfths[c] / 12));
    CHECK(Fp4::decode(static_cast<Code>(c | 8)) == Approx(-twelfths[c] / 12));
  }
  CHECK(Fp4::encode(0.0026f) == 0);
  CHECK(Fp4::encode(0.0027f) == 1);
  CHECK(Fp4::encode(-0.9f) == (3 | 8));
  CHECK(Fp4::encode(-0.0f) == 0);
  constexpr float threshold = 0.2916666865348816f;  // between 3/12 and 4/12
  CHECK(Fp4::encode(threshold) == 7);
  CHECK(Fp4::encode(std::nextafter(threshold, 1.0f)) == 4);
  CHECK(Fp4::encode(-threshold) == (4 | 8));
}

namespace {

/// Codes and values of one case against bitsandbytes; blocks run over the flattened matrix there.
template <Format F>
void check_case(const io::SafetensorsFile& file, const std::string& input, const std::string& name, std::size_t block) {
  INFO(name);
  const auto x = file.read<float>("x." + input).value();
  const auto packed = file.read<std::uint8_t>(name + ".packed").value();
  const auto absmax = file.read<float>(name + ".absmax").value();
  const auto deq = file.find(name + ".deq") ? file.read<float>(name + ".deq").value() : std::vector<float>{};
  int wrong_scales = 0, wrong_codes = 0, wrong_values = 0;
  for (std::size_t first = 0; first < x.size(); first += block) {
    const std::size_t n = std::min(block, x.size() - first);
    const std::span<const float> w(x.data() + first, n);
    const Affine a = F::fit(w);
    const float theirs = absmax[first / block];
    const bool below_their_floor = theirs > 0 && theirs < 1e-38f;  // they make zeros of such a block
    wrong_scales += a.scale != theirs && !(a.scale == 0 && theirs <= 1e-38f);
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t at = first + i;
      const auto code = static_cast<Code>(at % 2 == 0 ? packed[at / 2] >> 4 : packed[at / 2] & 15);
      // Full blocks multiply by the reciprocal, as here; the short last block divides.
      const Code ours = n == block ? quantize_value<F>(w[i], a) : F::encode(a.scale != 0 ? w[i] / a.scale : 0);
      wrong_codes += F::decode(ours) != F::decode(code) && !below_their_floor;
      if (!deq.empty()) wrong_values += dequantize_value<F>(code, a) != deq[at];
    }
  }
  CHECK(wrong_scales == 0);
  CHECK(wrong_codes == 0);
  CHECK(wrong_values == 0);
}

}  // namespace

TEST_CASE("NF4 and FP4 agree with bitsandbytes code for code") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/nf4.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  const auto nf4 = file->read<float>("code.nf4").value(), fp4 = file->read<float>("code.fp4").value();
  for (std::size_t c = 0; c < 16; ++c) {
    CHECK(Nf4::decode(static_cast<Code>(c)) == nf4[c]);
    CHECK(Fp4::decode(static_cast<Code>(c)) == fp4[c]);
  }
  for (const std::string input : {"big", "odd", "edge", "ties_nf4", "ties_fp4"})
    for (const std::size_t block : {64u, 128u}) {
      const std::string suffix = ".bs" + std::to_string(block);
      if (input != "ties_fp4") check_case<Nf4>(*file, input, input + ".nf4" + suffix, block);
      if (input != "ties_nf4") check_case<Fp4>(*file, input, input + ".fp4" + suffix, block);
    }
}
