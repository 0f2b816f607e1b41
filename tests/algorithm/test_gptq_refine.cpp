// The joint search after the sweep: it lowers the damped objective down to a point where no single change helps.

#include <cmath>
#include <limits>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/scheme/scale_e8m0.hpp>

#include "algorithm/reference_loop.hpp"
#include "support/catch.hpp"
#include "support/hostile_executor.hpp"

using namespace anybit;
using namespace test_layers;

namespace {

struct DampedLayer {
  Matrix w, x;
  Stats stats;
  Square h;  ///< damped
  DampedLayer(Index rows, Index cols, unsigned seed)
      : w(random_matrix(rows, cols, seed, 0.1f)),
        x(correlated(3 * cols, cols, seed + 1)),
        stats(*accumulate<Needs::hessian>(x.view())),
        h(reference::damped(hessian_of(stats), 0.01)) {}
};

template <class S>
double error_of(const DampedLayer& layer, const QuantizedMatrix<S>& q) {
  return objective(layer.w.view(), dequantize(q).view(), layer.h);
}

/// The search stops where it cannot go on: changing any one code, or any one scale that rows own, raises the objective.
template <class Method>
void check_local_optimum(const DampedLayer& layer, Method method) {
  using S = typename Method::scheme;
  method.refine = 0;
  const auto swept = method.quantize(layer.w.view(), layer.stats, {});
  method.refine = 1000;
  const auto q = method.quantize(layer.w.view(), layer.stats, {});
  REQUIRE(q.ok());
  INFO(q->report.requested);
  CHECK(q->report.as_requested());
  const double before = error_of(layer, swept->matrix), after = error_of(layer, q->matrix);
  CHECK(after < 0.99 * before);

  QuantizedMatrix<S> trial = q->matrix;
  const double unresolved = 1e-4 * after;  // sums in float
  double best_code = after, best_scale = after;
  for (std::size_t i = 0; i < trial.codes.size(); i += 3) {
    const auto kept = trial.codes[i];
    for (int c = 0; c < code_count_v<typename S::format>; ++c) {
      trial.codes[i] = static_cast<typename S::code>(c);
      const double e = error_of(layer, trial);
      if (std::isfinite(e)) best_code = std::min(best_code, e);
    }
    trial.codes[i] = kept;
  }
  CHECK(best_code > after - unresolved);
  if constexpr (!S::scale_store::joint && !std::is_same_v<typename S::granularity, PerTensor>)
    for (Affine& a : trial.affines) {
      const Affine kept = a;
      for (const float factor : {0.97f, 0.999f, 1.001f, 1.03f}) {
        a = stored<S>({kept.scale * factor, kept.zero});
        best_scale = std::min(best_scale, error_of(layer, trial));
      }
      a = kept;
    }
  CHECK(best_scale > after - unresolved);
}

}  // namespace

TEST_CASE("joint search ends where no code and no scale can be changed for the better, in any format") {
  const DampedLayer layer(5, 37, 21);
  check_local_optimum(layer, Gptq<UInt<3>, PerGroup<16>>{});
  check_local_optimum(layer, Gptq<UInt<3>, PerGroup<16>>{.act_order = true});
  check_local_optimum(layer, Gptq<UInt<2>, PerGroup<8>, ScaleF32>{.group_aware = true});
  check_local_optimum(layer, Gptq<UInt<4>, PerRow, ScaleBF16>{.range = Range::symmetric});
  check_local_optimum(layer, Gptq<Superfloat<4>, PerGroup<10>>{});
  check_local_optimum(layer, Gptq<Nf4, PerGroup<16>, DoubleQuant<256>>{});
  check_local_optimum(layer, Gptq<Minifloat<2, 1>, PerGroup<32>, ScaleE8M0>{});
  check_local_optimum(layer, Gptq<SInt<3>, PerTensor, ScaleF32>{});
  check_local_optimum(layer, Gptq<Ternary, PerRow, ScaleF32, Base3>{});
}

TEST_CASE("each round of the joint search lowers the damped objective") {
  const DampedLayer layer(70, 100, 31);  // two tiles of rows, the second not full; two blocks of columns, likewise
  Gptq<UInt<2>, PerGroup<32>> method;
  double last = std::numeric_limits<double>::infinity();
  for (const int rounds : {0, 1, 2, 3, 8}) {
    method.refine = rounds;
    const double now = error_of(layer, method.quantize(layer.w.view(), layer.stats, {})->matrix);
    CHECK(now < last);
    last = now;
  }
}

TEST_CASE("best(): less error than the published defaults at equal bits, the same for any number of threads") {
  const DampedLayer layer(130, 96, 41);
  const auto check = [&]<class Method>(const Method& published) {
    const auto plain = published.quantize(layer.w.view(), layer.stats, {});
    const auto best = Method::best().quantize(layer.w.view(), layer.stats, {});
    REQUIRE(best.ok());
    INFO(best->report.requested << ' ' << *best->report.output_error << " against " << *plain->report.output_error);
    CHECK(best->report.as_requested());
    CHECK(best->report.bits_per_weight == plain->report.bits_per_weight);
    CHECK(*best->report.output_error < 0.9 * *plain->report.output_error);
    for (const int threads : {2, 3}) {
      ThreadPool pool(threads);
      QuantizeOptions options;
      options.executor = pool;
      CHECK(Method::best().quantize(layer.w.view(), layer.stats, options)->matrix == best->matrix);
    }
    test_support::HostileExecutor hostile;
    CHECK(Method::best().quantize(layer.w.view(), layer.stats, {.executor = hostile})->matrix == best->matrix);
  };
  check(Gptq<UInt<2>, PerGroup<32>>{});
  check(Gptq<UInt<3>, PerGroup<32>>{});
  check(Gptq<UInt<4>, PerGroup<32>>{});
  check(Gptq<Superfloat<4>, PerGroup<48>>{});
  check(Gptq<Nf4, PerGroup<32>>{});
}

namespace {

/// Neighbouring inputs that tell .9 of each other: x_j = .9 x_(j-1) + sqrt(1 - .81) e.
Matrix autoregressive(Index tokens, Index width, unsigned seed) {
  Matrix x = random_matrix(tokens, width, seed);
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 1; j < width; ++j) x(t, j) = 0.9f * x(t, j - 1) + std::sqrt(0.19f) * x(t, j);
  return x;
}

template <class Method>
void check_best_is_no_worse(const Matrix& w, const Stats& stats, const Square& h) {
  const auto plain = Method{}.quantize(w.view(), stats), best = Method::best().quantize(w.view(), stats);
  REQUIRE((plain.ok() && best.ok()));
  INFO(best->report.requested);
  CHECK(objective(w.view(), dequantize(best->matrix).view(), h) <=
        (1 + 1e-6) * objective(w.view(), dequantize(plain->matrix).view(), h));
}

}  // namespace

TEST_CASE("best: never worse than the defaults, on strongly correlated inputs too, and the report says what was kept") {
  const Matrix w = random_matrix(48, 300, 1, 0.1f), x = autoregressive(900, 300, 2);
  const Stats stats = *accumulate<Needs::hessian>(x.view());
  const Square h = hessian_of(stats);
  check_best_is_no_worse<Gptq<Nf4, PerGroup<48>>>(w, stats, h);
  check_best_is_no_worse<Gptq<LloydMax<5>, PerGroup<48>>>(w, stats, h);
  check_best_is_no_worse<Gptq<SInt<7>, PerGroup<48>>>(w, stats, h);
  check_best_is_no_worse<Gptq<UInt<3>, PerGroup<48>>>(w, stats, h);
}
