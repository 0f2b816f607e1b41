// Floats to packed bytes by plain rounding and back, one thread, from the L2 cache: GB/s counts the floats (4 bytes a weight)
// that go in (quantize) or come out (dequantize), so that all schemes compare. `bytes` are those of the packed tensor, `error` is
// the relative error of what was timed, `of_memcpy` the share of what memcpy reached in between on the same floats.
//   bench_quantize --benchmark_filter='quantize/superfloat'

#include <benchmark/benchmark.h>

#include <cstring>
#include <string>

#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack_nearest.hpp>
#include <anybit/tensor/requantize.hpp>

#include "product_setup.hpp"

namespace {

using namespace anybit;

constexpr Extents shape{64, 1024};  // 256 KiB of floats
constexpr double float_bytes = 4.0 * static_cast<double>(shape.size());

const Matrix& some_weights() {
  static const Matrix w = bench::normal(shape.rows, shape.cols, 1, 0.02f);
  return w;
}

/// Times `work` in turns with memcpy.
template <class Work>
void run(benchmark::State& state, double bytes, Work work) {
  bench::Samples ours, copies;
  const Matrix& from = some_weights();
  Matrix to(shape.rows, shape.cols);
  constexpr int repeats = 8;
  for (auto _ : state) {
    work();
    ours.time([&] {
      for (int i = 0; i < repeats; ++i) work();
    });
    state.PauseTiming();
    for (int warm = 0; warm < 2; ++warm) {
      const auto copy = [&] {
        for (int i = 0; i < repeats; ++i) {
          std::memcpy(to.data(), from.data(), static_cast<std::size_t>(float_bytes));
          benchmark::DoNotOptimize(to.data());
          benchmark::ClobberMemory();
        }
      };
      warm == 0 ? copy() : copies.time(copy);
    }
    state.ResumeTiming();
  }
  const double rate = float_bytes * repeats / bench::median(ours.wall);
  state.counters["GB/s"] = rate * 1e-9;
  state.counters["bytes"] = bytes;
  state.counters["of_memcpy"] = rate / (float_bytes * repeats / bench::median(copies.wall));
}

template <AnyScheme S>
void add() {
  const std::string name(S::name.view());
  benchmark::RegisterBenchmark(("quantize/" + name).c_str(), [](benchmark::State& state) {
    auto t = PackedTensor<S>::allocate(shape, false, "nearest");
    run(state, static_cast<double>(t.bytes().payload_bytes()), [&] {
      benchmark::DoNotOptimize(pack_nearest(some_weights().view(), t).ok());
      benchmark::DoNotOptimize(t.bytes().codes().data());
      benchmark::ClobberMemory();
    });
    state.counters["error"] = matrix_distance(some_weights().view(), dequantize(t).view()).relative;
  });
  benchmark::RegisterBenchmark(("dequantize/" + name).c_str(), [](benchmark::State& state) {
    const PackedTensor<S> t = pack_nearest<S>(some_weights().view()).value();
    Matrix out(shape.rows, shape.cols);
    run(state, static_cast<double>(t.bytes().payload_bytes()), [&] {
      dequantize(t, out.view());
      benchmark::DoNotOptimize(out.data());
      benchmark::ClobberMemory();
    });
    state.counters["error"] = matrix_distance(some_weights().view(), out.view()).relative;
  });
}

template <int Bits>
using Wide = Scheme<Superfloat<Bits>, PerGroup<128>>;
template <int Bits>
using Fine = Scheme<Superfloat<Bits>, PerGroup<32>>;
using Benched =
    TypeList<Wide<1>, Wide<2>, Wide<3>, Wide<4>, Wide<5>, Wide<6>, Wide<7>, Wide<8>, Fine<1>, Fine<2>, Fine<3>, Fine<4>, Fine<5>,
             Fine<6>, Fine<7>, Fine<8>, presets::Int<4>, presets::Int<8>, presets::Int8Group32, presets::Int8PerRow,
             presets::AsymmetricInt<2>, presets::AsymmetricInt<3>, presets::AsymmetricInt<4>, presets::AsymmetricInt4Group32,
             Scheme<UInt<8>>, presets::Mxfp4, Scheme<Minifloat<2, 1>>, Scheme<Minifloat<3, 2>>,
             Scheme<Minifloat<3, 2>, PerGroup<32>>, Scheme<Minifloat<4, 3>>, Scheme<Minifloat<4, 3>, PerGroup<32>>,
             presets::Nf4Plain, presets::Nf4DoubleQuant, presets::TernaryGroup128, Scheme<SInt<12>>>;

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  for_each_type(Benched{}, []<class S>() { add<S>(); });
  benchmark::RunSpecifiedBenchmarks();
}
