#include <anybit/format/superfloat.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/testing/format_laws.hpp>

#include <limits>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

namespace {

/// How often two lists differ; NaN never equals anything.
template <class A, class B, class F>
int count_unequal(const A& a, const B& b, F&& expected_of) {
  REQUIRE(a.size() == b.size());
  int n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) n += !(expected_of(a[i]) == b[i]);
  return n;
}

template <int Bits>
void check_vectors(const io::SafetensorsFile& file) {
  INFO("Superfloat of " << Bits << " bits");
  using F = Superfloat<Bits>;
  using P = SuperfloatPublished<Bits>;
  const auto name = [](const char* what) { return "sf" + std::to_string(Bits) + "." + what; };
  const auto x = file.read<float>(name("x")).value();
  const auto nearest_code = file.read<std::uint16_t>(name("nearest_code")).value();
  const auto nearest_value = file.read<float>(name("nearest_value")).value();
  CHECK(count_unequal(x, nearest_code, [](float v) { return F::encode(v); }) == 0);
  CHECK(count_unequal(nearest_code, nearest_value, [](Code c) { return F::decode(c); }) == 0);

  const auto published = file.read<std::uint16_t>(name("ref_code")).value();
  const auto truncated = file.read<std::uint16_t>(name("trunc_code")).value();
  CHECK(count_unequal(x, published, [](float v) { return P::encode(v); }) == 0);
  if (Bits <= 13) CHECK(truncated == published);
  CHECK(count_unequal(truncated, file.read<float>(name("trunc_value")).value(), [](Code c) { return P::decode(c); }) == 0);
  CHECK(count_unequal(published, file.read<float>(name("ref_decode")).value(),
                      [](Code c) { return P::decode_as_published(c); }) == 0);
  if constexpr (Bits < 16) check_vectors<Bits + 1>(file);
}

}  // namespace

TEST_CASE("Superfloat: worked examples") {
  STATIC_REQUIRE(Superfloat<4>::encode(0.3f) == 0x2);
  STATIC_REQUIRE(Superfloat<4>::encode(-0.3f) == 0xA);
  STATIC_REQUIRE(Superfloat<8>::encode(0.3f) == 0x26);
  STATIC_REQUIRE(Superfloat<8>::encode(-0.05f) == 0x86);
  STATIC_REQUIRE(Superfloat<8>::encode(-1.5f) == 0xFF);
  STATIC_REQUIRE(Superfloat<8>::decode(0xFF) == -0.9921875f);
  STATIC_REQUIRE(Superfloat<11>::decode(Superfloat<11>::encode(0.3f)) == 0.2998046875f);
  STATIC_REQUIRE(Superfloat<16>::encode(0.3f) == 0x2666);
}

TEST_CASE("Superfloat: ties go to the even magnitude and zero has one code") {
  CHECK(Superfloat<4>::encode(0.5f / 8) == 0);  // 0.5 -> 0
  CHECK(Superfloat<4>::encode(1.5f / 8) == 2);  // 1.5 -> 2
  CHECK(Superfloat<4>::encode(-2.5f / 8) == (2 | 8));
  CHECK(Superfloat<4>::encode(6.5f / 8) == 6);
  CHECK(Superfloat<4>::encode(7.5f / 8) == 7);  // would be 8: saturates
  CHECK(Superfloat<4>::encode(-0.5f / 8) == 0);
  CHECK(Superfloat<4>::encode(-0.0f) == 0);
  CHECK(Superfloat<4>::decode(8) == 0);
  CHECK(Superfloat<4>::encode(std::numeric_limits<float>::infinity()) == 7);
  CHECK(Superfloat<4>::encode(-std::numeric_limits<float>::infinity()) == 15);
  CHECK(Superfloat<4>::encode(std::numeric_limits<float>::quiet_NaN()) == 0);
  CHECK(Superfloat<16>::encode(std::numeric_limits<float>::max()) == 0x7FFF);
}

TEST_CASE("Superfloat of one bit is the sign times the mean magnitude") {
  const float w[] = {3, -1, 0, -4};
  CHECK(Superfloat<1>::fit(w) == Affine{2, 0});
  CHECK(Superfloat<1>::decode(Superfloat<1>::encode(0.01f)) == 1);
  CHECK(Superfloat<1>::decode(Superfloat<1>::encode(-0.01f)) == -1);
}

TEST_CASE("Superfloat: the fit puts the largest weight on the largest level") {
  const float w[] = {0.1f, -0.7f, 0.35f};
  const Affine a = Superfloat<4>::fit(w);
  CHECK(a.scale == 0.7f / 0.875f);
  CHECK(quantize_value<Superfloat<4>>(-0.7f, a) == 0xF);
  CHECK(dequantize_value<Superfloat<4>>(0xF, a) == Approx(-0.7f));
}

TEST_CASE("Superfloat as published truncates, keeps a negative zero and decodes with the sign inverted") {
  using P = SuperfloatPublished<8>;
  CHECK(P::encode(0.99f / 128) == 0);
  CHECK(P::encode(-0.99f / 128) == 0x80);
  CHECK(P::encode(-0.0f) == 0);
  CHECK(P::decode(0x80) == 0);
  CHECK(P::encode(0.3f) == 38);
  CHECK(P::decode(38) == 0.296875f);
  CHECK(P::decode_as_published(38) == -0.296875f);
  CHECK(P::decode_as_published(P::encode(-1.5f)) == 0.9921875f);
}

TEST_CASE("Superfloat as published breaks the laws that its rounding breaks, and no other") {
  const auto f = testing::facts_of<SuperfloatPublished<8>>();
  CHECK(testing::check_nearest(f) != "");
  CHECK(testing::check_codes(f) == "");
  CHECK(testing::check_levels_are_fixed(f) == "");
  CHECK(testing::check_monotone(f) == "");
  CHECK(testing::check_saturation(f) == "");
  CHECK(testing::check_nan_and_negative_zero(f) == "");
  CHECK(testing::check_fit(f) == "");
  // From 14 bits on its two roundings lose one of some codes that are exact.
  CHECK(testing::check_levels_are_fixed(testing::facts_of<SuperfloatPublished<13>>()) == "");
  CHECK(testing::check_levels_are_fixed(testing::facts_of<SuperfloatPublished<14>>()) != "");
  CHECK(SuperfloatPublished<14>::encode(2051.0f / 8192) == 2050);
  CHECK(SuperfloatPublished<16>::encode(515.0f / 32768) == 514);
}

TEST_CASE("Superfloat agrees with its reference at every width") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  check_vectors<4>(*file);
}
