#pragma once
// What the product benchmarks share: weights of every width quantized from one float matrix, Eigen on that matrix, medians.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <time.h>

#include <anybit/core/eigen_view.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/kernel/repack.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

#include "limits.hpp"

namespace bench {

using namespace anybit;

inline constexpr Index rows = 4096, cols = 4096;

/// Bytes that the weights of a one-token benchmark rotate over, so that they come from memory and not from a cache:
/// $ANYBIT_BENCH_ROTATE_MB megabytes, 320 unless set.
inline std::size_t rotate_bytes() {
  const char* set = std::getenv("ANYBIT_BENCH_ROTATE_MB");
  return static_cast<std::size_t>(set ? std::max(std::atol(set), 0L) : 320L) * 1000000u;
}

inline Matrix normal(Index r, Index c, unsigned seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0, scale);
  Matrix m(r, c);
  for (Index i = 0; i < r * c; ++i) m.data()[i] = distribution(random);
  return m;
}
inline const Matrix& weights() {
  static const Matrix w = normal(rows, cols, 1, 0.02f);
  return w;
}

/// Seconds by the clock and seconds that the calling thread spent on a processor: on a machine with other work the two
/// differ, and only the second tells how fast one thread's code is.
struct Seconds {
  double wall = 0, own = 0;
};
inline Seconds now() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return {std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(),
          static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec)};
}
struct Samples {
  std::vector<double> wall, own;
  template <class F>
  void time(F&& f) {
    const Seconds start = now();
    f();
    const Seconds end = now();
    wall.push_back(end.wall - start.wall);
    own.push_back(end.own - start.own);
  }
};
inline double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

/// |y - W x| / |W x| of the first token, over the float weights, in double.
inline double output_error(ConstMatrix x, ConstMatrix y) {
  double error = 0, size = 0;
  for (Index r = 0; r < rows; ++r) {
    double exact = 0;
    for (Index k = 0; k < cols; ++k) exact += static_cast<double>(weights()(r, k)) * static_cast<double>(x(0, k));
    error += (y(0, r) - exact) * (y(0, r) - exact);
    size += exact * exact;
  }
  return std::sqrt(error / size);
}

/// y = x W^T by Eigen, one thread; weights rotate like ours.
class EigenProduct {
 public:
  explicit EigenProduct(std::size_t bytes) {
    do copies_.push_back(weights());
    while (copies_.size() * static_cast<std::size_t>(rows * cols) * sizeof(float) < bytes);
  }
  void operator()(ConstMatrix x, MutableMatrix y) {
    const Matrix& w = copies_[next_++ % copies_.size()];
    if (x.rows == 1)
      Eigen::Map<Eigen::VectorXf>(y.data, y.cols).noalias() =
          as_eigen(w.view()) * Eigen::Map<const Eigen::VectorXf>(x.data, x.cols);
    else
      as_eigen(y).noalias() = as_eigen(x) * as_eigen(w.view()).transpose();
  }

 private:
  std::vector<Matrix> copies_;
  std::size_t next_ = 0;
};

/// The least time that the dot products of `tokens` tokens with codes of so many bits take in this run, in seconds of one thread.
inline double seconds_at_peak(Index tokens, int bits) {
  static double rates[8];
  double& rate = rates[bits - 1];
  if (rate == 0) {
    Samples samples;
    double done = 0;
    for (int i = 0; i < 15; ++i) samples.time([&] { done = dot_products_by_bits[bits - 1](100000); });
    rate = done / median(samples.own);
  }
  return static_cast<double>(rows * cols * tokens) / rate;
}

inline void report(benchmark::State& state, Index tokens, double bytes, double error, const Samples& ours, const Samples& eigen) {
  const double t = median(ours.wall), macs = static_cast<double>(rows * cols * tokens);
  state.counters["us"] = t * 1e6;
  state.counters["GMAC/s"] = macs / t * 1e-9;
  state.counters["GB/s"] = bytes / t * 1e-9;
  state.counters["bytes"] = bytes;
  state.counters["bits"] = 8 * bytes / static_cast<double>(rows * cols);
  state.counters["error"] = error;
  // How many times as fast as Eigen's f32 product, timed in turns with ours, one thread, processor time.
  if (!eigen.own.empty()) state.counters["x_eigen"] = median(eigen.own) / median(ours.own);
}

/// What is timed: packed bytes with either kind of activations, or the kernel layout made of them.
struct Way {
  Compute compute;
  bool tiled = false;
};
inline constexpr Way ways[] = {{Compute::f32},
                               {Compute::bf16},
                               {Compute::int8_per_token},
                               {Compute::int8_per_token, true},
                               {Compute::int8_per_block, true},
                               {Compute::int8_folded, true}};
inline std::string name(Way way) { return std::string(anybit::name(way.compute)) + (way.tiled ? "_tiled" : ""); }

/// How far levels on no grid may move: enough for NF4. The `error` of what is timed has the difference.
inline constexpr float level_error = 0.004f;

inline void multiply(const kernel::TiledWeights& w, Way way, ConstMatrix x, MutableMatrix y, Workspace& workspace,
                     ThreadPool& pool) {
  kernel::matmul(w, x, y, way.compute, workspace, pool);
}
template <AnyScheme S>
void multiply(const PackedTensor<S>& w, Way way, ConstMatrix x, MutableMatrix y, Workspace& workspace, ThreadPool& pool) {
  matmul(w, x, y, way.compute, workspace, pool);
}

