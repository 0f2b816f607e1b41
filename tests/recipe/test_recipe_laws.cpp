// The laws of algorithms and transforms, on ours and on those of a third party, which know nothing but the concepts.

#include <string>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptaq.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/hqq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/algorithm/qronos.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/prune/pruned_nearest.hpp>
#include <anybit/prune/sparse_gptq.hpp>
#include <anybit/prune/wanda.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/testing/transform_laws.hpp>
#include <anybit/transform/awq.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "support/catch.hpp"

using namespace anybit;
using testing::check_algorithm_laws;
using testing::check_transform_laws;

namespace third_party {

/// Rounds to nearest on one grid a row, from the row's mean magnitude.
struct MeanGrid {
  using scheme = Scheme<SInt<4>, PerRow, ScaleF32>;
  static constexpr Needs needs = Needs::none;
  float width = 2.5f;

  std::string describe() const { return "mean_grid(width=" + std::to_string(width).substr(0, 3) + ")"; }
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats&, const QuantizeOptions& options) const {
    ANYBIT_TRY_STATUS(grid::check_weights(w));
    Quantized<scheme> q{QuantizedMatrix<scheme>(w.extents()), {}};
    for (Index r = 0; r < w.rows; ++r) {
      double sum = 0;
      for (const float v : w.row(r)) sum += double{std::fabs(v)};
      const Affine a = stored<scheme>({width * static_cast<float>(sum / static_cast<double>(w.cols)) / 7, 0});
      q.matrix.affine(r, 0) = a;
      quantize_values<SInt<4>>(w.row(r), a, q.matrix.row(r));
    }
    q.report.requested = q.report.done = describe() + " " + std::string(scheme::name.view());
    q.matrix.provenance = describe();
    ANYBIT_TRY_STATUS(check_strict(q.report, options));
    recipe::measure(w, AnyQuantized(q.matrix), {}, Stats(), q.report);
    return q;
  }
};

/// Divides every input by a power of two near its largest magnitude, where grids are told (by a trait) to be able to follow.
struct PowerOfTwo {
  static constexpr Needs needs = Needs::abs_max;
  static constexpr Stage stage = static_cast<Stage>(15);
  std::string describe() const { return "power_of_two"; }
  template <Algorithm A>
  Status apply(Siblings& set, const A&, const QuantizeOptions& options) const {
    ANYBIT_TRY_STATUS(recipe::check_stats(*set.stats, needs, set.weights[0].view().cols, "power_of_two"));
    const auto maxima = set.stats->abs_max();
    std::vector<float> s = recipe::max_of_tied({maxima.begin(), maxima.end()}, options.tied);
    for (float& v : s) v = v > 0 ? std::exp2(std::round(std::log2(v) / 2)) : 1.0f;
    recipe::scale_inputs(set, s);
    set.remarks.push_back("power_of_two: scaled");
    return Ok{};
  }
};

}  // namespace third_party

template <>
struct anybit::TransformTraits<third_party::PowerOfTwo> : anybit::TransformDefaults<third_party::PowerOfTwo> {
  static constexpr bool folds_into_linear = false;
};

static_assert(Algorithm<third_party::MeanGrid> && Transform<third_party::PowerOfTwo>);
static_assert(!AlgorithmTraits<third_party::MeanGrid>::has_feedback);
static_assert(!TransformTraits<third_party::PowerOfTwo>::folds_into_linear && TransformTraits<Awq>::folds_into_linear);
static_assert(Transform<SmoothQuant> && Transform<SmoothQuantSearch> && Transform<Awq>);

namespace {

/// Lacks apply().
struct NoApply {
  static constexpr Needs needs = Needs::none;
  static constexpr Stage stage = Stage::scaling;
  std::string describe() const { return "none"; }
};
/// Its apply() leaves outputs other than they were.
struct Halves : NoApply {
  template <Algorithm A>
  Status apply(Siblings& set, const A&, const QuantizeOptions&) const {
    const MutableMatrix w = set.weights[0].own();
    for (float& v : w.row(0)) v /= 2;
    return Ok{};
  }
};
/// Scales as they were before the store.
struct Unstored : third_party::MeanGrid {
  using scheme = Scheme<SInt<4>, PerRow, ScaleF16>;
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& options) const {
    ANYBIT_TRY(const auto q, MeanGrid::quantize(w, stats, options));
    Quantized<scheme> mine{QuantizedMatrix<scheme>(w.extents()), q.report};
    mine.matrix.codes = q.matrix.codes, mine.matrix.affines = q.matrix.affines, mine.matrix.provenance = q.matrix.provenance;
    return mine;
  }
};
static_assert(!Transform<NoApply> && Transform<Halves>);

}  // namespace

