#include <anybit/simd/xsimd_compat.hpp>

#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;
namespace sv = anybit::simd;

namespace {
constexpr auto lanes = static_cast<std::size_t>(sv::width);

template <class V>
auto values(V v) {
  std::vector<typename V::value_type> out(lanes);
  sv::store(out.data(), v);
  return out;
}
std::vector<float> ramp(float from, float step) {
  std::vector<float> v(lanes);
  for (std::size_t i = 0; i < lanes; ++i) v[i] = from + step * static_cast<float>(i);
  return v;
}
}  // namespace

TEST_CASE("simd: arithmetic works lane by lane") {
  const auto a = ramp(-3.25f, 1.5f), b = ramp(2, -0.75f), c = ramp(0.5f, 0.125f);
  const sv::f32 va = sv::load(a.data()), vb = sv::load(b.data()), vc = sv::load(c.data());
  const auto sum = values(va + vb), product = values(va * vb), fused = values(sv::fma(va, vb, vc)),
             largest = values(sv::max(va, vb)), least = values(sv::min(va, vb)), magnitude = values(sv::abs(va)),
             chosen = values(sv::select_greater(va, vb, vc, va));
  for (std::size_t i = 0; i < lanes; ++i) {
    CHECK(sum[i] == a[i] + b[i]);
    CHECK(product[i] == a[i] * b[i]);
    CHECK(fused[i] == Approx(std::fma(a[i], b[i], c[i])));
    CHECK(largest[i] == std::max(a[i], b[i]));
    CHECK(least[i] == std::min(a[i], b[i]));
    CHECK(magnitude[i] == std::abs(a[i]));
    CHECK(chosen[i] == (a[i] > b[i] ? c[i] : a[i]));
  }
  std::vector<float> holes = a;
  holes[1] = std::nanf("");
  holes[2] = INFINITY;
  const auto filled = values(sv::nan_to_zero(sv::load(holes.data())));
  for (std::size_t i = 0; i < lanes; ++i) CHECK(filled[i] == (i == 1 ? 0 : holes[i]));
  CHECK(sv::reduce_add(va) == Approx(std::accumulate(a.begin(), a.end(), 0.0f)));
  CHECK(sv::reduce_max(va) == a.back());
  CHECK(sv::reduce_max(vb) == b.front());
  CHECK(sv::reduce_add(sv::broadcast(std::int32_t{7})) == 7 * static_cast<int>(lanes));
  CHECK(sv::reduce_add(sv::zero()) == 0);
}

TEST_CASE("simd: division is correctly rounded") {
  std::mt19937 random(1);
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<float> a(lanes), b(lanes);
    for (std::size_t i = 0; i < lanes; ++i) {
      a[i] = std::ldexp(static_cast<float>(random() % 65536) - 32768, static_cast<int>(random() % 200) - 100);
      b[i] = std::ldexp(static_cast<float>(random() % 65535 + 1), static_cast<int>(random() % 200) - 100);
    }
    const auto quotient = values(sv::divide(sv::load(a.data()), sv::load(b.data())));
    for (std::size_t i = 0; i < lanes; ++i) REQUIRE(quotient[i] == a[i] / b[i]);
  }
}

TEST_CASE("simd: rounding goes to the nearest integer, ties to even") {
  const float ties[] = {0.5f, 1.5f, 2.5f,  -0.5f, -1.5f, -2.5f, 2.4999998f, -7.51f,
                        0,    1e6f, -1e6f, 3.5f,  4.5f,  -3.5f, -4.5f,      0.49999997f};
  for (std::size_t at = 0; at + lanes <= std::size(ties); at += lanes) {
    const auto integers = values(sv::round_to_i32(sv::load(ties + at)));
    const auto floats = values(sv::round(sv::load(ties + at)));
    for (std::size_t i = 0; i < lanes; ++i) {
      CHECK(integers[i] == static_cast<std::int32_t>(std::nearbyint(ties[at + i])));
      CHECK(floats[i] == std::nearbyint(ties[at + i]));
    }
  }
}

TEST_CASE("simd: bits, shifts with one count and with a count for each lane") {
  std::vector<std::uint32_t> a(lanes), n(lanes);
  for (std::size_t i = 0; i < lanes; ++i) {
    a[i] = 0x9E3779B9u * static_cast<std::uint32_t>(i + 1);
    n[i] = static_cast<std::uint32_t>((i * 7 + 31) % 32);
  }
  const sv::u32 va = sv::load(a.data()), vn = sv::load(n.data());
  const auto left = values(sv::shift_left(va, vn)), right = values(sv::shift_right(va, vn)), by5 = values(sv::shift_left(va, 5)),
             down9 = values(sv::shift_right(va, 9)), both = values((va & vn) | (va ^ sv::broadcast(std::uint32_t{0xFF})));
  for (std::size_t i = 0; i < lanes; ++i) {
    CHECK(left[i] == a[i] << n[i]);
    CHECK(right[i] == a[i] >> n[i]);
    CHECK(by5[i] == a[i] << 5);
    CHECK(down9[i] == a[i] >> 9);
    CHECK(both[i] == ((a[i] & n[i]) | (a[i] ^ 0xFFu)));
  }
  const auto f = ramp(-1.5f, 0.375f);
  const auto flipped = values(sv::as_f32(sv::as_u32(sv::load(f.data())) ^ sv::broadcast(0x80000000u)));
  for (std::size_t i = 0; i < lanes; ++i) CHECK(flipped[i] == -f[i]);
  CHECK(values(sv::as_i32(sv::as_u32(sv::broadcast(std::int32_t{-5}))))[0] == -5);
}