/// The same weights, each time from make(), bytes of `byte_bits` bits to the dot products, rotate over `rotate` bytes. Eigen's
/// product is timed in turns with ours, and so is plain reading of as much memory where the weights come from there.
template <class Make>
void run_product(benchmark::State& state, Make&& make, std::size_t bytes, Way way, int byte_bits, Index tokens, Index threads,
                 EigenProduct& eigen, std::size_t rotate) {
  std::vector<decltype(make())> copies;
  do copies.push_back(make());
  while (copies.size() * bytes < rotate);
  const Matrix x = normal(tokens, cols, 2, 1);
  Matrix y(tokens, rows), eigen_y(tokens, rows);
  Workspace workspace;
  ThreadPool pool(threads);
  static const Reading memory(rotate);
  Samples ours, theirs, reading;
  std::size_t next = 0;
  for (auto _ : state) {
    ours.time([&] { multiply(copies[next++ % copies.size()], way, x.view(), y.view(), workspace, pool); });
    if (next % 4 != 1) continue;
    state.PauseTiming();
    if (threads == 1) theirs.time([&] { eigen(x.view(), eigen_y.view()); });
    if (rotate > 0) reading.time([&] { memory(pool); });
    state.ResumeTiming();
  }
  report(state, tokens, static_cast<double>(bytes), output_error(x.view(), y.view()), ours, theirs);
  if (rounds_to_int8(way.compute) && threads == 1)
    state.counters["of_peak"] = seconds_at_peak(tokens, byte_bits) / median(ours.own);
  if (rotate > 0)
    state.counters["of_probe"] =
        static_cast<double>(bytes) / median(ours.wall) / (static_cast<double>(memory.bytes()) / median(reading.wall));
}

/// Registers one benchmark; `eigen` is shared by all of a program. Weights are quantized when the first of a scheme runs.
template <AnyScheme S>
void add_product(const std::string& kind, Index tokens, Way way, Index threads, EigenProduct& eigen, std::size_t rotate) {
  if constexpr (!has_integer_dot_v<typename S::format>)
    if (way.tiled && !kernel::tile_weights(pack(QuantizedMatrix<S>({1, 1})), way.compute, level_error)) return;
  std::string title = kind + "/" + std::string(S::name.view()) + "/" + name(way);
  if (kind == "matmul") title += "/N:" + std::to_string(tokens);
  title += "/threads:" + std::to_string(threads);
  benchmark::RegisterBenchmark(title.c_str(), [=, &eigen](benchmark::State& state) {
    static const PackedTensor<S> packed = pack(quantize_nearest<S>(weights().view()).value());
    if (!way.tiled)
      return run_product(
          state, [] { return packed; }, static_cast<std::size_t>(packed.bytes().payload_bytes()), way, S::bits, tokens, threads,
          eigen, rotate);
    const auto make = [&] {
      if constexpr (has_integer_dot_v<typename S::format>)
        return kernel::tile_weights(packed, way.compute);
      else
        return kernel::tile_weights(packed, way.compute, level_error).value();
    };
    const auto tiled = make();
    run_product(state, make, static_cast<std::size_t>(tiled.bytes()), way,
                static_cast<int>(std::bit_width(static_cast<unsigned>(tiled.max_byte))), tokens, threads, eigen, rotate);
  })->Unit(benchmark::kMicrosecond);
}

inline void add_eigen(const std::string& name, Index tokens, EigenProduct& eigen) {
  benchmark::RegisterBenchmark(name.c_str(), [=, &eigen](benchmark::State& state) {
    const Matrix x = normal(tokens, cols, 2, 1);
    Matrix y(tokens, rows);
    Samples times;
    for (auto _ : state) times.time([&] { eigen(x.view(), y.view()); });
    report(state, tokens, static_cast<double>(rows * cols) * sizeof(float), output_error(x.view(), y.view()), times, {});
  })->Unit(benchmark::kMicrosecond);
}

/// One scheme for each width, then the other kinds.
using Benched = TypeList<presets::ScaledSuperfloat<8>, presets::ScaledSuperfloat<7>, presets::ScaledSuperfloat<6>,
                         presets::ScaledSuperfloat<5>, presets::ScaledSuperfloat<4>, presets::ScaledSuperfloat<3>,
                         presets::ScaledSuperfloat<2>, presets::ScaledSuperfloat<1>, presets::Int<8>, presets::Int<4>,
                         presets::Int8Group32, presets::AsymmetricInt4Group32, presets::AsymmetricInt<3>, presets::Nf4DoubleQuant,
                         presets::Mxfp4, Scheme<Minifloat<3, 2>>, Scheme<Minifloat<4, 3>>, presets::TernaryGroup128>;

/// Every width in groups of 32, whose ends come four times as often.
template <int Bits>
using Fine = Scheme<Superfloat<Bits>, PerGroup<32>>;
using BenchedFine = TypeList<Fine<8>, Fine<7>, Fine<6>, Fine<5>, Fine<4>, Fine<3>, Fine<2>>;

}  // namespace bench
