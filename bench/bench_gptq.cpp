// GPTQ of one matrix, 4 bits in groups of 128, its Hessian given, one thread. Seconds of processor time: `whole`; `unverified`,
// without what QuantizeOptions::verify asks for; and the stages of the latter.
//   bench_gptq [--benchmark_filter=gptq/uint4.*4096]
// bench/gptq_torch.py times the published algorithm on the same problem. `product` is the product inside the sweep: `of_peak`
// is its share of the multiply-adds that one thread makes from registers, measured in between.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include <anybit/algorithm/gptq.hpp>

#include "product_setup.hpp"

namespace {

using namespace anybit;
using Method = Gptq<UInt<4>, PerGroup<128>>;

struct Problem {
  Matrix w;
  Stats stats;
  std::vector<double> hessian;

  explicit Problem(Index n)
      : w(bench::normal(n, n, 1, 0.05f)), stats(n, Needs::hessian), hessian(static_cast<std::size_t>(n * n)) {
    std::vector<double> gain(static_cast<std::size_t>(n)), near(gain);
    for (std::size_t i = 0; i < gain.size(); ++i) {
      gain[i] = 1 + 0.5 * std::sin(static_cast<double>(i));
      near[i] = std::pow(0.7, static_cast<double>(i));
    }
    for (std::size_t i = 0; i < gain.size(); ++i)
      for (std::size_t j = 0; j < gain.size(); ++j)
        hessian[i * gain.size() + j] = near[i < j ? j - i : i - j] * gain[i] * gain[j];
    if (!stats.set_hessian({hessian.data(), n, n}, 2 * n).ok()) std::abort();
  }
  MatrixView<const double> h() const { return {hessian.data(), w.cols(), w.cols()}; }
};

void quantize(benchmark::State& state) {
  const Index n = state.range(0);
  const Problem p(n);
  bench::Samples whole, unverified, expand, factor, sweep;
  double error = 0;
  for (auto _ : state) {
    whole.time([&] { error = *Method{}.quantize(p.w.view(), p.stats)->report.output_error; });
    state.PauseTiming();
    unverified.time([&] { benchmark::DoNotOptimize(Method{}.quantize(p.w.view(), p.stats, {.verify = false}).ok()); });
    std::vector<double> copy(p.hessian.size());
    expand.time([&] { p.stats.hessian(MatrixView<double>(copy.data(), n, n)); });
    Report report;
    std::optional<gptq::Prepared> prepared;
    factor.time([&] { prepared = gptq::prepare<double>(p.w.view(), p.h(), 0.01, 0, gptq::ColumnOrder::natural, 128, report); });
    QuantizedMatrix<Method::scheme> q(p.w.extents());
    const AnyQuantized any(q);
    const Index rows = dense::task_rows(n);
    sweep.time([&] {
      for (Index r = 0; r < n; r += rows)
        gptq::sweep<float>(ConstMatrix(prepared->weights.view()), r, std::min(r + rows, n), prepared->factor, prepared->order, {},
                           any);
    });
    state.ResumeTiming();
  }
  state.counters["hessian"] = bench::median(expand.own);
  state.counters["factor"] = bench::median(factor.own);
  state.counters["sweep"] = bench::median(sweep.own);
  state.counters["unverified"] = bench::median(unverified.own);
  state.counters["whole"] = bench::median(whole.own);
  state.counters["error"] = error;
}

void product(benchmark::State& state) {
  constexpr Index depth = 2048, columns = 512, rows = 256;
  const Matrix a = bench::normal(columns, depth, 1, 1), b = bench::normal(depth, rows, 2, 1);
  Matrix c(columns, rows);
  bench::Samples ours, peak;
  for (auto _ : state) {
    ours.time([&] { simd::add_product<float>(a.view(), b.view(), c.view()); });
    peak.time([&] { benchmark::DoNotOptimize(bench::multiply_adds(1000000)); });
  }
  const double rate = static_cast<double>(depth * columns * rows) / bench::median(ours.own);
  state.counters["GMAC/s"] = rate * 1e-9;
  state.counters["of_peak"] = rate / (1e6 * bench::multiply_adds(1) / bench::median(peak.own));
}

}  // namespace

BENCHMARK(quantize)->Name("gptq/uint4/g128")->Arg(1024)->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK(product)->Name("gptq/product")->Unit(benchmark::kMillisecond);
BENCHMARK_MAIN();
