// Packing and unpacking at every width and length against the definition: code i is the number in bits [i b, (i + 1) b).
// Heap blocks have the exact size, so that under a sanitizer a touched byte too many is a failure.

#include <anybit/simd/bit_stream.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;

namespace {

struct Bytes {
  explicit Bytes(Index n, std::byte fill = {}) : size(n), data(new std::byte[static_cast<std::size_t>(n)]) {
    std::fill_n(data.get(), n, fill);
  }
  Index size;
  std::unique_ptr<std::byte[]> data;
};

/// Bit by bit, as the definition reads.
template <class C>
Bytes defined_packing(const std::vector<C>& codes, int bits) {
  Bytes out(ceil_div(static_cast<Index>(codes.size()) * bits, 8));
  for (std::size_t i = 0; i < codes.size(); ++i)
    for (int b = 0; b < bits; ++b) {
      const std::size_t at = i * static_cast<std::size_t>(bits) + static_cast<std::size_t>(b);
      if (codes[i] >> b & 1) out.data[at / 8] |= static_cast<std::byte>(1 << (at % 8));
    }
  return out;
}

template <class C>
std::vector<C> random_codes(Index n, unsigned count, unsigned seed) {
  std::mt19937 engine(seed);
  std::vector<C> codes(static_cast<std::size_t>(n));
  for (auto& c : codes) c = static_cast<C>(engine() % count);
  return codes;
}

template <class C>
std::unique_ptr<C[]> exact_copy(const std::vector<C>& v) {
  auto p = std::make_unique<C[]>(v.size());
  std::copy(v.begin(), v.end(), p.get());
  return p;
}

bool same(const Bytes& a, const Bytes& b) {
  return a.size == b.size && std::equal(a.data.get(), a.data.get() + a.size, b.data.get());
}

const std::array<Index, 4> long_lengths{577, 1024, 4096 + 3, 11008};
std::vector<Index> lengths() {
  std::vector<Index> all;
  for (Index n = 0; n <= 300; ++n) all.push_back(n);
  all.insert(all.end(), long_lengths.begin(), long_lengths.end());
  return all;
}

template <int Bits, class Unpack>
void check_unpack(const char* what, Unpack unpack) {
  for (const Index n : lengths()) {
    const auto codes = random_codes<std::uint8_t>(n, 1u << Bits, static_cast<unsigned>(n) + 1);
    const Bytes packed = defined_packing(codes, Bits);
    const auto out = std::make_unique<std::uint8_t[]>(codes.size());
    unpack(packed.data.get(), out.get(), n);
    INFO(what << ": " << Bits << " bits, " << n << " codes");
    REQUIRE(std::equal(codes.begin(), codes.end(), out.get()));
  }
}

template <int Bits, class Pack>
void check_pack(const char* what, Pack pack) {
  for (const Index n : lengths()) {
    const auto codes = random_codes<std::uint8_t>(n, 1u << Bits, static_cast<unsigned>(n) + 2);
    const Bytes expected = defined_packing(codes, Bits);
    Bytes out(expected.size, std::byte{0xA5});
    pack(exact_copy(codes).get(), out.data.get(), n);
    INFO(what << ": " << Bits << " bits, " << n << " codes");
    REQUIRE(same(out, expected));
  }
}

template <int Bits>
void check_width() {
  check_unpack<Bits>("chosen", simd::unpack_bits<Bits>);
  check_pack<Bits>("chosen", simd::pack_bits<Bits>);
  if constexpr (Bits < 8) {
    check_unpack<Bits>("swar", simd::unpack_bits_swar<Bits>);
    check_unpack<Bits>("generic", simd::unpack_bits_generic<Bits>);
    check_pack<Bits>("swar", simd::pack_bits_swar<Bits>);
    check_pack<Bits>("generic", simd::pack_bits_generic<Bits>);
  }
}

template <int Bits>
void check_wide() {
  for (const Index n : lengths()) {
    const auto codes = random_codes<std::uint16_t>(n, 1u << Bits, static_cast<unsigned>(n) + 3);
    const Bytes packed = defined_packing(codes, Bits);
    const auto out = std::make_unique<std::uint16_t[]>(codes.size());
    simd::unpack_wide_bits<Bits>(packed.data.get(), out.get(), n);
    INFO(Bits << " bits, " << n << " codes");
    REQUIRE(std::equal(codes.begin(), codes.end(), out.get()));
  }
}

}  // namespace

