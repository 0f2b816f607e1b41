// Codes to bytes and back, one thread, from the caches: GB/s of weights as floats (4 bytes each), so that they compare with
// bench_quantize, which times weights to bytes and back. `bits` is bits a weight, `error` the relative Frobenius error of plain
// rounding.
//   bench_pack --benchmark_filter=unpack/

#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/requantize.hpp>

#include <random>
#include <string>

#include <benchmark/benchmark.h>

namespace {

using namespace anybit;

constexpr Extents shape{64, 4096};  // 1 MiB of floats, 256 KiB of codes

const Matrix& weights() {
  static const Matrix w = [] {
    Matrix m(shape.rows, shape.cols);
    std::mt19937 engine(1);
    std::normal_distribution<float> normal(0, 0.02f);
    for (Index i = 0; i < shape.size(); ++i) m.data()[i] = normal(engine);
    return m;
  }();
  return w;
}

void count(benchmark::State& state, double bits, double error) {
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * shape.size() * 4);
  state.counters["bits"] = bits;
  state.counters["error"] = error;
}

template <AnyScheme S>
void add() {
  const std::string name(S::name.view());
  struct Made {
    QuantizedMatrix<S> q = quantize_nearest<S>(weights().view()).value();
    PackedTensor<S> packed = pack(q);
    double error = matrix_distance(weights().view(), dequantize(packed).view()).relative;
  };
  static const auto made = []() -> const Made& {
    static const Made m;
    return m;
  };

  benchmark::RegisterBenchmark(("unpack/" + name).c_str(), [](benchmark::State& state) {
    const Made& m = made();
    std::vector<typename S::code> codes(static_cast<std::size_t>(shape.cols));
    for (auto _ : state)
      for (Index r = 0; r < shape.rows; ++r) {
        unpack_codes(m.packed, r, 0, std::span(codes));
        benchmark::DoNotOptimize(codes.data());
        benchmark::ClobberMemory();
      }
    count(state, m.packed.bits_per_weight(), m.error);
  });
  benchmark::RegisterBenchmark(("pack/" + name).c_str(), [](benchmark::State& state) {
    const Made& m = made();
    std::vector<std::byte> row(static_cast<std::size_t>(S::row_bytes(shape.cols)));
    for (auto _ : state)
      for (Index r = 0; r < shape.rows; ++r) {
        pack_row<typename S::layout, S::bits>(m.q.row(r), row.data());
        benchmark::DoNotOptimize(row.data());
        benchmark::ClobberMemory();
      }
    count(state, m.packed.bits_per_weight(), m.error);
  });
}

/// Widths and formats that no preset has.
using Others = TypeList<Scheme<Superfloat<1>>, Scheme<Superfloat<2>>, Scheme<SInt<5>>, Scheme<SInt<6>>, Scheme<SInt<7>>,
                        Scheme<SInt<12>>, Scheme<SInt<16>>, Scheme<UInt<8>>, Scheme<Fp4, PerGroup<64>>, Scheme<Minifloat<4, 3>>>;

}  // namespace

int main(int argc, char** argv) {
  for_each_type(Presets{}, []<class S>() { add<S>(); });
  for_each_type(Others{}, []<class S>() { add<S>(); });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
