// The AVX-512 VBMI bodies on every machine, emulated where need be, against the portable ones.

#include "support/simde_avx512.hpp"

#include <anybit/simd/bit_swar.hpp>
#if ANYBIT_TEST_HAS_AVX512
#include <anybit/simd/x86/bit_unpack_vbmi.hpp>
#endif

#include <algorithm>
#include <memory>
#include <random>

#include "support/catch.hpp"

using namespace anybit;

#if ANYBIT_TEST_HAS_AVX512

namespace {

template <int Bits>
void check_width() {
  std::mt19937 engine(Bits);
  for (Index n = 0; n <= 300; ++n) {
    const auto bytes = static_cast<std::size_t>(ceil_div(n * Bits, 8)), codes = static_cast<std::size_t>(n);
    const std::unique_ptr<std::byte[]> in(new std::byte[bytes]);
    for (std::size_t i = 0; i < bytes; ++i) in[i] = static_cast<std::byte>(engine() & 0xFF);
    const std::unique_ptr<std::uint8_t[]> expected(new std::uint8_t[codes]), found(new std::uint8_t[codes]);
    simd::unpack_bits_swar<Bits>(in.get(), expected.get(), n);
    simd::x86::unpack_bits_vbmi<Bits>(in.get(), found.get(), n);
    INFO(Bits << " bits, " << n << " codes");
    REQUIRE(std::equal(expected.get(), expected.get() + n, found.get()));
  }
}

}  // namespace

TEST_CASE("vbmi: every width unpacks like the portable body") {
  check_width<1>();
  check_width<2>();
  check_width<3>();
  check_width<4>();
  check_width<5>();
  check_width<6>();
  check_width<7>();
}

TEST_CASE("vbmi: base 3 unpacks every byte at every length") {
  for (Index n = 0; n <= 1300; n += n < 200 ? 1 : 13) {
    const auto bytes = static_cast<std::size_t>(ceil_div(n, 5)), codes = static_cast<std::size_t>(n);
    const std::unique_ptr<std::byte[]> in(new std::byte[bytes]);
    for (std::size_t i = 0; i < bytes; ++i) in[i] = static_cast<std::byte>((7 * i + static_cast<std::size_t>(n)) & 0xFF);
    const std::unique_ptr<std::uint8_t[]> found(new std::uint8_t[codes]);
    simd::x86::unpack_base3_vbmi(in.get(), found.get(), n);
    for (std::size_t i = 0; i < codes; ++i) {
      unsigned digits = std::to_integer<unsigned>(in[i / 5]);
      for (std::size_t k = i % 5; k < 4; ++k) digits /= 3;
      INFO("of " << n << " codes number " << i);
      REQUIRE(found[i] == digits % 3);
    }
  }
}

#else

TEST_CASE("vbmi: needs AVX-512 or SIMDe") { WARN("skipped: simde/x86/avx512.h is not present (Debian: libsimde-dev)"); }

#endif
