#pragma once
// What every vocabulary of kernel/dot_vocabulary.hpp must do: its dot products against plain integers, and whole products in its
// tiles against the scalar reference. One file a vocabulary, test_arch_*.cpp, because each takes long to compile; weights and
// what they should give are made once, in test_arch.cpp.

#include "kernel/every_arch.hpp"
#include "kernel/products.hpp"

namespace arch_checks {

using namespace anybit;
using namespace products;

/// Packed weights of some scheme, as the kernels see them.
struct Weights {
  std::string scheme;
  Extents extents;
  Compute compute;
  kernel::PackedRows source;
  kernel::TiledWeights tiled;
  std::shared_ptr<const void> tensor;
  std::vector<double> (*matmul_int8)(const void* tensor, ConstMatrix x, Compute);  ///< of the reference
};
const std::vector<Weights>& all_weights();

template <class Arch>
struct Lanes {
  alignas(64) std::int32_t v[16];
  explicit Lanes(const typename Arch::Ints& ints) { std::memcpy(v, &ints, sizeof v); }
};

template <class Arch, int MaxByte>
void check_dot4(std::mt19937& random) {
  alignas(64) std::uint8_t b[64];
  std::int8_t x[4];
  std::int32_t offsets[16];
  for (int trial = 0; trial < 400; ++trial) {
    // Mostly the extremes, where 16-bit sums would saturate.
    for (auto& v : b)
      v = static_cast<std::uint8_t>(random() % 4 != 0 ? (random() % 2 != 0 ? MaxByte : 0)
                                                      : static_cast<int>(random() % (MaxByte + 1)));
    for (auto& v : x)
      v = static_cast<std::int8_t>(random() % 4 != 0 ? (random() % 2 != 0 ? 127 : -127) : static_cast<int>(random() % 255) - 127);
    for (auto& v : offsets) v = static_cast<std::int32_t>(random() % 511) - 255;
    const std::int32_t sum = static_cast<std::int32_t>(random() % 60001) - 30000;
    const Lanes<Arch> found(Arch::template dot4<MaxByte>(Arch::products(offsets, sum), Arch::load_bytes(b), x));
    for (int i = 0; i < 16; ++i) {
      std::int32_t expected = offsets[i] * sum;
      for (int j = 0; j < 4; ++j) expected += b[4 * i + j] * x[j];
      REQUIRE(found.v[i] == expected);
    }
  }
}

template <class Arch, int MaxByte>
void check_segment_dots(std::mt19937& random) {
  if constexpr (Arch::row_tokens > 0)
    for (const Index n : {32, 64, 96, 512})
      for (Index count = 1; count <= 8; ++count) {
        std::vector<std::uint8_t> b(static_cast<std::size_t>(8 * n));
        std::vector<std::int8_t> x(b.size());
        for (auto& v : b) v = static_cast<std::uint8_t>(random() % 2 != 0 ? MaxByte : static_cast<int>(random() % (MaxByte + 1)));
        for (auto& v : x) v = static_cast<std::int8_t>(random() % 2 != 0 ? -127 : static_cast<int>(random() % 255) - 127);
        std::int32_t found[8];
        Arch::template segment_dots<MaxByte>(b.data(), x.data(), n, count, found);
        for (Index s = 0; s < count; ++s) {
          std::int32_t expected = 0;
          for (auto k = static_cast<std::size_t>(s * n); k < static_cast<std::size_t>((s + 1) * n); ++k) expected += b[k] * x[k];
          REQUIRE(found[s] == expected);
        }
      }
}

template <class Arch, int Bits>
void check_code_lines(std::mt19937& random) {
  using Lines = kernel::CodeLines<Bits>;
  std::uint8_t codes[8][64], found[8 * 64];
  std::vector<std::byte> unit(static_cast<std::size_t>(Lines::bytes));  // an allocation of its own: nothing past it may be read
  for (int s = 0; s < Lines::steps; ++s) {
    for (auto& v : codes[s]) v = static_cast<std::uint8_t>(random() % (1 << Bits));
    kernel::write_codes(Bits, s, codes[s], unit.data());
  }
  kernel::detail::each_step<Lines::steps>(
      [&](auto step) { Arch::store_bytes(found + 64 * step(), Lines::template read<Arch, step()>(unit.data())); });
  REQUIRE(std::memcmp(found, codes, static_cast<std::size_t>(64 * Lines::steps)) == 0);
  // As far up in their bytes as they fit.
  constexpr int up = 8 - Bits;
  kernel::detail::each_step<Lines::steps>(
      [&](auto step) { Arch::store_bytes(found + 64 * step(), Lines::template read<Arch, step(), up>(unit.data())); });
  for (int s = 0; s < Lines::steps; ++s)
    for (int i = 0; i < 64; ++i) REQUIRE(found[64 * s + i] == codes[s][i] << up);
}

template <class Arch, int Bits>
void check_look_up(std::mt19937& random) {
  ByteTable table;
  std::uint8_t codes[64], found[64];
  for (auto& v : table.bytes) v = static_cast<std::uint8_t>(random());
  for (auto& v : codes) v = static_cast<std::uint8_t>(random() % (1 << Bits));
  Arch::store_bytes(found,
                    Arch::template look_up<Bits>(Arch::template load_table<Bits>(table.bytes.data()), Arch::load_bytes(codes)));
  for (int i = 0; i < 64; ++i) REQUIRE(found[i] == table.bytes[codes[i]]);
}

template <class Arch>
void check_conversions(std::mt19937& random) {
  std::uint8_t bytes[16];
  std::uint16_t halves[16];
  for (auto& v : bytes) v = static_cast<std::uint8_t>(random());
  for (auto& v : halves) v = static_cast<std::uint16_t>(random() & 0x7BFF);
  alignas(64) float floats[16];
  const Lanes<Arch> wide(Arch::widen(bytes)), negative(Arch::products(Arch::widen(bytes), -1000)), equal(Arch::equal(-77));
  const Lanes<Arch> divided(Arch::template divided<3>(Arch::products(Arch::widen(bytes), -1000)));
  const Lanes<Arch> times(Arch::template divided<-2>(Arch::products(Arch::widen(bytes), -1000)));
  Arch::store(floats, Arch::load_f16(reinterpret_cast<const std::byte*>(halves)));
  for (int i = 0; i < 16; ++i) {
    CHECK(wide.v[i] == bytes[i]);
    CHECK(negative.v[i] == -1000 * bytes[i]);
    CHECK(equal.v[i] == -77);
    CHECK(divided.v[i] == -125 * bytes[i]);
    CHECK(times.v[i] == -4000 * bytes[i]);
    CHECK(floats[i] == f16_to_f32(halves[i]));
  }
}

template <class Arch>
void check_interleave(std::mt19937& random) {
  for (const Index n : {16, 32, 128}) {
    const Index stride = 4 * n + 64;
    std::vector<std::uint8_t> rows(static_cast<std::size_t>(16 * stride)), out(static_cast<std::size_t>(64 * n));
    for (auto& v : rows) v = static_cast<std::uint8_t>(random());
    Arch::interleave(rows.data(), stride, n, out.data());
    for (Index r = 0; r < 16; ++r)
      for (Index k = 0; k < n; ++k)
        for (Index j = 0; j < 4; ++j)
          REQUIRE(out[static_cast<std::size_t>(64 * k + 4 * r + j)] == rows[static_cast<std::size_t>(r * stride + 4 * k + j)]);
  }
}

template <class Arch, class Codes>
void check_products(const Weights& w) {
  const Index rows = w.extents.rows, cols = w.extents.cols;
  for (const Index tokens : {1, 2, 3, 11, 17}) {
    CAPTURE(w.scheme, rows, cols, tokens);
    const InputAtOddPlace x(tokens, cols, 3, static_cast<unsigned>(cols));
    Workspace workspace;
    const auto rounded = kernel::round_activations(x.view, w.source.group, w.compute, workspace, Serial{});
    Guarded y(tokens, rows, 2);
    kernel::int8_rows<Arch>(w.source, rounded, y.view(), 0, rows);
    REQUIRE(y.intact());
    const auto expected = w.matmul_int8(w.tensor.get(), x.view, w.compute);
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < rows; ++r)
        REQUIRE(static_cast<double>(y.view()(t, r)) ==
                Approx(expected[static_cast<std::size_t>(t * rows + r)]).epsilon(1e-5).margin(1e-6 * static_cast<double>(cols)));
    // The kernel layout gives the same bits, unpacked in registers or in blocks.
    const auto grouped = kernel::tile_activations<Arch>(rounded, w.tiled, workspace, Serial{});
    Guarded direct(tokens, rows, 0), blocked(tokens, rows, 1);
    kernel::detail::tiled_rows_direct<Arch, Codes>(w.tiled, grouped, direct.view(), 0, rows);
    kernel::detail::tiled_rows_blocked<Arch, Codes>(w.tiled, grouped, blocked.view(), 0, rows);
    REQUIRE(direct.intact());
    REQUIRE(blocked.intact());
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < rows; ++r) {
        REQUIRE(direct.view()(t, r) == y.view()(t, r));
        REQUIRE(blocked.view()(t, r) == y.view()(t, r));
      }
  }
}

