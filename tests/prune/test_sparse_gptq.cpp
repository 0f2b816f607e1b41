#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/prune/pruned_nearest.hpp>
#include <anybit/prune/sparse_gptq.hpp>

#include <string>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/prune/wanda.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "algorithm/random_layers.hpp"
#include "prune/second_moments.hpp"
#include "support/catch.hpp"

using namespace anybit;
using test_support::second_moments;
using namespace test_layers;

namespace {

/// Zeros where they must be, errors as reported, never worse than magnitudes and plain rounding.
template <class Method>
void check_sound(const Method& method, const Sparsity& sparsity, const Matrix& w, const Stats& stats) {
  using S = typename Method::scheme;
  const auto q = method.quantize(w.view(), stats, {});
  INFO((q.ok() ? q->report.requested : q.error().message));
  REQUIRE(q.ok());
  for (const Affine a : q->matrix.affines) REQUIRE((std::isfinite(a.scale) && std::isfinite(a.zero)));
  const Matrix back = dequantize(q->matrix);
  const Mask zeros = mask_of_zeros(back.view());
  if (sparsity.is_pattern())
    CHECK(check_pattern(zeros, sparsity).ok());
  else
    CHECK(zeros.count() >= w.rows() * sparsity.count(w.cols()));  // Wanda counts by rows
  CHECK(q->report.weight_error == Approx(relative_error(w.view(), back.view())));
  const Square h = hessian_of(stats);
  const double mine = objective(w.view(), back.view(), h), whole = objective(w.view(), Matrix(w.rows(), w.cols()).view(), h);
  CHECK(*q->report.output_error == Approx(std::sqrt(mine / whole)).epsilon(1e-3).margin(1e-6));
  const auto plain = Magnitude{sparsity}.prune(w.view());
  REQUIRE(plain.ok());
  if constexpr (requires { method.pruned_grids; }) {
    const auto nearest = grid::round_to_grid<S>(plain->weights.view(), method.grid_fit());
    CHECK(mine <= objective(w.view(), dequantize(nearest).view(), h) * (1 + 1e-6));
  }
  CHECK(q->report.bits_per_weight == Approx(pack(q->matrix).bits_per_weight()));
}

}  // namespace

TEST_CASE("pruning joint with rounding, for every kind of format and odd sizes") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {3, 31}, {67, 33}, {65, 130}}) {
    INFO(rows << " x " << cols);
    const Matrix w = random_matrix(rows, cols, 4, 0.1f), x = correlated(60, cols, 5);
    const Stats stats = second_moments(x);
    for (const Sparsity& s : {Sparsity{.share = 0.5}, Sparsity::n_of_m(2, 4)}) {
      check_sound(SparseGptq<UInt<4>, PerGroup<32>>{.pruner = {.sparsity = s}}, s, w, stats);
      check_sound(
          SparseGptq<Superfloat<4>, PerGroup<7>>{
              .pruner = {.sparsity = s, .block = 5}, .search = Search::mse, .pruned_grids = true},
          s, w, stats);
      check_sound(SparseGptq<Nf4, PerGroup<64>, DoubleQuant<256>>{.pruner = {.sparsity = s}}, s, w, stats);
      check_sound(SparseGptq<Ternary, PerTensor, ScaleF32, Base3>{.pruner = {.sparsity = s}}, s, w, stats);
      check_sound(PrunedNearest<Wanda, UInt<4>, PerGroup<32>>{.pruner = {s}}, s, w, stats);
    }
    const Sparsity s = Sparsity::n_of_m(2, 4);
    check_sound(SparseGptq<SInt<4>, PerGroup<128>, ScaleF16, TwoOfFour<>>{.pruner = {.sparsity = s}}, s, w, stats);
  }
}

TEST_CASE("one sweep beats pruning first and rounding afterwards, whichever weights its grids are found on") {
  const Matrix w = random_matrix(64, 128, 4, 0.1f), x = correlated(400, 128, 5);
  const Stats stats = second_moments(x);
  const SparseGpt pruner{.sparsity = Sparsity::n_of_m(2, 4)};
  using S = presets::SparseInt<4>;
  const auto error = [&](const auto& method) { return *method.quantize(w.view(), stats)->report.output_error; };
  const double apart = error(PrunedNearest<SparseGpt, S>{.pruner = pruner}),
               alone = *pruner.prune(w.view(), stats)->report.output_error;
  for (const bool pruned_grids : {false, true}) {
    const double joint = error(SparseGptq<S>{.pruner = pruner, .pruned_grids = pruned_grids});
    CHECK(joint < 0.99 * apart);
    CHECK(joint > alone);
  }
}

