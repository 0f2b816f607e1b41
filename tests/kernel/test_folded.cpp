// Compute::int8_folded: the bytes that scales are folded into, which rows take them, and products by vectors and by emulated
// tiles against sums of those bytes.

#include <anybit/kernel/folded_products.hpp>

#include <anybit/kernel/repack.hpp>

#include "kernel/products.hpp"
#include "support/emulated_tiles.hpp"

using namespace anybit;
using namespace products;

namespace {

using WithTiles = emulated::WithTiles<kernel::native_arch>;

/// Groups of normal weights whose scales differ by up to `spread`.
template <AnyScheme S>
QuantizedMatrix<S> mild_weights(Extents e, unsigned seed, float spread = 0.2f) {
  auto q = some_weights<S>(e, seed);
  std::mt19937 random(seed);
  std::vector<float> scales(q.affines.size());
  for (float& s : scales) s = 1 - spread * static_cast<float>(random() % 1000) * 0.001f;
  S::scale_store::round_trip(scales);
  for (std::size_t i = 0; i < scales.size(); ++i) q.affines[i].scale = scales[i];
  return q;
}

bool folded(const kernel::TiledWeights& w, Index row) {
  return w.folded && w.folded->is_folded[static_cast<std::size_t>(row / 16)] != 0;
}

/// The whole numbers whose product with `step` a row's weights become, from the codes of the packed tensor.
template <AnyScheme S>
std::vector<int> folded_row(const PackedTensor<S>& packed, const kernel::TiledWeights& w, Index row) {
  const float step = w.folded->steps_of(row / 16, 0)[row % 16];
  const Index group = S::granularity::group_cols(packed.cols());
  const auto codes = packed_reference::row_codes(packed, row);
  std::vector<int> bytes;
  for (Index k = 0; k < packed.cols(); ++k) {
    const auto a = packed.affine(row, k / group);
    const double level = static_cast<double>(S::format::decode(codes[static_cast<std::size_t>(k)])) -
                         (S::has_zero_point ? static_cast<double>(a.zero) : 0.0);
    const double grid = static_cast<double>(w.factor), scale = static_cast<double>(a.scale) * grid,
                 factor = std::nearbyint(scale / static_cast<double>(step) * 128);
    bytes.push_back(static_cast<int>(std::floor(std::nearbyint(level / grid) * factor / 128 + 0.5)));
  }
  return bytes;
}

template <AnyScheme S>
void check(const QuantizedMatrix<S>& q, Index tokens, unsigned seed, bool expect_all = true) {
  const auto packed = pack(q);
  const Index rows = q.extents.rows, cols = q.extents.cols;
  CAPTURE(std::string(S::name.view()), rows, cols, tokens);
  const kernel::TiledWeights w = kernel::tile_weights(packed, Compute::int8_folded);
  REQUIRE(w.folded);
  if (expect_all) REQUIRE(w.folded->rows == rows);
  const InputAtOddPlace x(tokens, cols, static_cast<Index>(seed % 3), seed);
  Workspace workspace;
  Guarded y(tokens, rows, 1), sliced(tokens, rows, 0), exact(tokens, rows, 0);
  kernel::matmul(w, x.view, y.view(), Compute::int8_folded, workspace, Serial{});
  matmul(packed, x.view, exact.view(), Compute::int8_per_token, workspace);
  REQUIRE(y.intact());
  const auto rounded = packed_reference::round_activations(x.view, Compute::int8_per_token, cols);
  for (Index r = 0; r < rows; ++r) {
    if (!folded(w, r)) {
      for (Index t = 0; t < tokens; ++t) REQUIRE(y.view()(t, r) == exact.view()(t, r));
      continue;
    }
    const auto bytes = folded_row(packed, w, r);
    const double step = static_cast<double>(w.folded->steps_of(r / 16, 0)[r % 16]);
    for (Index t = 0; t < tokens; ++t) {
      double sum = 0, size = 0;
      for (Index k = 0; k < cols; ++k) {
        const double product = bytes[static_cast<std::size_t>(k)] * static_cast<double>(rounded.codes(t, k));
        sum += product, size += std::fabs(product);
      }
      const double scale = step * static_cast<double>(rounded.scales(t, 0));
      REQUIRE(std::fabs(static_cast<double>(y.view()(t, r)) - sum * scale) <= size * scale * 1e-6);
    }
  }
  // By tiles, and in any slices of rows, the same bits.
  const auto tiling = kernel::folded_tiling_of<WithTiles>(w), plain = kernel::tiling_of<WithTiles>(w);
  const kernel::Tiling both[2] = {tiling, plain};
  const auto a = kernel::round_activations(x.view, w.group, Compute::int8_folded, workspace, Serial{});
  const kernel::detail::TilingTasks<WithTiles> tasks(a, both, workspace);
  tasks.run(a, 0, tokens, a.codes);
  const auto folds = tasks.of[0].activations(), others = tasks.of[1].activations();
  REQUIRE(folds.by_matrix);
  for (Index begin = 0, length = 5; begin < rows; begin += length, length = length * 3 % 41 + 1)
    kernel::folded_tiled_rows<kernel::tile_codes_t<typename S::format>, WithTiles>(w, &others, &folds, sliced.view(), begin,
                                                                                   std::min(rows, begin + length));
  REQUIRE(sliced.intact());
  for (Index t = 0; t < tokens; ++t)
    for (Index r = 0; r < rows; ++r) REQUIRE(sliced.view()(t, r) == y.view()(t, r));
}

template <AnyScheme S>
void check_folded_shapes() {
  unsigned seed = 1;
  for (const Shape& s : {Shape{1, 1, 1}, {3, 7, 2}, {17, 65, 17}, {33, 127, 6}, {40, 128, 33}, {7, 513, 16}, {50, 1100, 20}}) {
    check(mild_weights<S>({s.rows, s.cols}, seed), s.tokens, seed);
    check(some_weights<S>({s.rows, s.cols}, seed), s.tokens, seed, false);
    ++seed;
  }
}

}  // namespace

