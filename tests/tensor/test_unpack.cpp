// The fast way between codes and bytes against the layouts' own definition, at every length and every place to start.

#include <anybit/tensor/unpack.hpp>
#include <anybit/testing/scheme_laws.hpp>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;

namespace {

/// A user's layout: 8 bits a code, whatever the format, in reverse order.
struct Backwards {
  static constexpr auto name = FixedString("backwards");
  static constexpr Index granule = 1;
  template <int Bits>
  static constexpr Index packed_bytes(Index n) {
    return n;
  }
  template <int Bits>
  static void pack(std::span<const StoredCode<Bits>> codes, std::byte* out) {
    for (std::size_t i = 0; i < codes.size(); ++i) out[codes.size() - 1 - i] = static_cast<std::byte>(codes[i]);
  }
  template <int Bits>
  static void unpack(const std::byte* in, Index n, Index first, std::span<StoredCode<Bits>> out) {
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = std::to_integer<StoredCode<Bits>>(in[static_cast<std::size_t>(n - 1 - first) - i]);
  }
};

/// Rows stand in blocks of their exact size, so that a sanitizer sees any touch beyond.
template <class L, int Bits>
void check_row(Index n, unsigned codes_below, const std::vector<Index>& starts) {
  using code = StoredCode<Bits>;
  std::mt19937 engine(static_cast<unsigned>(n * 31 + Bits));
  const auto size = static_cast<std::size_t>(n);
  const std::unique_ptr<code[]> codes(new code[size]);
  for (std::size_t i = 0; i < size; ++i) codes[i] = static_cast<code>(engine() % codes_below);
  for (std::size_t i = 0; i < size; i += 64)  // by parts, because that asks again from the start after every change
    testing::make_storable<L, Bits>(std::span(codes.get() + i, std::min<std::size_t>(64, size - i)));
  const auto bytes = static_cast<std::size_t>(L::template packed_bytes<Bits>(n));
  const std::unique_ptr<std::byte[]> defined(new std::byte[bytes]), fast(new std::byte[bytes]);
  L::template pack<Bits>(std::span<const code>(codes.get(), size), defined.get());
  pack_row<L, Bits>(std::span<const code>(codes.get(), size), fast.get());
  INFO(L::name.view() << ", " << Bits << " bits, " << n << " codes");
  REQUIRE(std::equal(defined.get(), defined.get() + bytes, fast.get()));

  for (const Index first : starts) {
    if (first > n) break;
    for (const Index count : {n - first, std::min<Index>(n - first, 37)}) {
      const std::unique_ptr<code[]> out(new code[static_cast<std::size_t>(count)]);
      unpack_row<L, Bits>(defined.get(), n, first, std::span(out.get(), static_cast<std::size_t>(count)));
      INFO("from " << first << ", " << count << " codes");
      REQUIRE(std::equal(out.get(), out.get() + count, codes.get() + first));
    }
  }
}

template <class L, int Bits>
void check(unsigned codes_below = 1u << Bits) {
  std::vector<Index> starts;
  for (Index first = 0; first <= 304; first += L::granule) starts.push_back(first);
  for (Index n = 0; n <= 300; ++n) check_row<L, Bits>(n, codes_below, starts);
  check_row<L, Bits>(11008, codes_below, {0, 40 * L::granule, 160 * L::granule, 320 * L::granule});
}

template <int Bits>
void check_bit_streams() {
  if constexpr (Bits > 0) {
    check<BitStream, Bits>();
    check_bit_streams<Bits - 1>();
  }
}

template <int Bits>
void check_two_of_four() {
  if constexpr (Bits > 0) {
    check<TwoOfFour<>, Bits>();
    check<TwoOfFour<1>, Bits>();
    check_two_of_four<Bits - 1>();
  }
}

}  // namespace

TEST_CASE("unpack: bit streams of every width, length and start are as the layout defines them") { check_bit_streams<16>(); }
TEST_CASE("unpack: base 3 at every length and start is as the layout defines it") { check<Base3, 2>(3); }
TEST_CASE("unpack: 2:4 at every width, length and start is as the layout defines it") { check_two_of_four<16>(); }
TEST_CASE("unpack: a user's own layout goes through its own functions") {
  check<Backwards, 4>();
  check<Backwards, 8>();
}
