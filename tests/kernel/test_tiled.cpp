// The kernel layout against the kernels that read packed bytes: the same bits.

#include <anybit/kernel/repack.hpp>

#include "kernel/products.hpp"

using namespace anybit;
using namespace products;

namespace {

template <AnyScheme S>
void check(Extents e, Index tokens, unsigned seed) {
  CAPTURE(std::string(S::name.view()), e.rows, e.cols, tokens);
  const auto packed = pack(some_weights<S>(e, seed));
  const kernel::TiledWeights tiled = kernel::tile_weights(packed);
  const Activations x(tokens, e.cols, static_cast<Index>(seed % 3), seed);
  Workspace workspace;
  Matrix expected(tokens, e.rows);
  matmul(packed, x.view, expected.view(), Compute::int8_per_token, workspace);
  Guarded y(tokens, e.rows, static_cast<Index>(seed % 4));
  kernel::matmul(tiled, x.view, y.view(), workspace, Serial{});
  REQUIRE(y.intact());
  for (Index t = 0; t < tokens; ++t)
    for (Index r = 0; r < e.rows; ++r) REQUIRE(y.view()(t, r) == expected(t, r));
  // Any slicing of rows, also inside a tile.
  const auto rounded = kernel::tile_activations<kernel::native_arch>(
      kernel::round_activations(x.view, tiled.group, workspace, Serial{}), tiled, workspace, Serial{});
  Guarded sliced(tokens, e.rows, 1);
  for (Index begin = 0, length = 1; begin < e.rows; begin += length, length = length % 7 + 2)
    tiled.rows(tiled, rounded, sliced.view(), begin, std::min(e.rows, begin + length));
  REQUIRE(sliced.intact());
  for (Index t = 0; t < tokens; ++t)
    for (Index r = 0; r < e.rows; ++r) REQUIRE(sliced.view()(t, r) == expected(t, r));
}

template <AnyScheme S>
void check_shapes() {
  unsigned seed = 1;
  for (const Shape& s : shapes()) check<S>({s.rows, s.cols}, s.tokens, seed++);
}

}  // namespace

TEST_CASE("tiled weights multiply to the same bits at every width") {
  check_shapes<Scheme<Superfloat<1>>>();
  check_shapes<Scheme<Superfloat<2>, PerGroup<32>>>();
  check_shapes<Scheme<Superfloat<3>, PerGroup<50>, ScaleF32>>();
  check_shapes<Scheme<Superfloat<4>, PerGroup<64>>>();
  check_shapes<Scheme<Superfloat<5>, PerGroup<96>, ScaleBF16>>();
  check_shapes<Scheme<SInt<6>, PerRow>>();
  check_shapes<Scheme<Superfloat<7>, PerGroup<128>>>();
  check_shapes<Scheme<SInt<8>, PerTensor, ScaleF32>>();
}

TEST_CASE("tiled weights with zero points, of three levels, of double quantized scales") {
  check_shapes<Scheme<UInt<4>, PerGroup<32>>>();
  check_shapes<Scheme<UInt<8>, PerGroup<1>>>();
  check_shapes<Scheme<Ternary, PerGroup<128>, ScaleF16, Base3>>();
  check_shapes<Scheme<SInt<3>, PerGroup<64>, DoubleQuant<256>>>();
}

TEST_CASE("tiled weights: no rows, no columns, no tokens, any number of threads") {
  using S = Scheme<SInt<4>, PerGroup<64>>;
  Workspace workspace;
  Matrix none(0, 40), out(0, 6), empty(3, 0), zero(3, 6), x(2, 40), nothing(2, 0);
  kernel::matmul(kernel::tile_weights(pack(some_weights<S>({6, 40}, 1))), none.view(), out.view(), workspace, Serial{});
  std::fill_n(zero.data(), 18, 5.0f);
  kernel::matmul(kernel::tile_weights(pack(some_weights<S>({6, 0}, 1))), empty.view(), zero.view(), workspace, Serial{});
  for (Index i = 0; i < 18; ++i) CHECK(zero.data()[i] == 0);
  kernel::matmul(kernel::tile_weights(pack(some_weights<S>({0, 40}, 1))), x.view(), nothing.view(), workspace, Serial{});

  const auto packed = pack(some_weights<S>({333, 517}, 9));
  for (const Index tokens : {1, 7, 40}) {
    const Activations a(tokens, 517, 0, 10);
    Matrix serial(tokens, 333);
    kernel::matmul(kernel::tile_weights(packed), a.view, serial.view(), workspace, Serial{});
    for (const Index threads : {2, 3, 8}) {
      ThreadPool pool(threads);
      Matrix y(tokens, 333);
      kernel::matmul(kernel::tile_weights(packed, pool), a.view, y.view(), workspace, pool);
      CHECK(std::equal(y.data(), y.data() + tokens * 333, serial.data()));
    }
  }
}
