// Products by matrix instructions, on emulated tiles, against products by vectors: the same bits.

#include <anybit/kernel/matrix_products.hpp>

#include <anybit/kernel/repack.hpp>

#include <thread>

#if defined(__x86_64__) && defined(__GNUC__)
#include <anybit/kernel/x86/amx/tiles.hpp>
#endif
#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "kernel/products.hpp"
#include "support/emulated_tiles.hpp"

using namespace anybit;
using namespace products;

namespace {

using Native = emulated::WithTiles<kernel::native_arch>;

struct LaterTiles : emulated::Tiles {
  static constexpr Index least_tokens = 21;
};
struct FromTokens21 : kernel::native_arch {
  using Matrix = LaterTiles;
};

template <AnyScheme S>
using codes_of = kernel::tile_codes_t<typename S::format>;

/// Rows begin .. end - 1 of y = x W^T by emulated tiles.
template <AnyScheme S, class Arch = Native>
void by_tiles(const kernel::TiledWeights& w, ConstMatrix x, MutableMatrix y, ActivationMode mode, Index begin, Index end) {
  Workspace workspace;
  const auto a =
      kernel::tile_activations<Arch>(kernel::round_activations(x, w.group, mode, workspace, Serial{}), w, workspace, Serial{});
  REQUIRE(a.by_matrix == emulated::Tiles::permitted);
  const long products = emulated::Tiles::products, releases = emulated::Tiles::releases;
  kernel::tiled_rows<codes_of<S>, Arch>(w, a, y, begin, end);
  CHECK_FALSE(emulated::Tiles::configured());
  CHECK(emulated::Tiles::releases - releases == (a.by_matrix ? 1 : 0));
  CHECK((emulated::Tiles::products > products) == a.by_matrix);
}

bool same(ConstMatrix a, ConstMatrix b) {
  for (Index t = 0; t < a.rows; ++t)
    if (std::memcmp(a.row(t).data(), b.row(t).data(), static_cast<std::size_t>(a.cols) * sizeof(float)) != 0) return false;
  return true;
}

template <AnyScheme S, class Arch = Native>
void check(const QuantizedMatrix<S>& q, ConstMatrix x, ActivationMode mode) {
  const Index rows = q.extents.rows;
  CAPTURE(std::string(S::name.view()), std::string(name(mode.compute())), rows, x.cols, x.rows);
  const auto packed = pack(q);
  const kernel::TiledWeights tiled = kernel::tile_weights(packed, mode.compute());
  Workspace workspace;
  Matrix expected(x.rows, rows);
  if constexpr (std::is_same_v<Arch, Native>) {
    matmul(packed, x, expected.view(), mode, workspace);
  } else {  // by vectors of its own: whether loops round once or twice is the compiler's choice
    const auto a = kernel::tile_activations<typename Arch::Vectors>(
        kernel::round_activations(x, tiled.group, mode, workspace, Serial{}), tiled, workspace, Serial{});
    kernel::tiled_rows<codes_of<S>, typename Arch::Vectors>(tiled, a, expected.view(), 0, rows);
  }
  Guarded whole(x.rows, rows, 2), sliced(x.rows, rows, 0);
  by_tiles<S, Arch>(tiled, x, whole.view(), mode, 0, rows);
  REQUIRE(whole.intact());
  REQUIRE(same(whole.view(), expected.view()));
  for (Index begin = 0, length = 5; begin < rows; begin += length, length = length * 3 % 41 + 1)
    by_tiles<S, Arch>(tiled, x, sliced.view(), mode, begin, std::min(rows, begin + length));
  REQUIRE(sliced.intact());
  REQUIRE(same(sliced.view(), expected.view()));
}

template <AnyScheme S, class Arch = Native>
void check_matrix_shapes() {
  unsigned seed = 1;
  for (const Shape& s : {Shape{1, 1, 1},
                         {3, 7, 2},
                         {17, 65, 17},
                         {33, 127, 6},
                         {40, 128, 33},
                         {7, 513, 16},
                         {19, 640, 15},
                         {50, 1100, 20},
                         {65, 300, 70}}) {
    const InputAtOddPlace x(s.tokens, s.cols, static_cast<Index>(seed % 3), seed);
    const ActivationMode mode = seed % 3 == 0   ? ActivationMode::int8_static(0.004f)
                                : seed % 3 == 1 ? Compute::int8_per_token
                                                : Compute::int8_per_block;
    check<S, Arch>(some_weights<S>({s.rows, s.cols}, seed), x.view, mode);
    ++seed;
  }
}

}  // namespace

TEST_CASE("tiles give the bits of vectors at every width") {
  check_matrix_shapes<Scheme<Superfloat<1>, PerGroup<128>>>();
  check_matrix_shapes<Scheme<Superfloat<2>, PerGroup<32>>>();
  check_matrix_shapes<Scheme<Superfloat<3>, PerGroup<64>, ScaleF32>>();
  check_matrix_shapes<Scheme<Superfloat<4>, PerGroup<128>>>();
  check_matrix_shapes<Scheme<SInt<4>, PerGroup<32>>>();
  check_matrix_shapes<Scheme<Superfloat<5>, PerGroup<96>, ScaleBF16>>();
  check_matrix_shapes<Scheme<SInt<6>, PerRow>>();
  check_matrix_shapes<Scheme<Superfloat<7>, PerGroup<50>>>();
  check_matrix_shapes<Scheme<SInt<8>, PerTensor, ScaleF32>>();
}

