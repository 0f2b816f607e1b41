// What the machine allows: the figures that of_peak and of_probe of the other benchmarks are shares of.

#include <benchmark/benchmark.h>

#include <string>

#include "limits.hpp"

namespace {

using namespace bench;

/// `work(steps)` on every thread; it returns what it has done.
template <class Work>
void peak(const std::string& name, Work work) {
  for (const Index threads : {1, 2})
    benchmark::RegisterBenchmark((name + "/threads:" + std::to_string(threads)).c_str(),
                                 [=](benchmark::State& state) {
                                   constexpr Index steps = 200000;
                                   ThreadPool pool(threads);
                                   for (auto _ : state)
                                     pool.parallel_for(threads, 1, [&](Index begin, Index end) {
                                       for (Index t = begin; t < end; ++t) work(steps);
                                     });
                                   state.counters["GMAC/s"] =
                                       benchmark::Counter(static_cast<double>(threads * steps) * work(1) * 1e-9,
                                                          benchmark::Counter::kIsIterationInvariantRate);
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
}

void reading(const char* name, std::size_t bytes) {
  for (const Index threads : {1, 2})
    benchmark::RegisterBenchmark(
        (std::string(name) + "/threads:" + std::to_string(threads)).c_str(),
        [=](benchmark::State& state) {
          ThreadPool pool(threads);
          const Reading read(bytes * static_cast<std::size_t>(threads));
          const Index repeats = std::max<Index>(static_cast<Index>((std::size_t{16} << 20) / read.bytes()), 1);
          for (auto _ : state)
            for (Index i = 0; i < repeats; ++i) read(pool);
          state.counters["GB/s"] = benchmark::Counter(static_cast<double>(read.bytes()) * static_cast<double>(repeats) * 1e-9,
                                                      benchmark::Counter::kIsIterationInvariantRate);
        })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  for (int bits = 1; bits <= 8; ++bits) peak("dot/bits:" + std::to_string(bits), dot_products_by_bits[bits - 1]);
  peak("multiply_add/f32", [](Index steps) { return multiply_adds(steps); });
  reading("read/16KiB_a_thread", 16 << 10);
  reading("read/256KiB_a_thread", 256 << 10);
  reading("read/8MiB_a_thread", 8 << 20);
  reading("read/320MB", 320000000 / 2);
  benchmark::RunSpecifiedBenchmarks();
}
