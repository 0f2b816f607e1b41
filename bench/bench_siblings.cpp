// The cost of rounding activations beside the products that read them: q, k and v of a layer, prepared, 8-bit activations, one
// thread, one rounding. `us_products` is the products alone, `us_both` rounding and products; `overhead` is the share of
// rounding, `us_alone` each product with a rounding of its own. The name has the bits of a weight, the argument is the number of
// tokens.
//   bench_siblings --benchmark_filter="4/(1|8|512)$"

#include <benchmark/benchmark.h>

#include <string>
#include <utility>
#include <vector>

#include <anybit/kernel/any_packed.hpp>

#include "product_setup.hpp"

namespace {

using namespace anybit;

constexpr Index inputs = 2048;

template <AnyScheme S>
void siblings(benchmark::State& state) {
  const Index tokens = state.range(0);
  std::vector<AnyPacked> weights;
  ActivationPlan plan;
  const ActivationMode mode = Compute::int8_per_token;
  for (const Index rows : {2048, 192, 192}) {
    weights.emplace_back(pack(quantize_nearest<S>(bench::normal(rows, inputs, 1, 0.02f).view()).value()));
    weights.back().prepare(mode.compute());
    const ActivationPlan own = weights.back().plan(mode);
    if (weights.size() == 1)
      plan = own;
    else if (!plan.join(own))
      return state.SkipWithError("the plans do not join");
  }
  const Matrix x = bench::normal(tokens, inputs, 2, 1);
  std::vector<Matrix> y;
  for (const AnyPacked& w : weights) y.emplace_back(tokens, w.extents().rows);
  Workspace workspace;
  const auto products = [&](const Activations& a) {
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i].matmul_rows(a, y[i].view(), 0, weights[i].extents().rows);
  };
  const int times = static_cast<int>(std::max<Index>(64 / tokens, 1));
  const Activations ready = round_activations(x.view(), plan, workspace);
  bench::Samples alone, both, apart, rounding;
  for (auto _ : state) {
    alone.time([&] {
      for (int i = 0; i < times; ++i) products(ready);
    });
    both.time([&] {
      for (int i = 0; i < times; ++i) products(round_activations(x.view(), plan, workspace));
    });
    rounding.time([&] {
      for (int i = 0; i < times; ++i) round_activations(x.view(), plan, workspace);
    });
    apart.time([&] {
      for (int i = 0; i < times; ++i)
        for (std::size_t w = 0; w < weights.size(); ++w) weights[w].matmul(x.view(), y[w].view(), mode, {}, workspace);
    });
  }
  const auto microseconds = [&](const bench::Samples& s) { return bench::median(s.own) / times * 1e6; };
  state.counters["us_products"] = microseconds(alone);
  state.counters["us_both"] = microseconds(both);
  state.counters["us_rounding"] = microseconds(rounding);
  state.counters["us_alone"] = microseconds(apart);
  state.counters["overhead"] = microseconds(rounding) / microseconds(alone);
}

template <int Bits>
void add() {
  auto* const b =
      benchmark::RegisterBenchmark(("siblings/" + std::to_string(Bits)).c_str(), &siblings<Scheme<SInt<Bits>, PerGroup<128>>>);
  for (const Index tokens : {1, 8, 64, 512}) b->Arg(tokens);
}

}  // namespace

int main(int argc, char** argv) {
  add<4>();
  add<8>();
  add<2>();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
