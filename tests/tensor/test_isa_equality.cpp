// Codes and packed bytes are the same on every machine. The numbers below were made once; builds for the baseline, AVX2 and
// AVX-512 must all give them. A scheme whose bytes change on purpose changes its number here, and its files with it.

#include <anybit/tensor/requantize.hpp>

#include <cstdio>
#include <string>

#include "examples.hpp"
#include "support/catch.hpp"

using namespace anybit;

namespace {

/// FNV-1a.
struct Hash {
  std::uint64_t value = 0xCBF29CE484222325u;
  void add(std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) value = (value ^ std::to_integer<std::uint64_t>(b)) * 0x100000001B3u;
  }
};

/// Of everything a scheme writes for matrices of all shapes, and of the weights that it reads back.
template <AnyScheme S>
std::uint64_t fingerprint() {
  Hash hash;
  for (const Extents e : examples::shapes) {
    const auto t = pack(quantize_nearest<S>(examples::weights(e, 11).view()).value());
    for (const auto section : {t.bytes().codes(), t.bytes().scales(), t.bytes().zeros()}) hash.add(section);
    const Matrix w = dequantize(t);
    hash.add(std::as_bytes(std::span(w.data(), static_cast<std::size_t>(e.size()))));
  }
  return hash.value;
}

struct Expected {
  const char* scheme;
  std::uint64_t fingerprint;
};
const Expected expected_digests[] = {
    {"superfloat1/g128/f16/bits", 0x20C2F8C8E2D90964},
    {"superfloat2/g32/f16/bits", 0xBCAB9BE435CCB7D1},
    {"superfloat3/g7/f16/bits", 0x3803F17166FCA9E8},
    {"superfloat4/row/f32/bits", 0x2ACA3C930BAE58A1},
    {"superfloat5/g128/f16/bits", 0x03CA6926483829F9},
    {"superfloat6/g100/bf16/bits", 0x610DCAC3CD3C467B},
    {"superfloat7/tensor/f32/bits", 0x6D492B3DE87FC4F7},
    {"superfloat8/g128/f16/bits", 0xC62A297987E95CEA},
    {"superfloat9/g128/f16/bits", 0x2261B885E5AE7FD3},
    {"superfloat12/g33/f16/bits", 0xFC727C0A7D9AC3B1},
    {"superfloat16/row/f16/bits", 0x04AD08702E163B1F},
    {"superfloat_published8/tensor/noscale/bits", 0x030454C75BD97DD8},
    {"int1/g128/f16/bits", 0x20C2F8C8E2D90964},
    {"int2/g64/f16/bits", 0xF418BA16EE980DE2},
    {"int3/g128/f16/bits", 0xE993AA654D2F2E06},
    {"int4/g128/f16/bits", 0x55E86107B9C78F0B},
    {"int8/row/f32/bits", 0xC038113C1DFB6C89},
    {"int11/g128/f16/bits", 0x71C68A78EEC32809},
    {"uint1/g16/f16/bits", 0xB30A52662DA7779E},
    {"uint2/g32/e5m3/bits", 0x90FE69BC47211C15},
    {"uint3/g1/f16/bits", 0x0A177933AA41F0F7},
    {"uint4/g32/f16/bits", 0x01C6D9F0E6CE7A92},
    {"uint5/tensor/f16/bits", 0x57858A1CCD5335AC},
    {"uint8/row/f16/bits", 0x794C5BD04144EBA0},
    {"uint10/g128/f16/bits", 0x3E0C32262BE25354},
    {"nf4/g64/dq256/bits", 0x912E1EEFAE1DA796},
    {"fp4/g64/f32/bits", 0x2188693FE8290F22},
    {"e2m1/g32/e8m0/bits", 0xC7E24D5FBE2A3E9A},
    {"e4m3/g128/f16/bits", 0x3F2053790B097A5E},
    {"e5m2/g128/f16/bits", 0xCBF6A36BF3EA84FD},
    {"e3m2/g128/f16/bits", 0x649925D23BF1311B},
    {"ternary/tensor/f32/base3", 0xE43BD6041F590E7F},
    {"ternary/g128/f16/base3", 0x535E8033E6D11C51},
    {"ternary/g128/f16/bits", 0x41EB0BACF8A1FEE6},
};

}  // namespace

TEST_CASE("isa equality: codes, packed bytes and dequantized weights are those recorded") {
  std::size_t i = 0;
  for_each_type(examples::Schemes{}, [&]<class S>() {
    const std::uint64_t found = fingerprint<S>();
    char line[160];
    std::snprintf(line, sizeof line, "    {\"%s\", 0x%016llX},", std::string(S::name.view()).c_str(),
                  static_cast<unsigned long long>(found));
    INFO("the line for this build is" << line);
    REQUIRE(i < std::size(expected_digests));
    CHECK(expected_digests[i].scheme == std::string(S::name.view()));
    CHECK(expected_digests[i].fingerprint == found);
    ++i;
  });
  CHECK(i == std::size(expected_digests));
}