TEST_CASE("bit stream: every width up to 8 packs and unpacks as defined, at any length") {
  check_width<1>();
  check_width<2>();
  check_width<3>();
  check_width<4>();
  check_width<5>();
  check_width<6>();
  check_width<7>();
  check_width<8>();
}

TEST_CASE("bit stream: widths 9 to 16 unpack as defined, at any length") {
  check_wide<9>();
  check_wide<10>();
  check_wide<11>();
  check_wide<12>();
  check_wide<13>();
  check_wide<14>();
  check_wide<15>();
  check_wide<16>();
}

TEST_CASE("bit stream: no codes need no memory") {
  simd::unpack_bits<8>(nullptr, nullptr, 0);
  simd::unpack_bits<3>(nullptr, nullptr, 0);
  simd::unpack_wide_bits<16>(nullptr, nullptr, 0);
  simd::unpack_wide_bits<11>(nullptr, nullptr, 0);
  simd::pack_bits<8>(nullptr, nullptr, 0);
  simd::pack_bits<5>(nullptr, nullptr, 0);
  simd::unpack_base3(nullptr, nullptr, 0);
  simd::pack_base3(nullptr, nullptr, 0);
  SUCCEED();
}

TEST_CASE("bit stream: a word of eight codes spreads to bytes and gathers back") {
  const std::uint64_t codes = 0x0102030405060700u;
  CHECK(simd::gather8<3>(codes) == 0b001'010'011'100'101'110'111'000u);
  CHECK(simd::spread8<3>(simd::gather8<3>(codes)) == codes);
  CHECK(simd::spread8<3>(simd::gather8<3>(codes) | 0xFFull << 56) == codes);  // bits beyond the codes do not matter
}

TEST_CASE("base 3: every byte, also an impossible one, unpacks to its five lowest digits") {
  for (const Index n : {Index{5 * 256}, Index{5 * 256 - 3}}) {
    Bytes all(256);
    for (int b = 0; b < 256; ++b) all.data[static_cast<std::size_t>(b)] = static_cast<std::byte>(b);
    const auto out = std::make_unique<std::uint8_t[]>(static_cast<std::size_t>(n));
    simd::unpack_base3(all.data.get(), out.get(), n);
    for (Index i = 0; i < n; ++i) {
      int digits = static_cast<int>(i / 5);
      for (Index k = i % 5; k < 4; ++k) digits /= 3;
      INFO("byte " << i / 5 << ", digit " << i % 5);
      REQUIRE(out[static_cast<std::size_t>(i)] == digits % 3);
    }
  }
}

TEST_CASE("base 3: packs and unpacks at any length") {
  for (const Index n : lengths()) {
    const auto codes = random_codes<std::uint8_t>(n, 3, static_cast<unsigned>(n) + 4);
    Bytes expected(ceil_div(n, 5)), packed(expected.size, std::byte{0xA5});
    for (Index b = 0; b < expected.size; ++b) {
      int value = 0;
      for (Index k = 0; k < 5; ++k) value = value * 3 + (5 * b + k < n ? codes[static_cast<std::size_t>(5 * b + k)] : 0);
      expected.data[static_cast<std::size_t>(b)] = static_cast<std::byte>(value);
    }
    simd::pack_base3(exact_copy(codes).get(), packed.data.get(), n);
    INFO(n << " codes");
    REQUIRE(same(packed, expected));
    const auto out = std::make_unique<std::uint8_t[]>(codes.size());
    simd::unpack_base3(packed.data.get(), out.get(), n);
    REQUIRE(std::equal(codes.begin(), codes.end(), out.get()));
  }
}