TEST_CASE("laws of algorithms: nearest and its searches") {
  CHECK(check_algorithm_laws(Nearest<UInt<4>, PerGroup<16>>{}) == "");
  CHECK(check_algorithm_laws(Nearest<UInt<3>, PerGroup<16>>{.range = Range::min_max, .search = Search::mse}) == "");
  CHECK(check_algorithm_laws(Nearest<SInt<8>, PerRow, ScaleF32>{.search = Search::least_squares, .weighted = true}) == "");
  CHECK(check_algorithm_laws(Nearest<Nf4, PerGroup<32>, DoubleQuant<256>>{.search = Search::half_quadratic}) == "");
  CHECK(check_algorithm_laws(Nearest<Superfloat<5>, PerTensor>{}) == "");
}

TEST_CASE("laws of algorithms: error feedback, with and without pruning") {
  CHECK(check_algorithm_laws(Gptq<UInt<4>, PerGroup<16>>{}) == "");
  CHECK(check_algorithm_laws(Gptq<UInt<4>, PerGroup<16>>{.act_order = true}) == "");
  CHECK(check_algorithm_laws(Gptq<Superfloat<4>, PerGroup<13>>{.static_groups = true, .drift = 0.25f}) == "");
  CHECK(check_algorithm_laws(Gptq<UInt<3>, PerGroup<16>>::best()) == "");
  CHECK(check_algorithm_laws(PrunedNearest<Wanda, SInt<4>, PerGroup<16>>{}) == "");
  CHECK(check_algorithm_laws(SparseGptq<SInt<4>, PerGroup<16>>{}) == "");
  CHECK(check_algorithm_laws(
            SparseGptq<SInt<4>, PerGroup<16>>{.pruner = {.sparsity = Sparsity::n_of_m(2, 4)}, .pruned_grids = true}) == "");
}

TEST_CASE("methods under their papers' names: the same codes as by the options of the general ones") {
  CHECK(check_algorithm_laws(Hqq<UInt<4>, PerGroup<16>>{.search = {.norm = 0.6f}}) == "");
  CHECK(check_algorithm_laws(Gptaq<UInt<4>, PerGroup<16>>{.gptq = {.act_order = true}}) == "");
  CHECK(check_algorithm_laws(Qronos<UInt<4>, PerGroup<16>>{.gptq = {.group_aware = true}}) == "");
  const Matrix w = testing::normal_matrix(9, 40, 1);
  CHECK(Hqq<UInt<4>, PerGroup<16>>{}.quantize(w.view())->matrix ==
        Nearest<UInt<4>, PerGroup<16>>{.search = Search::half_quadratic}.quantize(w.view())->matrix);
  const Stats stats = testing::example_stats(Needs::input_drift, testing::example_inputs(90, 40, 2));
  const auto gptaq = Gptaq<UInt<4>, PerGroup<16>>{}.quantize(w.view(), stats);
  CHECK(gptaq->matrix == Gptq<UInt<4>, PerGroup<16>>{.drift = 0.25f}.quantize(w.view(), stats)->matrix);
  CHECK(gptaq->report.requested == "gptq(damp=0.01, drift=0.25) uint4/g16/f16/bits");
}

TEST_CASE("laws of transforms, in front of rounding and of error feedback") {
  const Nearest<UInt<4>, PerGroup<16>> nearest{};
  const Gptq<UInt<4>, PerGroup<16>> gptq{};
  CHECK(check_transform_laws(SmoothQuant{.alpha = 0.7f}, nearest) == "");
  CHECK(check_transform_laws(SmoothQuantSearch{}, nearest) == "");
  CHECK(check_transform_laws(Awq{}, nearest) == "");
  CHECK(check_transform_laws(Awq{.scaling = AwqScaling::both, .clip = false}, nearest) == "");
  CHECK(check_transform_laws(Awq{}, gptq) == "");
  CHECK(check_transform_laws(SmoothQuant{}, gptq) == "");
}

TEST_CASE("a transform and an algorithm of a third party compose with ours and with each other") {
  CHECK(check_algorithm_laws(third_party::MeanGrid{}) == "");
  CHECK(check_transform_laws(third_party::PowerOfTwo{}, third_party::MeanGrid{.width = 3}) == "");
  CHECK(check_transform_laws(third_party::PowerOfTwo{}, Gptq<UInt<4>, PerGroup<16>>{}) == "");
  CHECK(check_transform_laws(Awq{}, third_party::MeanGrid{}) == "");
  const auto all = SmoothQuant{} | third_party::PowerOfTwo{} | Awq{} | third_party::MeanGrid{};
  CHECK(all.describe() == "smooth_quant(alpha=0.50) | power_of_two | awq | mean_grid(width=2.5)");
  const Matrix w = testing::normal_matrix(6, 20, 1), x = testing::example_inputs(50, 20, 2);
  const ConstMatrix one[] = {w.view()};
  const auto q = quantize_siblings(all, one, *accumulate<decltype(all)::needs>(x.view()));
  REQUIRE(q.ok());
  CHECK(q->matrices[0].report.remarks[0] == "power_of_two: scaled");
  CHECK(q->input_scale.size() == 20);
}

TEST_CASE("the laws find what breaks them") {
  CHECK(check_transform_laws(Halves{}, third_party::MeanGrid{}).find("outputs changed") != std::string::npos);
  CHECK(check_algorithm_laws(Unstored{}).find("scales are not as stored") != std::string::npos);
}