template <class Arch>
void check_vocabulary() {
  std::mt19937 random(7);
  check_dot4<Arch, 128>(random);
  check_dot4<Arch, 255>(random);
  check_segment_dots<Arch, 128>(random);
  check_segment_dots<Arch, 255>(random);
  check_interleave<Arch>(random);
  check_conversions<Arch>(random);
  [&]<int... Less>(std::integer_sequence<int, Less...>) {
    (check_code_lines<Arch, Less + 1>(random), ...);
    (check_look_up<Arch, Less + 1>(random), ...);
  }(std::make_integer_sequence<int, 8>());
}

template <class Arch>
void check_all_products() {
  for (const Weights& w : all_weights()) switch (w.tiled.bits) {
      case 1: check_products<Arch, kernel::tile_codes_t<Superfloat<1>>>(w); break;
      case 2: check_products<Arch, kernel::TileCodes<2>>(w); break;
      case 3: check_products<Arch, kernel::TileCodes<3>>(w); break;
      case 4: check_products<Arch, kernel::tile_codes_t<Minifloat<2, 1>>>(w); break;
      case 5: check_products<Arch, kernel::TileCodes<5>>(w); break;
      case 8: check_products<Arch, kernel::TileCodes<8>>(w); break;
      default: FAIL("no products of " << w.tiled.bits << " bits are compiled here");
    }
}

}  // namespace arch_checks
