#include <anybit/format/codebook.hpp>
#include <anybit/format/ternary.hpp>
#include <anybit/scheme/layouts.hpp>
#include <anybit/scheme/two_of_four.hpp>
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

template <int Bits>
void check_two_of_four() {
  if constexpr (Bits > 0) {
    CHECK(check_layout_laws<TwoOfFour<>, Bits>() == "");
    CHECK(check_layout_laws<TwoOfFour<(1 << Bits) - 1>, Bits>() == "");
    check_two_of_four<Bits - 1>();
  }
}

}  // namespace

TEST_CASE("BitStream keeps the laws at every width") { check_bit_streams<16>(); }
TEST_CASE("Base3 keeps the laws") { CHECK(check_layout_laws<Base3, 2>(3) == ""); }

TEST_CASE("TwoOfFour keeps the laws for every width and code of zero") {
  check_two_of_four<16>();
  CHECK(check_layout_laws<TwoOfFourFor<Nf4>, 4>() == "");
  CHECK(check_layout_laws<TwoOfFourFor<Ternary>, 2>(3) == "");
}

TEST_CASE("TwoOfFour takes 2 codes and 3 bits for four columns, and says what it cannot hold") {
  using L = TwoOfFour<>;
  CHECK(L::packed_bytes<4>(4096) == 4096 * 11 / 32);
  CHECK(L::packed_bytes<8>(4096) == 4096 * 19 / 32);
  CHECK(L::packed_bytes<4>(0) == 0);
  CHECK(L::packed_bytes<4>(1) == 2);
  CHECK(L::packed_bytes<4>(5) == 3);
  const std::vector<std::uint8_t> two{0, 3, 0, 9, 1, 2}, three{0, 3, 0, 9, 1, 2, 0, 1}, at_zero{7, 3, 7, 9};
  CHECK(L::misfit<4>(two) == -1);
  CHECK(L::misfit<4>(three) == 7);
  CHECK(L::misfit<4>(at_zero) == 2);
  CHECK(TwoOfFourFor<Nf4>::misfit<4>(at_zero) == -1);
  CHECK(std::string_view(TwoOfFourFor<Nf4>::name) == "2of4z7");
  // The worked example: codes 3 and 9 in columns 1 and 3, which is pattern 4; then 1 and 2 in columns 0 and 1, pattern 0.
  std::byte bytes[3];
  L::pack<4>(two, bytes);
  const unsigned fields = 3 | 9 << 4 | 4 << 8 | (1 | 2 << 4 | 0 << 8) << 11;
  for (unsigned i = 0; i < 3; ++i) CHECK(std::to_integer<unsigned>(bytes[i]) == (fields >> (8 * i) & 0xFF));
}
