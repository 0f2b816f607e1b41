#include <anybit/format/formats.hpp>
#include <anybit/testing/format_laws.hpp>

#include <utility>

#include "support/catch.hpp"

using namespace anybit;
using anybit::testing::check_format_laws;

namespace {

template <template <int> class F, int First, int... I>
void check_widths(std::integer_sequence<int, I...>) {
  (..., [] {
    INFO(F<First + I>::bits << " bits");
    CHECK(check_format_laws<F<First + I>>() == "");
  }());
}

template <int E, int M>
using Small = Minifloat<E, M>;

}  // namespace

TEST_CASE("every width of Superfloat keeps the laws") { check_widths<Superfloat, 1>(std::make_integer_sequence<int, 16>{}); }
TEST_CASE("every width of SInt keeps the laws") { check_widths<SInt, 1>(std::make_integer_sequence<int, 16>{}); }
TEST_CASE("every width of UInt keeps the laws") { check_widths<UInt, 1>(std::make_integer_sequence<int, 16>{}); }

TEST_CASE("codebooks and ternary keep the laws") {
  CHECK(check_format_laws<Nf4>() == "");
  CHECK(check_format_laws<Fp4>() == "");
  CHECK(check_format_laws<Ternary>() == "");
}

TEST_CASE("minifloats of every kind keep the laws") {
  CHECK(check_format_laws<Small<2, 1>>() == "");
  CHECK(check_format_laws<Small<3, 0>>() == "");
  CHECK(check_format_laws<Small<1, 2>>() == "");
  CHECK(check_format_laws<Small<2, 3>>() == "");
  CHECK(check_format_laws<Small<3, 2>>() == "");
  CHECK(check_format_laws<Small<4, 3>>() == "");
  CHECK(check_format_laws<Small<5, 2>>() == "");
  CHECK(check_format_laws<Small<3, 4>>() == "");
  CHECK(check_format_laws<Small<5, 10>>() == "");
  CHECK(check_format_laws<Small<8, 7>>() == "");
  CHECK(check_format_laws<Minifloat<4, 3, MinifloatSpecials::ieee>>() == "");
  CHECK(check_format_laws<Minifloat<4, 3, MinifloatSpecials::none>>() == "");
}

TEST_CASE("names are unique") {
  CHECK(Superfloat<5>::name.view() == "superfloat5");
  CHECK(SuperfloatPublished<16>::name.view() == "superfloat_published16");
  CHECK(SInt<8>::name.view() == "int8");
  CHECK(UInt<10>::name.view() == "uint10");
  CHECK(Minifloat<4, 3>::name.view() == "e4m3");
  CHECK(Minifloat<4, 3, MinifloatSpecials::ieee>::name.view() == "e4m3_ieee");
  CHECK(Minifloat<5, 2, MinifloatSpecials::none>::name.view() == "e5m2_finite");
}

TEST_CASE("rounding halves to even at any magnitude, at compile time as at run time") {
  constexpr float whole[] = {0,           -2,         -1.5f,      -0.5f,      0.5f,       1.5f,  2.5f,
                             0.49999997f, 4194303.5f, 4194304.5f, 8388607.5f, 8388609.0f, 1e30f, -4194303.5f};
  constexpr float expected[] = {0, -2, -2, 0, 0, 2, 2, 0, 4194304, 4194304, 8388608, 8388609, 1e30f, -4194304};
  constexpr auto at_compile_time = [](const float(&x)[14]) {
    std::array<float, 14> r{};
    for (std::size_t i = 0; i < 14; ++i) r[i] = round_half_even(x[i]);
    return r;
  };
  constexpr std::array<float, 14> constants = at_compile_time(whole);
  for (std::size_t i = 0; i < 14; ++i) {
    volatile float x = whole[i];  // keeps the compiler from folding
    CHECK(constants[i] == expected[i]);
    CHECK(round_half_even(x) == expected[i]);
  }
}
