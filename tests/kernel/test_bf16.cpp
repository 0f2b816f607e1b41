// Products of bfloat16, by vectors where there are instructions and on emulated tiles, against sums in double precision of the
// same rounded numbers.

#include <anybit/kernel/bf16_rows.hpp>

#include "kernel/products.hpp"
#include "support/emulated_tiles.hpp"

using namespace anybit;
using namespace products;

namespace {

using WithTiles = emulated::WithTiles<kernel::native_arch>;

/// Where tiles are not to be had, or a vocabulary without them.
template <class Arch>
bool multiplies() {
  if constexpr (kernel::detail::has_matrix<Arch>)
    if (Arch::Matrix::available()) return true;
  return kernel::multiplies_bf16<Arch>;
}

double rounded(float v) { return static_cast<double>(bf16_to_f32(f32_to_bf16(v))); }

template <class Arch, AnyScheme S>
void check(const PackedTensor<S>& w, ConstMatrix x, unsigned seed) {
  if (!multiplies<Arch>()) return;
  const Index rows = w.rows(), cols = w.cols(), tokens = x.rows;
  CAPTURE(std::string(S::name.view()), rows, cols, tokens);
  const kernel::PackedRows source(w);
  Workspace workspace;
  const auto a = kernel::bf16_activations<Arch>(x, workspace, Serial{});
  Guarded y(tokens, rows, static_cast<Index>(seed % 4)), sliced(tokens, rows, 1);
  kernel::bf16_rows<Arch>(source, a, y.view(), 0, rows);
  for (Index begin = 0, length = 5; begin < rows; begin += length, length = length * 3 % 41 + 1)
    kernel::bf16_rows<Arch>(source, a, sliced.view(), begin, std::min(rows, begin + length));
  REQUIRE(y.intact());
  REQUIRE(sliced.intact());
  const auto weights = packed_reference::dequantized(w);
  for (Index t = 0; t < tokens; ++t)
    for (Index r = 0; r < rows; ++r) {
      double exact = 0, size = 0;
      for (Index k = 0; k < cols; ++k) {
        const double product = rounded(static_cast<float>(weights(r, k))) * rounded(x(t, k));
        exact += product, size += std::fabs(product);
      }
      // As many roundings of sums in float as there are columns, and one of tiles, which have even and odd columns apart.
      const double bound = (static_cast<double>(cols) + 2) * 0x1p-24 * size + 1e-30;
      REQUIRE(std::fabs(static_cast<double>(y.view()(t, r)) - exact) <= bound);
      REQUIRE(y.view()(t, r) == sliced.view()(t, r));
    }
  // The last few tokens alone have the same bits.
  for (const Index few : {1, 2, 3, 5, 8}) {
    if (few > tokens) break;
    Matrix alone(few, rows);
    kernel::bf16_rows<Arch>(source, kernel::bf16_activations<Arch>(x.row_range(tokens - few, tokens), workspace, Serial{}),
                            alone.view(), 0, rows);
    for (Index t = 0; t < few; ++t)
      for (Index r = 0; r < rows; ++r) REQUIRE(alone(t, r) == y.view()(tokens - few + t, r));
  }
}

template <AnyScheme S>
void check_bf16_shapes() {
  unsigned seed = 1;
  for (const Shape& s :
       {Shape{1, 1, 1}, {3, 7, 2}, {17, 65, 17}, {33, 127, 6}, {40, 128, 33}, {7, 513, 16}, {65, 300, 70}, {70, 1056, 11}}) {
    const auto w = pack(some_weights<S>({s.rows, s.cols}, seed));
    const InputAtOddPlace x(s.tokens, s.cols, static_cast<Index>(seed % 3), seed);
    check<kernel::native_arch>(w, x.view, seed);
    check<WithTiles>(w, x.view, seed);
    ++seed;
  }
}

}  // namespace

TEST_CASE("bf16: integers, zero points, codebooks on no grid, codes of more than 8 bits") {
  check_bf16_shapes<Scheme<Superfloat<4>, PerGroup<128>>>();
  check_bf16_shapes<Scheme<UInt<4>, PerGroup<50>>>();
  check_bf16_shapes<Scheme<Nf4, PerGroup<64>, DoubleQuant<256>>>();
  check_bf16_shapes<Scheme<Minifloat<4, 3>, PerRow>>();
  check_bf16_shapes<Scheme<Superfloat<12>, PerGroup<32>, ScaleF32>>();
}

TEST_CASE("bf16: NaN and infinity in activations touch their token only") {
  using S = Scheme<Nf4, PerGroup<64>>;
  InputAtOddPlace x(20, 300, 0, 3);
  x.storage[1 + 4 * 300 + 7] = std::numeric_limits<float>::quiet_NaN();
  x.storage[1 + 18 * 300] = std::numeric_limits<float>::infinity();
  const auto w = pack(some_weights<S>({40, 300}, 4));
  Workspace workspace;
  const auto finite_elsewhere = [&]<class Arch>(std::type_identity<Arch>) {
    if (!multiplies<Arch>()) return;
    Matrix y(20, 40);
    kernel::bf16_rows<Arch>(kernel::PackedRows(w), kernel::bf16_activations<Arch>(x.view, workspace, Serial{}), y.view(), 0, 40);
    for (Index t = 0; t < 20; ++t)
      for (Index r = 0; r < 40; ++r) REQUIRE((t == 4 || t == 18) == !is_finite(y(t, r)));
  };
  finite_elsewhere(std::type_identity<kernel::native_arch>());
  finite_elsewhere(std::type_identity<WithTiles>());
}

TEST_CASE("bf16: Compute::bf16 takes the instructions that there are") {
  using S = Scheme<Nf4, PerGroup<64>>;
  const auto w = pack(some_weights<S>({50, 200}, 6));
  const InputAtOddPlace x(9, 200, 1, 6);
  Workspace workspace;
  Matrix y(9, 50), expected(9, 50);
  matmul(w, x.view, y.view(), Compute::bf16, workspace);
  if constexpr (kernel::multiplies_bf16<kernel::native_arch>) {
    kernel::bf16_rows<kernel::native_arch>(kernel::PackedRows(w),
                                           kernel::bf16_activations<kernel::native_arch>(x.view, workspace, Serial{}),
                                           expected.view(), 0, 50);
  } else {
    Matrix values(9, 200);
    for (Index t = 0; t < 9; ++t)
      for (Index k = 0; k < 200; ++k) values(t, k) = bf16_to_f32(f32_to_bf16(x.view(t, k)));
    matmul(w, values.view(), expected.view());
  }
  for (Index i = 0; i < 9 * 50; ++i) REQUIRE(y.data()[i] == expected.data()[i]);
}