TEST_CASE("simd: widening loads are exact") {
  // Heap blocks of the exact size, so that a sanitizer sees a read past the end.
  auto u8 = std::make_unique<std::uint8_t[]>(lanes);
  auto i8 = std::make_unique<std::int8_t[]>(lanes);
  auto u16 = std::make_unique<std::uint16_t[]>(lanes);
  for (std::size_t i = 0; i < lanes; ++i) {
    u8[i] = static_cast<std::uint8_t>(255 - 17 * i);
    i8[i] = static_cast<std::int8_t>(static_cast<int>(17 * i) - 128);
    u16[i] = static_cast<std::uint16_t>(65535 - 4000 * i);
  }
  const auto from_u8 = values(sv::load_i32(u8.get())), from_i8 = values(sv::load_i32(i8.get())),
             from_u16 = values(sv::load_i32(u16.get()));
  const auto floats = values(sv::load_f32(i8.get()));
  for (std::size_t i = 0; i < lanes; ++i) {
    CHECK(from_u8[i] == u8[i]);
    CHECK(from_i8[i] == i8[i]);
    CHECK(from_u16[i] == u16[i]);
    CHECK(floats[i] == static_cast<float>(i8[i]));
  }
  sv::store_u8(u8.get(), sv::broadcast(std::int32_t{255}) - sv::load_i32(u8.get()));
  for (std::size_t i = 0; i < lanes; ++i) CHECK(u8[i] == 17 * i);
  for (std::size_t i = 0; i < lanes; ++i) u16[i] = f32_to_f16(ramp(-2.5f, 0.7f)[i]);
  u16[0] = 1;       // the smallest subnormal
  u16[1] = 0x7C00;  // infinity
  const auto halves = values(sv::load_f16(u16.get()));
  for (std::size_t i = 0; i < lanes; ++i) CHECK(halves[i] == f16_to_f32(u16[i]));
}

TEST_CASE("simd: partial forms touch only the elements they name") {
  for (std::size_t n = 0; n <= lanes; ++n) {
    const auto floats = std::make_unique<float[]>(n);
    const auto codes = std::make_unique<std::uint8_t[]>(n);
    for (std::size_t i = 0; i < n; ++i) floats[i] = static_cast<float>(i + 1), codes[i] = static_cast<std::uint8_t>(200 + i);
    const sv::f32 v = sv::load_partial(floats.get(), static_cast<Index>(n));
    const auto read = values(v), widened = values(sv::load_f32_partial(codes.get(), static_cast<Index>(n)));
    for (std::size_t i = 0; i < lanes; ++i) {
      CHECK(read[i] == (i < n ? static_cast<float>(i + 1) : 0.0f));
      CHECK(widened[i] == (i < n ? static_cast<float>(200 + i) : 0.0f));
    }
    const auto out = std::make_unique<float[]>(n);
    sv::store_partial(out.get(), v, static_cast<Index>(n));
    for (std::size_t i = 0; i < n; ++i) CHECK(out[i] == floats[i]);
  }
}

template <int N>
void check_table() {
  std::vector<float> table(N);
  for (std::size_t i = 0; i < N; ++i) table[i] = std::sin(static_cast<float>(i + 1));
  const sv::Table<N> lookup(table.data());
  for (std::int32_t start = 0; start < N; ++start) {
    std::vector<std::int32_t> index(lanes);
    for (std::size_t i = 0; i < lanes; ++i) index[i] = (start + static_cast<std::int32_t>(i) * 5) % N;
    const auto found = values(lookup[sv::load(index.data())]),
               gathered = values(sv::gather(table.data(), sv::load(index.data())));
    for (std::size_t i = 0; i < lanes; ++i) {
      CHECK(found[i] == table[static_cast<std::size_t>(index[i])]);
      CHECK(gathered[i] == table[static_cast<std::size_t>(index[i])]);
    }
  }
}
TEST_CASE("simd: tables of every size find their entries") {
  check_table<2>();
  check_table<4>();
  check_table<8>();
  check_table<16>();
  check_table<32>();
  check_table<64>();
  check_table<256>();
}
