// Every vocabulary of kernel/arch.hpp that this compiler can produce, the AVX-512 one emulated where the flags lack it: its
// dot products against plain integers, and whole products in its tiles against the scalar reference.

#include "kernel/every_arch.hpp"
#include "kernel/products.hpp"

using namespace anybit;
using namespace products;

namespace {

/// All vocabularies at hand.
template <class Check>
void for_each_arch(Check check) {
  every_arch::for_each(check);
  if (*every_arch::left_out() != '\0') WARN("skipped: " << every_arch::left_out());
}

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
      std::int32_t expected = -offsets[i] * sum;
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
    Lines::write(s, codes[s], unit.data());
  }
  kernel::detail::each_step<Lines::steps>(
      [&](auto step) { Arch::store_bytes(found + 64 * step(), Lines::template read<Arch, step()>(unit.data())); });
  REQUIRE(std::memcmp(found, codes, static_cast<std::size_t>(64 * Lines::steps)) == 0);
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
  const Lanes<Arch> wide(Arch::widen(bytes)), negative(Arch::products(Arch::widen(bytes), 1000)), equal(Arch::equal(-77));
  Arch::store(floats, Arch::load_f16(reinterpret_cast<const std::byte*>(halves)));
  for (int i = 0; i < 16; ++i) {
    CHECK(wide.v[i] == bytes[i]);
    CHECK(negative.v[i] == -1000 * bytes[i]);
    CHECK(equal.v[i] == -77);
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

template <class Arch, AnyScheme S>
void check_products(Extents e, unsigned seed) {
  const auto w = pack(some_weights<S>(e, seed));
  for (const Index tokens : {1, 2, 3, 11, 17}) {
    const Compute compute = tokens % 2 != 0 ? Compute::int8_per_token : Compute::int8_per_block;
    CAPTURE(std::string(S::name.view()), e.rows, e.cols, tokens);
    const Activations x(tokens, e.cols, 3, seed + 1);
    Workspace workspace;
    const kernel::RowSource source = kernel::row_source(w);
    const auto rounded = kernel::round_activations(x.view, source.group, compute, workspace, Serial{});
    Guarded y(tokens, e.rows, 2);
    kernel::int8_rows<Arch>(source, rounded, y.view(), 0, e.rows);
    REQUIRE(y.intact());
    const auto expected = reference::matmul_int8(w, x.view, compute);
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < e.rows; ++r)
        REQUIRE(
            static_cast<double>(y.view()(t, r)) ==
            Approx(expected[static_cast<std::size_t>(t * e.rows + r)]).epsilon(1e-5).margin(1e-6 * static_cast<double>(e.cols)));
    // The kernel layout gives the same bits, unpacked in registers or in blocks.
    using Codes = kernel::tile_codes_t<typename S::format>;
    const kernel::TiledWeights tiled = kernel::tile_weights(w, compute);
    const auto grouped = kernel::tile_activations<Arch>(rounded, tiled, workspace, Serial{});
    Guarded direct(tokens, e.rows, 0), blocked(tokens, e.rows, 1);
    kernel::detail::tiled_rows_direct<Arch, Codes>(tiled, grouped, direct.view(), 0, e.rows);
    kernel::detail::tiled_rows_blocked<Arch, Codes>(tiled, grouped, blocked.view(), 0, e.rows);
    REQUIRE(direct.intact());
    REQUIRE(blocked.intact());
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < e.rows; ++r) {
        REQUIRE(direct.view()(t, r) == y.view()(t, r));
        REQUIRE(blocked.view()(t, r) == y.view()(t, r));
      }
  }
}

}  // namespace

TEST_CASE("dot products of every vocabulary are exact") {
  for_each_arch([]<class Arch>(std::type_identity<Arch>, const char* name) {
    CAPTURE(name);
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
  });
}

TEST_CASE("whole products in the tiles of every vocabulary") {
  for_each_arch([]<class Arch>(std::type_identity<Arch>, const char* name) {
    CAPTURE(name);
    check_products<Arch, Scheme<SInt<8>, PerRow, ScaleF32>>({18, 1100}, 1);
    check_products<Arch, Scheme<UInt<8>, PerGroup<32>>>({33, 200}, 2);
    check_products<Arch, Scheme<Superfloat<5>, PerGroup<64>>>({17, 517}, 3);
    check_products<Arch, Scheme<Superfloat<3>, PerGroup<50>>>({5, 333}, 4);
    check_products<Arch, Scheme<Ternary, PerGroup<128>>>({20, 640}, 5);
    check_products<Arch, presets::Mxfp4>({19, 352}, 6);
  });
}