TEST_CASE("tiles with zero points: subtracted from bytes where those have room and from sums elsewhere") {
  check_matrix_shapes<Scheme<UInt<2>, PerGroup<64>>>();
  check_matrix_shapes<Scheme<UInt<4>, PerGroup<32>>>();
  check_matrix_shapes<Scheme<UInt<7>, PerGroup<128>>>();
  check_matrix_shapes<Scheme<UInt<8>, PerGroup<128>>>();
  check_matrix_shapes<Scheme<UInt<8>, PerGroup<1>>>();
}

TEST_CASE("tiles with codebooks on a grid and with three levels") {
  check_matrix_shapes<presets::Mxfp4>();
  check_matrix_shapes<Scheme<Minifloat<2, 3>, PerRow>>();
  check_matrix_shapes<Scheme<Ternary, PerGroup<128>, ScaleF16, Base3>>();
}

TEST_CASE("tiles beside plain loops") {
  check_matrix_shapes<Scheme<Superfloat<4>, PerGroup<64>>, emulated::WithTiles<kernel::Generic>>();
  check_matrix_shapes<Scheme<UInt<8>, PerGroup<128>>, emulated::WithTiles<kernel::Generic>>();
}

TEST_CASE("tiles with the largest codes and activations everywhere") {
  const auto extremes = [&]<AnyScheme S>(std::type_identity<S>) {
    for (const Fill fill : {Fill::lowest, Fill::highest})
      for (const float value : {1.0f, -1.0f}) {
        InputAtOddPlace x(18, 1024, 0, 1);
        std::fill(x.storage.begin(), x.storage.end(), value);
        check<S>(some_weights<S>({34, 1024}, 5, fill), x.view, Compute::int8_per_token);
      }
  };
  extremes(std::type_identity<Scheme<SInt<8>, PerRow, ScaleF32>>());
  extremes(std::type_identity<Scheme<UInt<8>, PerGroup<512>>>());
  extremes(std::type_identity<Scheme<UInt<7>, PerGroup<512>>>());
  extremes(std::type_identity<Scheme<Superfloat<4>, PerGroup<512>>>());
}

TEST_CASE("tiles: more tokens than are multiplied at once; NaN touches its own token only") {
  using S = Scheme<Superfloat<4>, PerGroup<128>>;
  InputAtOddPlace x(300, 260, 0, 2);
  x.storage[1 + 17 * 260 + 5] = std::numeric_limits<float>::quiet_NaN();
  x.storage[1 + 290 * 260] = std::numeric_limits<float>::infinity();
  const auto packed = pack(some_weights<S>({37, 260}, 3));
  const auto tiled = kernel::tile_weights(packed, Compute::int8_per_block);
  Workspace workspace;
  Matrix expected(300, 37), found(300, 37);
  matmul(packed, x.view, expected.view(), Compute::int8_per_block, workspace);
  by_tiles<S>(tiled, x.view, found.view(), Compute::int8_per_block, 0, 37);
  for (Index t = 0; t < 300; ++t)
    for (Index r = 0; r < 37; ++r) {
      REQUIRE(is_nan(found(t, r)) == (t == 17 || t == 290));
      if (!is_nan(found(t, r))) REQUIRE(found(t, r) == expected(t, r));
    }
}

TEST_CASE("without permission or with few tokens vectors multiply") {
  using S = Scheme<UInt<5>, PerGroup<64>>;
  const InputAtOddPlace x(20, 200, 0, 7);
  emulated::Tiles::permitted = false;
  check<S>(some_weights<S>({30, 200}, 7), x.view, Compute::int8_per_token);
  emulated::Tiles::permitted = true;

  const auto tiled = kernel::tile_weights(pack(some_weights<S>({30, 200}, 7)), Compute::int8_per_token);
  Workspace workspace;
  const auto rounded = kernel::round_activations(x.view, 64, Compute::int8_per_token, workspace, Serial{});
  CHECK_FALSE(kernel::tile_activations<FromTokens21>(rounded, tiled, workspace, Serial{}).by_matrix);
}

#if defined(__x86_64__) && defined(__GNUC__)
TEST_CASE("a processor without tiles is not asked for them") {
  if ((kernel::detail::processor_features() & kernel::detail::amx_tile) == 0) CHECK_FALSE(kernel::AmxTiles::available());
}
#endif

TEST_CASE("tiles on threads that never used them and after a fork") {
  using S = Scheme<Superfloat<4>, PerGroup<64>>;
  const InputAtOddPlace x(40, 300, 0, 9);
  const auto tiled = kernel::tile_weights(pack(some_weights<S>({150, 300}, 9)), Compute::int8_per_token);
  Workspace workspace;
  Matrix expected(40, 150), found(40, 150);
  kernel::matmul(tiled, x.view, expected.view(), Compute::int8_per_token, workspace, Serial{});
  const auto a = kernel::tile_activations<Native>(
      kernel::round_activations(x.view, 64, Compute::int8_per_token, workspace, Serial{}), tiled, workspace, Serial{});
  std::vector<std::thread> threads;
  for (Index i = 0; i < 3; ++i)
    threads.emplace_back([&, i] { kernel::tiled_rows<codes_of<S>, Native>(tiled, a, found.view(), i * 50, i * 50 + 50); });
  for (std::thread& t : threads) t.join();
  CHECK(same(found.view(), expected.view()));
#if defined(__unix__)
  std::fill_n(found.data(), 40 * 150, 0.0f);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    kernel::tiled_rows<codes_of<S>, Native>(tiled, a, found.view(), 0, 150);
    _exit(same(found.view(), expected.view()) ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
#endif
}
