// The kernel layout against the kernels that read packed bytes: the same bits.

#include <anybit/kernel/repack.hpp>

#include "kernel/products.hpp"

using namespace anybit;
using namespace products;

namespace {

/// Levels that leave steps out, in no order, 0 not in the middle, written as fractions that no float holds exactly.
struct Gaps7 {
  static constexpr int bits = 7;
  static constexpr auto name = FixedString("gaps7");
  static constexpr int whole(Code c) { return static_cast<int>(c * 37 % 128) * 2 - 97 + (c % 3 == 0); }
  static constexpr Code encode(float x) { return x > 0 ? 5 : 0; }
  static constexpr float decode(Code c) { return static_cast<float>(whole(c)) / 158.0f; }
  static constexpr Affine fit(std::span<const float> v) { return fit_abs_max(v, 1.0f); }
};

/// Odd levels only, symmetric around 0: -1 and 1, or -3, -1, 1, 3, or on to -127 and 127.
template <int Bits>
struct Odd {
  static constexpr int bits = Bits;
  static constexpr auto name = "odd" + decimal<Bits>();
  static constexpr float step = 1;
  static constexpr int highest = (1 << Bits) - 1;
  static constexpr Code encode(float x) {
    const float c = x == x ? (x + highest) / 2 : 0;
    return c <= 0 ? Code{0} : c >= highest ? static_cast<Code>(highest) : static_cast<Code>(round_half_even(c));
  }
  static constexpr std::int32_t to_int(Code c) { return 2 * static_cast<int>(c) - highest; }
  static constexpr float decode(Code c) { return static_cast<float>(to_int(c)); }
  static constexpr Affine fit(std::span<const float> v) { return fit_abs_max(v, static_cast<float>(highest)); }
};

template <AnyScheme S>
void check(Extents e, Index tokens, unsigned seed) {
  const Compute compute = seed % 2 != 0 ? Compute::int8_per_token : Compute::int8_per_block;
  CAPTURE(std::string(S::name.view()), std::string(name(compute)), e.rows, e.cols, tokens);
  const auto packed = pack(some_weights<S>(e, seed));
  const kernel::TiledWeights tiled = kernel::tile_weights(packed, compute);
  const InputAtOddPlace x(tokens, e.cols, static_cast<Index>(seed % 3), seed);
  Workspace workspace;
  Matrix expected(tokens, e.rows);
  matmul(packed, x.view, expected.view(), compute, workspace);
  Guarded y(tokens, e.rows, static_cast<Index>(seed % 4));
  kernel::matmul(tiled, x.view, y.view(), compute, workspace, Serial{});
  REQUIRE(y.intact());
  for (Index t = 0; t < tokens; ++t)
    for (Index r = 0; r < e.rows; ++r) REQUIRE(y.view()(t, r) == expected(t, r));
  // Any slicing of rows, also inside a tile.
  const auto rounded = kernel::tile_activations<kernel::native_arch>(
      kernel::round_activations(x.view, tiled.group, compute, workspace, Serial{}), tiled, workspace, Serial{});
  Guarded sliced(tokens, e.rows, 1);
  for (Index begin = 0, length = 1; begin < e.rows; begin += length, length = length % 7 + 2)
    tiled.rows(tiled, rounded, sliced.view(), begin, std::min(e.rows, begin + length));
  REQUIRE(sliced.intact());
  for (Index t = 0; t < tokens; ++t)
    for (Index r = 0; r < e.rows; ++r) REQUIRE(sliced.view()(t, r) == expected(t, r));
}

template <AnyScheme S>
void check_tiled_shapes() {
  unsigned seed = 1;
  for (const Shape& s : shapes()) check<S>({s.rows, s.cols}, s.tokens, seed++);
}

}  // namespace

TEST_CASE("tiled weights multiply to the same bits at every width") {
  check_tiled_shapes<Scheme<Superfloat<1>>>();
  check_tiled_shapes<Scheme<Superfloat<2>, PerGroup<32>>>();
  check_tiled_shapes<Scheme<Superfloat<3>, PerGroup<50>, ScaleF32>>();
  check_tiled_shapes<Scheme<Superfloat<4>, PerGroup<64>>>();
  check_tiled_shapes<Scheme<Superfloat<5>, PerGroup<96>, ScaleBF16>>();
  check_tiled_shapes<Scheme<SInt<6>, PerRow>>();
  check_tiled_shapes<Scheme<Superfloat<7>, PerGroup<128>>>();
  check_tiled_shapes<Scheme<SInt<8>, PerTensor, ScaleF32>>();
}

TEST_CASE("tiled weights with zero points, of three levels, of double quantized scales") {
  check_tiled_shapes<Scheme<UInt<4>, PerGroup<32>>>();
  check_tiled_shapes<Scheme<UInt<8>, PerGroup<1>>>();
  check_tiled_shapes<Scheme<Ternary, PerGroup<128>, ScaleF16, Base3>>();
  check_tiled_shapes<Scheme<SInt<3>, PerGroup<64>, DoubleQuant<256>>>();
}

