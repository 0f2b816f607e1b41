// Attention of one layer over a long context, one thread: a prompt at its end, or one token. `GMAC/s` counts products with keys
// and values that are seen, `of_peak` their share of f32 multiply-adds on registers, `GB/s` the bytes of keys and values that are
// read once, `of_probe` their share of a plain read of memory in between. One token goes through several layers in turn, so that
// keys and values come from memory.
//   bench_attention --benchmark_filter='/1$'

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <anybit/kernel/attention.hpp>
#include <anybit/nn/attention.hpp>
#include <anybit/nn/kv_cache.hpp>

#include "product_setup.hpp"

namespace {

using namespace anybit;
using namespace anybit::kernel;

struct Setup {
  AttentionShape shape;
  Index context = 0, tokens = 0;
  Index layers() const { return tokens == 1 ? 8 : 1; }
  Index kv_width() const { return shape.kv_heads * shape.head_dim; }
};

/// Times attention(layer), layer after layer, in turns with a read of memory and with multiply-adds on registers.
void run(benchmark::State& state, const Setup& s, Index bytes, const std::function<void(Index)>& attention) {
  static const bench::Reading memory(bench::rotate_bytes());
  ThreadPool one(1);
  bench::Samples ours, reading, peak;
  Index layer = 0;
  double done = 0;
  for (auto _ : state) {
    ours.time([&] { attention(layer); });
    layer = (layer + 1) % s.layers();
    if (ours.own.size() % 8 != 1) continue;
    state.PauseTiming();
    reading.time([&] { memory(one); });
    peak.time([&] { done = bench::multiply_adds(100000); });
    state.ResumeTiming();
  }
  const double seconds = bench::median(ours.own);
  const double macs = 2.0 * static_cast<double>(s.shape.heads * s.shape.head_dim * s.tokens) *
                      (static_cast<double>(s.context) - static_cast<double>(s.tokens - 1) / 2);
  state.counters["ms"] = seconds * 1e3;
  state.counters["GMAC/s"] = macs / seconds * 1e-9;
  state.counters["of_peak"] = macs / seconds / (done / bench::median(peak.own));
  state.counters["GB/s"] = static_cast<double>(bytes) / seconds * 1e-9;
  state.counters["of_probe"] =
      static_cast<double>(bytes) / seconds / (static_cast<double>(memory.bytes()) / bench::median(reading.own));
}

/// Rows of floats or halves, heads of a token side by side; `bits` for codes of all but the last positions.
void rows(benchmark::State& state, const Setup& s, FloatType type, int bits, Compute compute = Compute::f32) {
  const Index width = s.kv_width(), d = s.shape.head_dim, element = type == FloatType::f32 ? 4 : 2;
  const Index layer_bytes = s.context * width * element, code_bytes = bits == 0 ? 0 : kv_block_bytes(bits, d);
  const Matrix q = bench::normal(s.tokens, s.shape.heads * d, 1, 1);
  Matrix out(q.rows(), q.cols());
  std::vector<WeightBuffer> keys, values, codes;
  KvInputs kv;
  const Index blocks = bits == 0 ? 0 : first_block_of_rows(s.context - 1, kv.residual);
  AlignedBuffer scratch(static_cast<std::size_t>(encode_kv_scratch(d)));
  for (Index layer = 0; layer < s.layers(); ++layer) {
    const Matrix floats[2] = {bench::normal(s.context, width, 2, 1), bench::normal(s.context, width, 3, 1)};
    for (const bool is_keys : {true, false}) {
      WeightBuffer bytes(static_cast<std::size_t>(layer_bytes));
      const float* from = floats[is_keys ? 0 : 1].data();
      for (Index i = 0; i < s.context * width; ++i)
        if (type == FloatType::f32)
          reinterpret_cast<float*>(bytes.data())[i] = from[i];
        else
          reinterpret_cast<std::uint16_t*>(bytes.data())[i] = type == FloatType::f16 ? f32_to_f16(from[i]) : f32_to_bf16(from[i]);
      (is_keys ? keys : values).push_back(std::move(bytes));
    }
    codes.emplace_back(static_cast<std::size_t>(blocks * s.shape.kv_heads * code_bytes + 64));
    for (Index b = 0; b < blocks; ++b)
      for (Index h = 0; h < s.shape.kv_heads; ++h) {
        const auto block = [&](const Matrix& m) {
          return ConstMatrix(m.data() + b * kv_block * width + h * d, kv_block, d, width);
        };
        encode_kv(bits, block(floats[0]), block(floats[1]), codes.back().data() + (b * s.shape.kv_heads + h) * code_bytes,
                  scratch.data());
      }
  }
  const AttentionInputs a{.shape = s.shape,
                          .tokens = s.tokens,
                          .first = s.context - s.tokens,
                          .length = s.context,
                          .q = {q.data(), q.cols(), d},
                          .out = {out.data(), out.cols(), d},
                          .options = {.compute = compute}};
  const auto inputs = [&](Index layer) {
    const auto l = static_cast<std::size_t>(layer);
    kv.keys = {keys[l].data(), type, width, d};
    kv.values = {values[l].data(), type, width, d};
    if (bits != 0) kv.codes = {codes[l].data(), bits, s.shape.kv_heads * code_bytes, code_bytes};
  };
  inputs(0);
  if (const auto status = check(a, kv); !status) return state.SkipWithError(status.error().message.c_str());
  AlignedBuffer workspace(static_cast<std::size_t>(attention_workspace(a, kv)));
  run(state, s, bits == 0 ? 2 * layer_bytes : blocks * s.shape.kv_heads * code_bytes, [&](Index layer) {
    inputs(layer);
    attention(a, kv, 0, attention_units(a), workspace.data());
  });
}

/// nn::attention over nn::KvCache.
void cache(benchmark::State& state, const Setup& s, int bits) {
  const Index width = s.kv_width();
  nn::KvCache kv({s.layers(), s.shape.kv_heads, s.shape.head_dim}, s.context, {bits, 32, false});
  const Matrix q = bench::normal(s.tokens, s.shape.heads * s.shape.head_dim, 1, 1);
  Matrix out(q.rows(), q.cols());
  for (Index at = 0; at < s.context;) {
    const Index n = at < s.context - s.tokens ? s.context - s.tokens : s.tokens;
    for (Index layer = 0; layer < s.layers(); ++layer) {
      Matrix k = bench::normal(n, width, 2, 1), v = bench::normal(n, width, 3, 1);
      kv.append(layer, k.view(), v.view(), Serial{});
      if (at + n < s.context) kv.settle(layer, n);
    }
    at += n;
    if (at < s.context) kv.advance(n);
  }
  const auto bytes = static_cast<Index>(kv.bits_per_value() / 8 * 2 * static_cast<double>(s.context * width));
  run(state, s, bytes, [&](Index layer) { nn::attention(s.shape, q.view(), kv, layer, out.view(), Serial{}); });
}

void add_all() {
  for (const AttentionShape& shape : {AttentionShape{32, 32, 64}, AttentionShape{32, 8, 64}, AttentionShape{32, 8, 128}})
    for (const Index tokens : {512, 1}) {
      const Setup s{shape, 4096, tokens};
      const std::string heads =
          std::to_string(shape.heads) + "_over_" + std::to_string(shape.kv_heads) + "_of_" + std::to_string(shape.head_dim) + "/";
      const auto add = [&](const std::string& name, auto f) {
        benchmark::RegisterBenchmark((name + "/" + heads + std::to_string(tokens)).c_str(), f)->Unit(benchmark::kMillisecond);
      };
      const std::pair<const char*, FloatType> types[] = {
          {"f32", FloatType::f32}, {"f16", FloatType::f16}, {"bf16", FloatType::bf16}};
      for (const auto& [name, type] : types)
        add(std::string("rows_") + name, [s, t = type](benchmark::State& state) { rows(state, s, t, 0); });
      add("rows_f16_in_bf16", [s](benchmark::State& state) { rows(state, s, FloatType::f16, 0, Compute::bf16); });
      for (const int bits : {16, 8, 4, 2}) {
        add("codes" + std::to_string(bits), [s, bits](benchmark::State& state) { rows(state, s, FloatType::f16, bits); });
        add("cache" + std::to_string(bits), [s, bits](benchmark::State& state) { cache(state, s, bits); });
      }
      add("cache32", [s](benchmark::State& state) { cache(state, s, 32); });
    }
}

}  // namespace

int main(int argc, char** argv) {
  add_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