TEST_CASE("folded rows multiply as their bytes and one scale") {
  check_folded_shapes<Scheme<Superfloat<2>, PerGroup<64>>>();
  check_folded_shapes<Scheme<Superfloat<3>, PerGroup<128>, ScaleF32>>();
  check_folded_shapes<Scheme<SInt<3>, PerGroup<32>>>();
  check_folded_shapes<Scheme<UInt<2>, PerGroup<50>>>();
  check_folded_shapes<Scheme<Ternary, PerGroup<128>, ScaleF16, Base3>>();
  check_folded_shapes<Scheme<SInt<6>, PerRow, ScaleF32>>();
}

TEST_CASE("rows are folded as far as that adds no more error than allowed") {
  using S = Scheme<SInt<4>, PerGroup<64>, ScaleF32>;
  auto q = mild_weights<S>({64, 640}, 5, 0.1f);
  // In row 20 one group is 30 times as large as the others, which folding would round away.
  for (Index g = 0; g < 10; ++g) q.affines[static_cast<std::size_t>(20 * 10 + g)].scale = g == 3 ? 30.0f : 1.0f;
  const auto packed = pack(q);
  for (const float bound : {0.0f, 0.003f, 0.01f, 1e6f}) {
    CAPTURE(bound);
    const auto w = kernel::tile_weights(packed, Compute::int8_folded, Serial{}, bound);
    if (bound == 0) {
      CHECK_FALSE(w.folded);
      continue;
    }
    CHECK(w.folded->rows == (bound < 0.004f ? 0 : bound < 1 ? 48 : 64));
    CHECK(folded(w, 20) == (bound > 1));
    for (Index r = 0; r < 64; ++r) {
      if (!folded(w, r)) continue;
      const auto bytes = folded_row(packed, w, r);
      const auto codes = packed_reference::row_codes(packed, r);
      double added = 0, quantization = 0;
      for (Index k = 0; k < 640; ++k) {
        const double scale = static_cast<double>(packed.affine(r, k / 64).scale);
        const double off = scale * static_cast<double>(SInt<4>::decode(codes[static_cast<std::size_t>(k)])) -
                           static_cast<double>(w.folded->steps_of(r / 16, 0)[r % 16]) * bytes[static_cast<std::size_t>(k)];
        added += off * off, quantization += scale * scale / 12;
      }
      REQUIRE(added <= static_cast<double>(bound) * quantization * 1.0001);
    }
  }
  check(q, 9, 5, false);
}

