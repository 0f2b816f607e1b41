#include <anybit/scheme/layouts.hpp>
#include <anybit/testing/scheme_laws.hpp>

#include "support/catch.hpp"

using namespace anybit;
using anybit::testing::check_layout_laws;

namespace {

template <int Bits>
void check_bit_streams() {
  if constexpr (Bits > 0) {
    CHECK(check_layout_laws<BitStream, Bits>() == "");
    check_bit_streams<Bits - 1>();
  }
}

}  // namespace

TEST_CASE("BitStream keeps the laws at every width") { check_bit_streams<16>(); }
TEST_CASE("Base3 keeps the laws") { CHECK(check_layout_laws<Base3, 2>(3) == ""); }
