// Which way each format takes, printed as a table, so that nobody has to guess.

#include <anybit/tensor/dequantize.hpp>
#include <anybit/tensor/quantize.hpp>

#include <cstdio>

#include <anybit/format/formats.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

template <Format F>
void line() {
  const std::string_view name = F::name, encodes = encoders::encode_plan<F>().name, decodes = decoding::decode_plan<Scheme<F>>();
  std::printf("%-12.*s %-50.*s %.*s\n", static_cast<int>(name.size()), name.data(), static_cast<int>(encodes.size()),
              encodes.data(), static_cast<int>(decodes.size()), decodes.data());
  INFO(name);
  // Every format that ships is vectorized up to 8 bits, with every instruction set.
  CHECK((encodes == "calls encode() for each weight") == (F::bits > 8));
  CHECK((decodes == "calls decode() for each code") == (F::bits > 8));
  if constexpr (UniformFormat<F> && F::bits <= 8) CHECK(encodes.substr(0, 6) == "rounds");
  if constexpr (!UniformFormat<F> && decoding::float_shift_v<F>.fits && F::bits > 4) CHECK(encodes == "rounds mantissas");
}
template <Format... Fs>
void lines() {
  (line<Fs>(), ...);
}

}  // namespace

TEST_CASE("plans: one for encoding and one for decoding each format") {
  std::printf("%-12s %-50s %s\n", "format", "encoding", "decoding");
  lines<SInt<2>, SInt<4>, SInt<8>, SInt<12>, UInt<3>, UInt<8>, Superfloat<5>, Superfloat<8>, Ternary, Nf4, Fp4, LloydMax<3>,
        LloydMax<4>, LloydMax<5>, LloydMax<6>, Minifloat<2, 1>, Minifloat<2, 3>, Minifloat<3, 2>, Minifloat<4, 3>,
        Minifloat<5, 2>, Minifloat<5, 10>>();
}