TEST_CASE("2:4 tensors take 2.75 bits a weight at 4 bits, and mean what a bit stream means") {
  using Sparse = Scheme<SInt<4>, PerGroup<128>, ScaleF16, TwoOfFour<>>;
  using Dense = Scheme<SInt<4>, PerGroup<128>, ScaleF16>;
  const Matrix w = random_matrix(32, 512, 4, 0.1f), x = correlated(300, 512, 5);
  const auto q = SparseGptq<Sparse>{.pruner = {.sparsity = Sparsity::n_of_m(2, 4)}}.quantize(w.view(), second_moments(x));
  REQUIRE(q.ok());
  REQUIRE(check_packable(q->matrix).ok());
  const auto t = pack(q->matrix);
  CHECK(t.bits_per_weight() == 2.75 + 16.0 / 128);
  CHECK(q->report.bits_per_weight == t.bits_per_weight());
  CHECK(unpack(t) == q->matrix);
  QuantizedMatrix<Dense> same(w.extents());
  same.codes = q->matrix.codes;
  same.affines = q->matrix.affines;
  const Matrix a = dequantize(t), b = dequantize(pack(same));
  CHECK(std::equal(a.data(), a.data() + a.extents().size(), b.data()));
}

TEST_CASE("a matrix that is not 2:4 is refused by name") {
  using S = Scheme<SInt<4>, PerGroup<128>, ScaleF16, TwoOfFour<>>;
  Matrix w = random_matrix(4, 12, 4);
  const auto status = check_packable(quantize_nearest<S>(w.view()).value());
  REQUIRE(!status.ok());
  CHECK(status.error().message.find("row 0, column ") == 0);
  CHECK(status.error().message.find("layout 2of4 has no place") != std::string::npos);
  CHECK(check_packable(PrunedNearest<Magnitude, S>{{Sparsity::n_of_m(2, 4)}}.quantize(w.view(), {})->matrix).ok());
  CHECK(check_packable(quantize_nearest<Scheme<SInt<4>>>(w.view()).value()).ok());
}

TEST_CASE("pruning algorithms stand at the end of recipes") {
  static_assert(Algorithm<SparseGptq<UInt<4>>> && Algorithm<PrunedNearest<Wanda, UInt<4>>>);
  static_assert(Pruner<Magnitude> && Pruner<Wanda> && Pruner<SparseGpt>);
  const Matrix w = random_matrix(16, 64, 4, 0.1f), x = correlated(200, 64, 5);
  const Stats stats = second_moments(x);
  const auto recipe = SmoothQuant{} | PrunedNearest<Wanda, UInt<4>, PerGroup<32>>{};
  CHECK(recipe.describe().find(" | wanda(50%) then nearest") != std::string::npos);
  const ConstMatrix one[] = {w.view()};
  const auto result = quantize_siblings(recipe, one, stats);
  REQUIRE(result.ok());
  const Matrix back = dequantize(result->matrices[0].matrix);
  CHECK(mask_of_zeros(back.view()).count() >= 16 * 32);
}

TEST_CASE("joint pruning gives equal codes for any number of threads, and says what went wrong") {
  const Matrix w = random_matrix(200, 70, 4, 0.1f), x = correlated(100, 70, 5);
  const Stats stats = second_moments(x);
  const SparseGptq<UInt<4>, PerGroup<32>> method{};
  const auto serial = method.quantize(w.view(), stats);
  for (const int threads : {2, 8}) {
    ThreadPool pool(threads);
    CHECK(method.quantize(w.view(), stats, {.executor = pool})->matrix == serial->matrix);
  }
  using Method = SparseGptq<UInt<4>, PerGroup<32>>;
  const auto message = [&](const Method& m, const Stats& s) { return m.quantize(w.view(), s).error().message; };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  CHECK(has(message({.pruner = {.sparsity = {.share = 2}}}, stats), "sparsegptq: sparsity is 2.0"));
  CHECK(has(message({.pruner = {.sparsity = Sparsity::n_of_m(9, 4)}}, stats), "9:4"));
  CHECK(has(message({.search = Search::mse, .shrink = {.steps = 0}}, stats), "steps is 0"));
  CHECK(has(message({}, Stats(70, Needs::hessian)), "0 tokens"));
  CHECK(has(message({}, Stats(71, Needs::hessian)), "71 inputs"));

  const Stats dead = second_moments(Matrix(30, 70));
  const auto fallen = method.quantize(w.view(), dead);
  REQUIRE(fallen.ok());
  CHECK(fallen->report.done.find("magnitude(50%) then nearest") == 0);
  CHECK(!fallen->report.as_requested());
  CHECK(!method.quantize(w.view(), dead, {.strict = true}).ok());
}