TEST_CASE("one scale a row folds without error, and so do zeros") {
  using S = Scheme<SInt<5>, PerRow, ScaleF32>;
  const auto packed = pack(mild_weights<S>({35, 300}, 7));
  const auto w = kernel::tile_weights(packed, Compute::int8_folded, Serial{}, 1e-9f);
  CHECK(w.folded->rows == 35);
  const auto zeros = kernel::tile_weights(pack(QuantizedMatrix<S>({20, 300})), Compute::int8_folded, Serial{}, 1e-9f);
  CHECK(zeros.folded->rows == 20);
}

TEST_CASE("AnyPacked folds where it was prepared for it, and says how many rows") {
  using S = Scheme<Superfloat<3>, PerGroup<64>>;
  const auto tensor = pack(mild_weights<S>({48, 300}, 8));
  const InputAtOddPlace x(13, 300, 0, 8);
  Workspace workspace;
  AnyPacked plain(tensor), prepared(tensor);
  const kernel::Prepared made = prepared.prepare(Compute::int8_folded);
  CHECK(made.tiled);
  CHECK(made.folded_rows == 48);
  CHECK(made.fold_error == default_fold_error);
  const auto product = [&](const AnyPacked& w, Compute compute) {
    Matrix y(13, 48);
    w.matmul(x.view, y.view(), compute, {}, workspace);
    return std::vector<float>(y.data(), y.data() + 13 * 48);
  };
  const auto exact = product(plain, Compute::int8_per_token);
  CHECK(product(plain, Compute::int8_folded) == exact);
  CHECK(product(prepared, Compute::int8_per_token) == exact);
  const auto folds = product(prepared, Compute::int8_folded);
  CHECK(folds != exact);
  CHECK(folds == [&] {
    const auto w = kernel::tile_weights(tensor, Compute::int8_folded);
    Matrix y(13, 48);
    kernel::matmul(w, x.view, y.view(), Compute::int8_folded, workspace, Serial{});
    return std::vector<float>(y.data(), y.data() + 13 * 48);
  }());
  // In memory of the caller the same; the bytes serve any bound on the error.
  const auto bytes = static_cast<std::size_t>(plain.prepared_bytes(Compute::int8_folded));
  AlignedBuffer memory(bytes);
  const auto placed = plain.prepare_into(memory.bytes().first(bytes), Compute::int8_folded);
  REQUIRE(placed);
  CHECK((placed->folded_rows == 48 && placed->fold_error == default_fold_error));
  CHECK(product(plain, Compute::int8_folded) == folds);
  AnyPacked mapped(tensor);
  const auto used = mapped.use_prepared(memory.bytes().first(bytes), Compute::int8_folded, 0, 1e-9f);
  REQUIRE(used);
  CHECK((used->folded_rows == 0 && used->fold_error == 1e-9f));
  CHECK(product(mapped, Compute::int8_folded) == exact);
  REQUIRE(mapped.use_prepared(memory.bytes().first(bytes), Compute::int8_folded)->folded_rows == 48);
  CHECK(product(mapped, Compute::int8_folded) == folds);
  CHECK(prepared.prepare(Compute::int8_folded, {}, 0, 1e-9f).folded_rows == 0);
  CHECK(product(prepared, Compute::int8_folded) == exact);
  // Levels that are moved to a grid fold, too.
  AnyPacked nf4(pack(mild_weights<Scheme<Nf4, PerGroup<64>>>({48, 300}, 9, 0.05f)));
  CHECK_FALSE(nf4.prepare(Compute::int8_folded));
  CHECK(nf4.prepare(Compute::int8_folded, {}, 0.004f, 1e6f).folded_rows >= 0);
}