TEST_CASE("tiled weights of formats whose levels are multiples of a step: codes are looked up") {
  STATIC_REQUIRE(kernel::tile_codes_t<Minifloat<2, 1>>::bits == 4);
  STATIC_REQUIRE(kernel::tile_codes_t<Minifloat<2, 1>>::max_byte == 31);
  STATIC_REQUIRE(kernel::tile_codes_t<Minifloat<2, 3>>::bits == 6);
  STATIC_REQUIRE(!has_integer_dot_v<Minifloat<3, 2>>);
  STATIC_REQUIRE(!has_integer_dot_v<Nf4>);
  check_tiled_shapes<presets::Mxfp4>();
  check_tiled_shapes<Scheme<Minifloat<2, 3>, PerRow>>();
  check_tiled_shapes<Scheme<Gaps7, PerGroup<48>>>();
}

TEST_CASE("tiled weights of formats whose levels are all odd: codes take no more bits than the format's own") {
  using Two = kernel::tile_codes_t<Odd<2>>;
  STATIC_REQUIRE((Two::bits == 2 && Two::up == 1 && Two::max_byte == 6 && !Two::looked_up));
  STATIC_REQUIRE((kernel::tile_codes_t<Superfloat<1>>::bits == 1 && !kernel::tile_codes_t<Superfloat<1>>::looked_up));
  STATIC_REQUIRE(kernel::tile_codes_t<Odd<7>>::max_byte == 254);
  check_tiled_shapes<Scheme<Superfloat<1>, PerGroup<128>>>();
  check_tiled_shapes<Scheme<Odd<1>, PerGroup<32>>>();
  check_tiled_shapes<Scheme<Odd<2>, PerGroup<64>>>();
  check_tiled_shapes<Scheme<Odd<3>, PerGroup<48>, ScaleF32>>();
  check_tiled_shapes<Scheme<Odd<5>, PerRow>>();
  check_tiled_shapes<Scheme<Odd<7>, PerGroup<128>>>();
}

TEST_CASE("levels on no grid move to one only as far as they may") {
  using S = Scheme<Nf4, PerGroup<64>>;
  const auto packed = pack(some_weights<S>({35, 300}, 3));
  const InputAtOddPlace x(5, 300, 0, 4);
  CHECK_FALSE(kernel::tile_weights(packed, Compute::int8_per_token, 1e-4f).has_value());
  AnyPacked plain(packed), moved(packed);
  moved.prepare(Compute::int8_per_token, {}, 1e-4f);  // no such grid: products stay in float
  Workspace workspace;
  Matrix expected(5, 35), found(5, 35);
  plain.matmul(x.view, expected.view(), Compute::int8_per_token, {}, workspace);
  moved.matmul(x.view, found.view(), Compute::int8_per_token, {}, workspace);
  CHECK(std::equal(found.data(), found.data() + 5 * 35, expected.data()));
  for (const Compute compute : {Compute::int8_per_token, Compute::int8_per_block}) {
    moved.prepare(compute, {}, 0.004f);
    moved.matmul(x.view, found.view(), compute, {}, workspace);
    const auto rounded = packed_reference::round_activations(x.view, compute, 64);
    bool differs = false;
    for (Index t = 0; t < 5; ++t)
      for (Index r = 0; r < 35; ++r) {
        double exact = 0, bound = 1e-4;  // of the levels: 0.004 times |scale| and |activation|
        for (Index k = 0; k < 300; ++k) {
          const double a = static_cast<double>(rounded.scales(t, k)) * rounded.codes(t, k),
                       scale = static_cast<double>(packed.affine(r, k / 64).scale);
          exact +=
              a * scale * static_cast<double>(Nf4::decode(packed_reference::row_codes(packed, r)[static_cast<std::size_t>(k)]));
          bound += std::fabs(a * scale) * 0.004;
        }
        REQUIRE(std::fabs(static_cast<double>(found(t, r)) - exact) <= bound);
        differs = differs || std::fabs(static_cast<double>(found(t, r)) - exact) > 1e-4;
      }
    CHECK(differs);
  }
}

TEST_CASE("tiled weights: no rows, no columns, no tokens, any number of threads") {
  using S = Scheme<SInt<4>, PerGroup<64>>;
  constexpr Compute compute = Compute::int8_per_token;
  Workspace workspace;
  Matrix none(0, 40), out(0, 6), empty(3, 0), zero(3, 6), x(2, 40), nothing(2, 0);
  kernel::matmul(kernel::tile_weights(pack(some_weights<S>({6, 40}, 1)), compute), none.view(), out.view(), compute, workspace,
                 Serial{});
  std::fill_n(zero.data(), 18, 5.0f);
  kernel::matmul(kernel::tile_weights(pack(some_weights<S>({6, 0}, 1)), compute), empty.view(), zero.view(), compute, workspace,
                 Serial{});
  for (Index i = 0; i < 18; ++i) CHECK(zero.data()[i] == 0);
  kernel::matmul(kernel::tile_weights(pack(some_weights<S>({0, 40}, 1)), compute), x.view(), nothing.view(), compute, workspace,
                 Serial{});

  const auto packed = pack(some_weights<S>({333, 517}, 9));
  for (const Index tokens : {1, 7, 40}) {
    const InputAtOddPlace a(tokens, 517, 0, 10);
    Matrix serial(tokens, 333);
    kernel::matmul(kernel::tile_weights(packed, compute), a.view, serial.view(), compute, workspace, Serial{});
    for (const Index threads : {2, 3, 8}) {
      ThreadPool pool(threads);
      Matrix y(tokens, 333);
      kernel::matmul(kernel::tile_weights(packed, compute, pool), a.view, y.view(), compute, workspace, pool);
      CHECK(std::equal(y.data(), y.data() + tokens * 333, serial.data()));
    }
  }
}
