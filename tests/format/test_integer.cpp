#include <anybit/format/integer.hpp>

#include <vector>

#include "support/catch.hpp"

using namespace anybit;

namespace {
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
}  // namespace

TEST_CASE("SInt is two's complement and saturates at both ends") {
  STATIC_REQUIRE(SInt<4>::encode(-1.0f) == 15);
  STATIC_REQUIRE(SInt<4>::to_int(8) == -8);
  CHECK(SInt<4>::encode(7.6f) == 7);
  CHECK(SInt<4>::encode(-8.6f) == 8);
  CHECK(SInt<4>::encode(-infinity) == 8);
  CHECK(SInt<4>::encode(nan_value) == 0);
  CHECK(SInt<8>::encode(2.5f) == 2);
  CHECK(SInt<8>::encode(-3.5f) == 0xFC);
  CHECK(SInt<16>::encode(-32768.0f) == 0x8000);
  CHECK(SInt<16>::decode(0x7FFF) == 32767);
}

TEST_CASE("SInt fits symmetrically: no weight is clipped and the lowest level stays unused") {
  const float w[] = {-0.5f, 0.25f, 1.0f, -2.0f};
  const Affine a = SInt<8>::fit(w);
  CHECK(a.scale == 2.0f / 127);
  CHECK(quantize_value<SInt<8>>(-2, a) == 0x81);
  CHECK(quantize_value<SInt<8>>(2, a) == 0x7F);
  CHECK(SInt<2>::fit(w).scale == 2.0f);
}

TEST_CASE("SInt of one bit is the sign times the mean magnitude") {
  const float w[] = {1, -3};
  CHECK(SInt<1>::fit(w) == Affine{2, 0});
  CHECK(SInt<1>::decode(SInt<1>::encode(5)) == 1);
  CHECK(SInt<1>::decode(SInt<1>::encode(-5)) == -1);
  CHECK(SInt<1>::encode(0) == 0);
}

TEST_CASE("UInt fits minimum to maximum around 0") {
  const float mixed[] = {-1, 2};
  CHECK(UInt<2>::fit(mixed) == Affine{1, 1});
  const float positive[] = {0.5f, 3};
  CHECK(UInt<2>::fit(positive) == Affine{1, 0});
  const float negative[] = {-3, -0.5f};
  CHECK(UInt<2>::fit(negative) == Affine{1, 3});
  const float zeros[] = {0, -0.0f};
  CHECK(UInt<4>::fit(zeros) == Affine{0, 0});
  const float half[] = {-2.5f, 12.5f};  // zero point exactly 2.5: even
  CHECK(UInt<4>::fit(half) == Affine{1, 2});
  const float one_bit[] = {-1, 1};
  CHECK(UInt<1>::fit(one_bit) == Affine{2, 0});
}

TEST_CASE("UInt rounds before it adds the zero point") {
  CHECK(UInt<4>::encode_around(0.5f, 3) == 3);
  CHECK(UInt<4>::encode_around(1.5f, 3) == 5);
  CHECK(UInt<4>::encode_around(-0.5f, 3) == 3);
  CHECK(UInt<4>::encode_around(-infinity, 3) == 0);
  CHECK(UInt<4>::encode_around(infinity, 3) == 15);
  CHECK(UInt<4>::encode_around(nan_value, 3) == 3);
  CHECK(UInt<4>::encode_around(1e30f, 3) == 15);
}

TEST_CASE("UInt represents the ends of its group to within half a step at every width") {
  std::vector<float> w{-0.37f, 0.01f, 0.9f, 0.2f, -0.11f};
  const auto check = [&]<int Bits>() {
    const Affine a = UInt<Bits>::fit(w);
    for (const float v : w) {
      INFO(Bits << " bits, " << v);
      CHECK(std::abs(dequantize_value<UInt<Bits>>(quantize_value<UInt<Bits>>(v, a), a) - v) <= a.scale * 1.0001f);
    }
  };
  check.operator()<1>();
  check.operator()<2>();
  check.operator()<5>();
  check.operator()<8>();
  check.operator()<12>();
  check.operator()<16>();
}
